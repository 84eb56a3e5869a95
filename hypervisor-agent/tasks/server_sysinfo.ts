/** The node's inventory as it is now. */
import type { TaskHandler } from './task.ts'

export const server_sysinfo: TaskHandler<'server_sysinfo'> = {
  run: async context => ({ sysinfo: await context.sysinfo(context.hypervisor) }),
}
