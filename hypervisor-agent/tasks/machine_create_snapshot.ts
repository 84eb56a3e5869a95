/** Takes a snapshot of a VM, running or stopped. One that fails leaves the VM as it was and nothing on its disks. */
import { SNAPSHOTS_MAX } from '../../actors/contract/snapshot.ts'
import { HypervisorError } from '../hypervisor.ts'
import { findVm, lookAt, mayBegin, needVm, type TaskHandler } from './task.ts'

export const machine_create_snapshot: TaskHandler<'machine_create_snapshot'> = {
  run: async (context, { uuid, snapshot_name: name }) => {
    const { hypervisor, taskId } = context
    await mayBegin(context, async () => {
      await needVm(context, uuid)
      const there = await hypervisor.listSnapshots(uuid)
      if (there.some(one => one.name === name && one.created_by !== taskId)) {
        throw new HypervisorError('SnapshotExists', `the VM ${uuid} has a snapshot ${name} already`)
      }
      if (there.length < SNAPSHOTS_MAX) return
      throw new HypervisorError('TooManySnapshots', `the VM ${uuid} has ${there.length} snapshots, which is the most`)
    })
    context.progress(20, 'snapshot')
    await context.once('taken', () => hypervisor.createSnapshot(uuid, { name, taskId }))
    return { ...(await lookAt(context, uuid)), snapshot_name: name }
  },
  undo: async ({ hypervisor, taskId }, { uuid, snapshot_name: name }) => {
    if (!(await findVm(hypervisor, uuid))) return
    // A task refused because the snapshot exists must not delete that one.
    const there = (await hypervisor.listSnapshots(uuid)).find(one => one.name === name)
    if (there && there.created_by !== taskId) return
    await hypervisor.deleteSnapshot(uuid, name)
  },
}
