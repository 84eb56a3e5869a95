/**
 * One at a time per VM or network, several at once over all. Work that has held its slot for a while is taken to be waiting for a
 * guest or hanging, and gives the slot back, so that one sick VM delays the others by that while at most.
 */
export interface Lanes {
  /** Runs it when everything before it in this lane has ended and a slot is free. `null` is a lane of its own. */
  run<T>(lane: string | null, work: () => Promise<T>): Promise<T>
}

export interface LanesOptions {
  /** How many may begin at once. */
  parallel: number
  /** After this, work no longer counts, ms. */
  slotHoldMs: number
}

export function openLanes({ parallel, slotHoldMs }: LanesOptions): Lanes {
  const tails = new Map<string, Promise<unknown>>()
  const waiting: (() => void)[] = []
  let taken = 0

  async function takeSlot(): Promise<() => void> {
    if (taken >= parallel) await new Promise<void>(resolve => waiting.push(resolve))
    else taken += 1
    let held = true
    const release = () => {
      if (!held) return
      held = false
      clearTimeout(timer)
      // A slot goes straight to whoever waits longest, so that a newcomer cannot take it in between.
      const next = waiting.shift()
      if (next) next()
      else taken -= 1
    }
    const timer = setTimeout(release, slotHoldMs)
    // An agent that stops is not held up by an end that nobody hears.
    timer.unref()
    return release
  }

  async function inSlot<T>(work: () => Promise<T>): Promise<T> {
    const release = await takeSlot()
    try {
      return await work()
    } finally {
      release()
    }
  }

  return {
    run: (lane, work) => {
      if (lane === null) return inSlot(work)
      const before = tails.get(lane) ?? Promise.resolve()
      const mine = before.then(() => inSlot(work))
      const tail = mine.catch(() => {})
      tails.set(lane, tail)
      void tail.then(() => {
        if (tails.get(lane) === tail) tails.delete(lane)
      })
      return mine
    },
  }
}
