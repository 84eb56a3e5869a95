/** Brings a dataset back to its latest snapshot; ZFS refuses an older one. */
import type { TaskHandler } from './task.ts'

export const zfs_rollback_dataset: TaskHandler<'zfs_rollback_dataset'> = {
  run: async (context, { dataset }) => {
    await context.once('rolled_back', () => context.zfs.rollback(dataset))
    return {}
  },
}
