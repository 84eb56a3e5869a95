/** Removes a VM with its disks, stopping it first. A VM that is not there is success. */
import type { TaskHandler } from './task.ts'

export const machine_destroy: TaskHandler<'machine_destroy'> = {
  run: async (context, { uuid }) => {
    await context.installs.forget(uuid)
    context.progress(30, 'remove')
    await context.hypervisor.removeVm(uuid)
    return { vm: null }
  },
}
