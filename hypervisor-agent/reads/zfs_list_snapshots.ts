/** Snapshots of one dataset. */
import type { ReadHandlers } from './read.ts'

export const zfs_list_snapshots: ReadHandlers['zfs_list_snapshots'] = ({ zfs }, { dataset }) => zfs.snapshots(dataset)
