/**
 * Has the node's installer install an agent. Where that is this agent itself, it is stopped meanwhile and started anew, and its new
 * release ends the task: the journal still holds it, and the installer remembers how it ended.
 */
import type { TaskHandler } from './task.ts'

export const agent_install: TaskHandler<'agent_install'> = {
  run: async (context, params) => {
    await context.agents.order({ id: context.taskId, kind: 'install', ...params }, context)
    return { sysinfo: await context.sysinfo(context.hypervisor) }
  },
}
