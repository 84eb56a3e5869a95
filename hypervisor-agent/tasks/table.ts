/** Every task the agent can do. A row of table TASKS without a file here does not compile. */

import { agent_install } from './agent_install.ts'
import { agents_uninstall } from './agents_uninstall.ts'
import { command_execute } from './command_execute.ts'
import { docker_build } from './docker_build.ts'
import { docker_copy } from './docker_copy.ts'
import { docker_exec } from './docker_exec.ts'
import { docker_stats } from './docker_stats.ts'
import { image_delete } from './image_delete.ts'
import { image_ensure_present } from './image_ensure_present.ts'
import { image_get } from './image_get.ts'
import { machine_boot } from './machine_boot.ts'
import { machine_create } from './machine_create.ts'
import { machine_create_image } from './machine_create_image.ts'
import { machine_create_snapshot } from './machine_create_snapshot.ts'
import { machine_delete_snapshot } from './machine_delete_snapshot.ts'
import { machine_destroy } from './machine_destroy.ts'
import { machine_kill } from './machine_kill.ts'
import { machine_migrate_adopt } from './machine_migrate_adopt.ts'
import { machine_migrate_discard } from './machine_migrate_discard.ts'
import { machine_migrate_examine } from './machine_migrate_examine.ts'
import { machine_migrate_finish } from './machine_migrate_finish.ts'
import { machine_migrate_receive } from './machine_migrate_receive.ts'
import { machine_migrate_release } from './machine_migrate_release.ts'
import { machine_migrate_remove } from './machine_migrate_remove.ts'
import { machine_migrate_send } from './machine_migrate_send.ts'
import { machine_migrate_start } from './machine_migrate_start.ts'
import { machine_reboot } from './machine_reboot.ts'
import { machine_reprovision } from './machine_reprovision.ts'
import { machine_rollback_snapshot } from './machine_rollback_snapshot.ts'
import { machine_shutdown } from './machine_shutdown.ts'
import { machine_update } from './machine_update.ts'
import { machine_update_nics } from './machine_update_nics.ts'
import { network_create } from './network_create.ts'
import { network_delete } from './network_delete.ts'
import { nop } from './nop.ts'
import { recovery_config } from './recovery_config.ts'
import { server_check } from './server_check.ts'
import { server_factory_reset } from './server_factory_reset.ts'
import { server_reboot } from './server_reboot.ts'
import { server_run_script } from './server_run_script.ts'
import { server_set_hostname } from './server_set_hostname.ts'
import { server_setup_storage } from './server_setup_storage.ts'
import { server_sysinfo } from './server_sysinfo.ts'
import { server_update_nics } from './server_update_nics.ts'
import type { TaskHandlers } from './task.ts'
import { zfs_create_dataset } from './zfs_create_dataset.ts'
import { zfs_destroy_dataset } from './zfs_destroy_dataset.ts'
import { zfs_rollback_dataset } from './zfs_rollback_dataset.ts'
import { zfs_set_properties } from './zfs_set_properties.ts'
import { zfs_snapshot_dataset } from './zfs_snapshot_dataset.ts'

export const TASK_HANDLERS: TaskHandlers = {
  machine_create,
  machine_boot,
  machine_shutdown,
  machine_reboot,
  machine_kill,
  machine_destroy,
  machine_migrate_examine,
  machine_migrate_receive,
  machine_migrate_send,
  machine_migrate_adopt,
  machine_migrate_start,
  machine_migrate_finish,
  machine_migrate_remove,
  machine_migrate_discard,
  machine_migrate_release,
  machine_update,
  machine_reprovision,
  machine_update_nics,
  machine_create_snapshot,
  machine_rollback_snapshot,
  machine_delete_snapshot,
  machine_create_image,
  network_create,
  network_delete,
  nop,
  server_check,
  server_setup_storage,
  server_update_nics,
  server_set_hostname,
  server_run_script,
  server_reboot,
  server_factory_reset,
  server_sysinfo,
  command_execute,
  recovery_config,
  image_ensure_present,
  image_get,
  image_delete,
  agent_install,
  agents_uninstall,
  zfs_create_dataset,
  zfs_destroy_dataset,
  zfs_rollback_dataset,
  zfs_set_properties,
  zfs_snapshot_dataset,
  docker_exec,
  docker_copy,
  docker_stats,
  docker_build,
}
