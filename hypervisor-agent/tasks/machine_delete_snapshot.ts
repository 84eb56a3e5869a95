/** Deletes a snapshot of a VM; one that is not there is success. */
import { lookAt, mayBegin, needVm, type TaskHandler } from './task.ts'

export const machine_delete_snapshot: TaskHandler<'machine_delete_snapshot'> = {
  run: async (context, { uuid, snapshot_name: name }) => {
    await mayBegin(context, async () => void (await needVm(context, uuid)))
    context.progress(20, 'delete')
    await context.hypervisor.deleteSnapshot(uuid, name)
    return lookAt(context, uuid)
  },
}
