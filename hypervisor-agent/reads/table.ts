/** Every live read the agent answers. A row of table READS without a file here does not compile. */
import { domain_list } from './domain_list.ts'
import { image_list } from './image_list.ts'
import { machine_found } from './machine_found.ts'
import { machine_info } from './machine_info.ts'
import { machine_load } from './machine_load.ts'
import { machine_proc } from './machine_proc.ts'
import { machine_snapshots } from './machine_snapshots.ts'
import { network_list } from './network_list.ts'
import { network_load } from './network_load.ts'
import { node_health } from './node_health.ts'
import type { ReadHandlers } from './read.ts'
import { task_history } from './task_history.ts'
import { zfs_get_properties } from './zfs_get_properties.ts'
import { zfs_list_datasets } from './zfs_list_datasets.ts'
import { zfs_list_pools } from './zfs_list_pools.ts'
import { zfs_list_snapshots } from './zfs_list_snapshots.ts'

export const READ_HANDLERS: ReadHandlers = {
  machine_load,
  machine_snapshots,
  machine_info,
  machine_proc,
  machine_found,
  network_list,
  network_load,
  domain_list,
  node_health,
  image_list,
  task_history,
  zfs_list_datasets,
  zfs_list_snapshots,
  zfs_get_properties,
  zfs_list_pools,
}
