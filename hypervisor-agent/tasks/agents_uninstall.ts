/** Has the node's installer remove agents that it installed; others are not there, which is success. This agent does not remove itself. */
import { ownNames } from '../agents/order.ts'
import { HypervisorError } from '../hypervisor.ts'
import type { TaskHandler } from './task.ts'

export const agents_uninstall: TaskHandler<'agents_uninstall'> = {
  run: async (context, { agents }) => {
    const own = agents.find(name => ownNames.includes(name))
    if (own)
      throw new HypervisorError(
        'InvalidArgument',
        `${own} is the agent that would have to do it: remove it on the server itself`,
      )
    await context.agents.order({ id: context.taskId, kind: 'uninstall', agents }, context)
    return { sysinfo: await context.sysinfo(context.hypervisor) }
  },
}
