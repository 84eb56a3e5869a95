/**
 * Reboots a VM: asks the guest, again every few seconds, and resets it when the deadline has passed. `force` resets it at once.
 * A VM that was changed since its start is stopped and started instead, for a reboot keeps its machine as it is. So is one whose
 * installer runs, which then starts from its disks: that is what its reboot means.
 */
import { HypervisorError } from '../hypervisor.ts'
import { guestQuestion } from './ask-guest.ts'
import { setInternalMetadata, takeMetadataBack } from './internal-metadata.ts'
import { shutDown } from './machine_shutdown.ts'
import { lookAt, mayBegin, needVm, type TaskContext, type TaskHandler } from './task.ts'
import { watchVm } from './watch.ts'

const longestWaitMs = 3_540_000

export const machine_reboot: TaskHandler<'machine_reboot'> = {
  run: async (context, { uuid, force, timeout, update }) => {
    const { hypervisor, installs, timings, now } = context
    await mayBegin(context, async () => {
      const { state } = await needVm(context, uuid)
      if (state !== 'running') throw new HypervisorError('VmNotRunning', `the VM ${uuid} is not running`)
    })
    await setInternalMetadata(context, uuid, update)
    const leavesInstaller = await context.once('leaves_installer', () => installs.isInstalling(uuid))
    await context.once('rebooted', async () => {
      if (leavesInstaller) {
        await installs.forget(uuid)
        await hypervisor.powerOff(uuid, { graceful: true })
        await hypervisor.startVm(uuid)
        return
      }
      const waitMs = Math.min(timeout === undefined ? timings.stopTimeoutMs : timeout * 1000, longestWaitMs)
      if (await context.once('restarts', async () => (await hypervisor.pendingParts(uuid)).length > 0)) {
        await restart(context, uuid, force ? 0 : waitMs)
        return
      }
      const deadline = await context.once('deadline', () => now() + waitMs)
      if (!force && (await guestFollows(context, uuid, deadline))) return
      context.progress(90, 'reset')
      if (await guestQuestion(() => hypervisor.resetVm(uuid))(timings.pressEveryMs)) return
      // QEMU resets a guest at once, whatever the guest does: this one hangs.
      await hypervisor.powerOff(uuid, { graceful: false })
      await hypervisor.startVm(uuid)
    })
    return lookAt(context, uuid)
  },
  undo: (context, { uuid }) => takeMetadataBack(context, uuid),
}

/** A reboot keeps QEMU as it is: what changed since its start comes with another QEMU. */
async function restart(context: TaskContext, uuid: string, waitMs: number): Promise<void> {
  const { hypervisor } = context
  if ((await needVm(context, uuid)).state === 'running') {
    // Taken up again after its start it has nothing pending any more.
    if ((await hypervisor.pendingParts(uuid)).length === 0) return
    if (waitMs > 0) await shutDown(context, uuid, waitMs)
    else await hypervisor.powerOff(uuid, { graceful: false })
  }
  await hypervisor.startVm(uuid)
}

/** True if the guest rebooted, or went off and was started again, before the deadline. */
async function guestFollows(context: TaskContext, uuid: string, deadline: number): Promise<boolean> {
  const { hypervisor, timings, now } = context
  context.progress(10, 'acpi')
  const watch = watchVm(context, uuid)
  let isOff = false
  try {
    const request = guestQuestion(() => hypervisor.requestReboot(uuid))
    do {
      const end = Math.max(now(), Math.min(now() + timings.pressEveryMs, deadline))
      await request(Math.max(timings.lookEveryMs, end - now()))
      const within = Math.max(0, end - now())
      const followed = await watch.until((vm, happened) => {
        isOff = vm?.state !== 'running'
        return isOff || happened.has('rebooted')
      }, within)
      if (followed && isOff) await hypervisor.startVm(uuid)
      if (followed) return true
    } while (now() < deadline)
    return false
  } finally {
    watch.stop()
  }
}
