/**
 * Ends a VM by a signal. QEMU takes no signals for its guest, so two of them are mapped: TERM lets QEMU end in order, KILL does not.
 * Spelled as name with or without SIG, any case, or as number; absent means KILL.
 */
import { HypervisorError } from '../hypervisor.ts'
import { lookAt, mayBegin, needVm, type TaskHandler } from './task.ts'

const signals: Readonly<Record<string, { graceful: boolean }>> = {
  TERM: { graceful: true },
  15: { graceful: true },
  KILL: { graceful: false },
  9: { graceful: false },
}

export const machine_kill: TaskHandler<'machine_kill'> = {
  run: async (context, { uuid, signal = 'SIGKILL', idempotent }) => {
    const spelled = String(signal).trim().toUpperCase().replace(/^SIG/, '')
    const how = Object.hasOwn(signals, spelled) ? signals[spelled] : undefined
    if (!how) {
      throw new HypervisorError(
        'SignalNotSupported',
        `signal ${signal} cannot be sent to a VM; SIGTERM and SIGKILL can`,
      )
    }
    await mayBegin(context, async () => {
      const { state } = await needVm(context, uuid)
      if (state !== 'running' && !idempotent) throw new HypervisorError('VmNotRunning', `the VM ${uuid} is not running`)
    })
    await context.installs.forget(uuid)
    context.progress(50, 'power_off')
    await context.hypervisor.powerOff(uuid, how)
    return lookAt(context, uuid)
  },
}
