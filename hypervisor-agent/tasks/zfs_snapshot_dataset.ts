/** Takes a snapshot. */
import { HypervisorError } from '../hypervisor.ts'
import { hasDataset } from '../zfs/zfs.ts'
import { mayBegin, type TaskHandler } from './task.ts'

export const zfs_snapshot_dataset: TaskHandler<'zfs_snapshot_dataset'> = {
  run: async (context, { dataset }) => {
    const { zfs } = context
    await mayBegin(context, async () => {
      if (await hasDataset(zfs, dataset)) throw new HypervisorError('DatasetExists', `${dataset} exists already`)
    })
    // Taken up again after a crash, it may find its own work.
    if (!(await hasDataset(zfs, dataset))) await zfs.snapshot(dataset)
    return {}
  },
}
