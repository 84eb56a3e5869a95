/** Removes a network that no VM uses. */
import { HypervisorError } from '../hypervisor.ts'
import { mayBegin, type TaskHandler } from './task.ts'

export const network_delete: TaskHandler<'network_delete'> = {
  run: async (context, { name }) => {
    const listed = async () => (await context.hypervisor.listNetworks()).some(one => one.name === name)
    await mayBegin(context, async () => {
      if (!(await listed())) throw new HypervisorError('NetworkNotFound', `there is no network ${name}`)
    })
    context.progress(50, 'delete')
    // It may be gone by this task's own hand, before a crash.
    if (await listed()) await context.hypervisor.deleteNetwork(name)
    return {}
  },
}
