/**
 * Starts the VM on the node it has come to, or lets one go on that came running. One that is started has booted when it is still up after a
 * moment: QEMU refuses what it cannot run at once.
 */
import { HypervisorError } from '../hypervisor.ts'
import { needOurs } from './machine_migrate_adopt.ts'
import { lookAt, type TaskHandler } from './task.ts'
import { watchVm } from './watch.ts'

export const machine_migrate_start: TaskHandler<'machine_migrate_start'> = {
  run: async (context, { uuid, migration, cookie }) => {
    const { hypervisor, timings } = context
    await needOurs(context, uuid, migration)
    context.progress(20, 'start')
    if (cookie !== undefined) {
      const found = await hypervisor.finishLive(uuid, cookie)
      await hypervisor.completeVm(uuid)
      // What it has done here since is nowhere else: how it fares from now on is no matter of the migration.
      return { ...(await lookAt(context, uuid)), found }
    }
    await hypervisor.startVm(uuid)
    context.progress(60, 'watch')
    const watch = watchVm(context, uuid)
    try {
      if (await watch.until(vm => vm?.state !== 'running', timings.bootWatchMs)) {
        throw new HypervisorError('TaskFailed', `the VM ${uuid} did not stay up after its start on this server`)
      }
    } finally {
      watch.stop()
    }
    return lookAt(context, uuid)
  },
}
