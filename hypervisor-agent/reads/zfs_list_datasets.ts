/** Filesystems and volumes of the node. */
import type { ReadHandlers } from './read.ts'

export const zfs_list_datasets: ReadHandlers['zfs_list_datasets'] = ({ zfs }) => zfs.datasets()
