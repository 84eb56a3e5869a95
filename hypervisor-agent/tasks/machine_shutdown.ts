/**
 * Stops a VM by its power button, pressed again every few seconds because a booting guest loses it, and switches it off when the
 * deadline has passed. `force` switches it off at once; `timeout` (seconds) replaces the default of three minutes.
 */
import { HypervisorError } from '../hypervisor.ts'
import { guestQuestion } from './ask-guest.ts'
import { lookAt, mayBegin, needVm, type TaskContext, type TaskHandler } from './task.ts'
import { watchVm } from './watch.ts'

/** The wait ends before the task's own limit of an hour does. */
const longestWaitMs = 3_540_000

export const machine_shutdown: TaskHandler<'machine_shutdown'> = {
  run: async (context, { uuid, force, timeout, idempotent }) => {
    const { hypervisor, installs, timings } = context
    await mayBegin(context, async () => {
      const { state } = await needVm(context, uuid)
      if (state !== 'running' && !idempotent) throw new HypervisorError('VmNotRunning', `the VM ${uuid} is not running`)
    })
    // Its installer would otherwise be taken for finished, and the VM started from disk.
    await installs.forget(uuid)
    if (!force) {
      const waitMs = Math.min(timeout === undefined ? timings.stopTimeoutMs : timeout * 1000, longestWaitMs)
      await shutDown(context, uuid, waitMs)
    } else {
      context.progress(90, 'power_off')
      await hypervisor.powerOff(uuid, { graceful: false })
    }
    return lookAt(context, uuid)
  },
}

/** Asks the guest to go off, and switches it off when it has not after so long. `share`: of the task's progress, percent. */
export async function shutDown(
  context: TaskContext,
  uuid: string,
  waitMs: number,
  share = { from: 10, to: 90 },
): Promise<void> {
  const { hypervisor, timings, now } = context
  const deadline = await context.once('deadline', () => now() + waitMs)
  context.progress(share.from, 'acpi')
  const watch = watchVm(context, uuid)
  try {
    const press = guestQuestion(() => hypervisor.pressPowerButton(uuid))
    do {
      const end = Math.max(now(), Math.min(now() + timings.pressEveryMs, deadline))
      await press(Math.max(timings.lookEveryMs, end - now()))
      if (await watch.until(vm => vm?.state !== 'running', Math.max(0, end - now()))) return
    } while (now() < deadline)
  } finally {
    watch.stop()
  }
  context.progress(share.to, 'power_off')
  await hypervisor.powerOff(uuid, { graceful: false })
}
