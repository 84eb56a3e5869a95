/** The VM is this node's: from now on it starts with the node, if it did where it came from. */
import { lookAt, needVm, type TaskHandler } from './task.ts'

export const machine_migrate_finish: TaskHandler<'machine_migrate_finish'> = {
  run: async (context, { uuid, autoboot }) => {
    const { hypervisor } = context
    await needVm(context, uuid)
    const shape = await hypervisor.shapeOf(uuid)
    if (shape.autoboot !== autoboot) await hypervisor.reshapeVm(uuid, { ...shape, autoboot }, { parts: [] })
    return lookAt(context, uuid)
  },
}
