/**
 * Reboots the host. The mark says in which boot the order was given: an agent that comes back in another one with the task still open
 * sees that it is done.
 */
import type { TaskHandler } from './task.ts'

export const server_reboot: TaskHandler<'server_reboot'> = {
  run: async context => {
    const ordered = await context.once('boot', () => context.host.bootId())
    if ((await context.host.bootId()) !== ordered) return {}
    context.progress(50, 'reboot')
    await context.host.reboot()
    return {}
  },
}
