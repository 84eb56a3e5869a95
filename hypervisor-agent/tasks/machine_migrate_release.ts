/** Gives a VM back to the node that it was to leave: no longer held, and running if it ran, or as it is if it was to leave running. */
import { lookAt, needVm, type TaskHandler } from './task.ts'

export const machine_migrate_release: TaskHandler<'machine_migrate_release'> = {
  run: async (context, { uuid, migration, start, live }) => {
    const { hypervisor } = context
    await needVm(context, uuid)
    if (live) await hypervisor.recallLive(uuid)
    await hypervisor.releaseVm(uuid, migration)
    context.progress(50, 'start')
    if (start) await hypervisor.startVm(uuid)
    return lookAt(context, uuid)
  },
}
