/** Gives the host its name, for good. The name in the server's record is the control plane's. */
import type { TaskHandler } from './task.ts'

export const server_set_hostname: TaskHandler<'server_set_hostname'> = {
  run: async (context, { hostname }) => {
    context.progress(10, 'set_hostname')
    await context.host.setHostname(hostname)
    return {}
  },
}
