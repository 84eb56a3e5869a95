/** Waiting for what a guest does: woken by the hypervisor's events, looking by itself as well, since events can be lost. */
import type { HypervisorChange, VmState } from '../hypervisor.ts'
import { findVm, type TaskContext } from './task.ts'

export interface Watch {
  /** True once `seen` holds for the VM or an event; false after `ms`. Throws when the task is aborted. */
  until(seen: (vm: VmState | undefined, happened: ReadonlySet<string>) => boolean, ms: number): Promise<boolean>
  stop(): void
}

/** Begins to listen at once, so that nothing between the watch and the first wait is missed. Stop it when done. */
export function watchVm(context: TaskContext, uuid: string): Watch {
  const { hypervisor, timings, signal, now } = context
  const happened = new Set<string>()
  let wake = () => {}
  const stop = hypervisor.onChange((change: HypervisorChange) => {
    if (change.uuid !== undefined && change.uuid.toLowerCase() !== uuid.toLowerCase()) return
    happened.add(change.what)
    wake()
  })
  return {
    until: async (seen, ms) => {
      const end = now() + ms
      for (;;) {
        signal.throwIfAborted()
        const woken = new Promise<void>(resolve => {
          wake = resolve
        })
        if (seen(await findVm(hypervisor, uuid), happened)) return true
        const left = end - now()
        if (left <= 0) return false
        await Promise.race([woken, context.pause(Math.min(left, timings.lookEveryMs))])
      }
    },
    stop,
  }
}
