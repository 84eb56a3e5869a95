/**
 * Asking a guest for something over its QEMU, which may be stopped or hang and then never answers: the task goes on without an answer, so
 * that its own deadline comes and the guest can be ended by force. While a question is open, no other is put on top of it.
 */

/** Resolves when it is answered or the patience is over, ms; true if it was answered. Rejects with what refuses it until then. */
export type GuestQuestion = (patienceMs: number) => Promise<boolean>

/** `ask` rejects when its task is aborted. */
export function guestQuestion(ask: () => Promise<void>): GuestQuestion {
  let open: Promise<void> | undefined
  return async patienceMs => {
    open ??= ask().finally(() => {
      open = undefined
    })
    // Nobody may be waiting any more when it is refused.
    open.catch(() => {})
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<false>(resolve => {
      timer = setTimeout(() => resolve(false), patienceMs)
    })
    try {
      return await Promise.race([open.then(() => true as const), late])
    } finally {
      clearTimeout(timer)
    }
  }
}
