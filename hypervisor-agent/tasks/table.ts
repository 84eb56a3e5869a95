/** Every task the agent can do. A row of table TASKS without a file here does not compile. */
import { machine_boot } from './machine_boot.ts'
import { machine_create } from './machine_create.ts'
import { machine_destroy } from './machine_destroy.ts'
import { machine_kill } from './machine_kill.ts'
import { machine_reboot } from './machine_reboot.ts'
import { machine_shutdown } from './machine_shutdown.ts'
import { network_create } from './network_create.ts'
import { network_delete } from './network_delete.ts'
import { nop } from './nop.ts'
import type { TaskHandlers } from './task.ts'

export const TASK_HANDLERS: TaskHandlers = {
  machine_create,
  machine_boot,
  machine_shutdown,
  machine_reboot,
  machine_kill,
  machine_destroy,
  network_create,
  network_delete,
  nop,
}
