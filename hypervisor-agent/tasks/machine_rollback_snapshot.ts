/** Brings a VM back to a snapshot: its disks as they were, running with its memory or stopped as it was then. */
import { HypervisorError } from '../hypervisor.ts'
import { lookAt, mayBegin, needVm, type TaskHandler } from './task.ts'

export const machine_rollback_snapshot: TaskHandler<'machine_rollback_snapshot'> = {
  run: async (context, { uuid, snapshot_name: name }) => {
    const { hypervisor, installs } = context
    await mayBegin(context, async () => {
      await needVm(context, uuid)
      if ((await hypervisor.listSnapshots(uuid)).some(one => one.name === name)) return
      throw new HypervisorError('SnapshotNotFound', `the VM ${uuid} has no snapshot ${name}`)
    })
    // Its installer would otherwise be taken for finished, and the VM started from disk.
    await installs.forget(uuid)
    context.progress(20, 'rollback')
    await context.once('rolled_back', () => hypervisor.rollbackSnapshot(uuid, name))
    return lookAt(context, uuid)
  },
}
