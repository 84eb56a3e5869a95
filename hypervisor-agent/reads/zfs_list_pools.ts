/** Pools of the node. */
import type { ReadHandlers } from './read.ts'

export const zfs_list_pools: ReadHandlers['zfs_list_pools'] = ({ zfs }) => zfs.pools()
