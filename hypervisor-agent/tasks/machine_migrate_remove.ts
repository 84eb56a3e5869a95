/** Removes the copy that the VM has left behind: only one that is held for this migration, which nobody can have started since. */
import { findVm, type TaskHandler } from './task.ts'

export const machine_migrate_remove: TaskHandler<'machine_migrate_remove'> = {
  run: async (context, { uuid, migration }) => {
    const { hypervisor } = context
    // Remembered: a removal that broke off has taken the mark with the definition, and the volumes are still there.
    const isLeft = await context.once('left', async () => (await findVm(hypervisor, uuid))?.held_by === migration)
    if (isLeft) await hypervisor.removeVm(uuid)
    return {}
  },
}
