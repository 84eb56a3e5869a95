/** Destroys a dataset or a snapshot. ZFS refuses what has children: they are named one by one. */
import { HypervisorError } from '../hypervisor.ts'
import { hasDataset } from '../zfs/zfs.ts'
import { mayBegin, type TaskHandler } from './task.ts'

/** A dataset is busy for a moment after a rollback or an unmount; one that is in use stays so. */
const busyLimitMs = 15_000
const busyEveryMs = 500

export const zfs_destroy_dataset: TaskHandler<'zfs_destroy_dataset'> = {
  run: async (context, { dataset }) => {
    const { zfs } = context
    await mayBegin(context, async () => {
      if (!(await hasDataset(zfs, dataset)))
        throw new HypervisorError('DatasetNotFound', `there is no dataset ${dataset}`)
    })
    const end = context.now() + busyLimitMs
    while (await hasDataset(zfs, dataset)) {
      try {
        await zfs.destroy(dataset)
      } catch (error) {
        const isBusy = error instanceof HypervisorError && error.code === 'DatasetBusy'
        if (!isBusy || context.now() > end) throw error
        await context.pause(busyEveryMs)
      }
    }
    return {}
  },
}
