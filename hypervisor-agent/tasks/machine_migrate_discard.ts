/** Takes back what a migration made here: its stream, its copy, running or not. What it did not make stays. */
import { findVm, type TaskHandler } from './task.ts'

export const machine_migrate_discard: TaskHandler<'machine_migrate_discard'> = {
  run: async (context, { uuid, migration, token }) => {
    const { hypervisor, receptions } = context
    await receptions.end(token)
    const vm = await findVm(hypervisor, uuid)
    const isOurs = await context.once('ours', () => vm?.created_by === migration)
    if (isOurs) await hypervisor.removeVm(uuid)
    return {}
  },
}
