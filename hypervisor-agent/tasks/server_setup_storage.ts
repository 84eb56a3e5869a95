/** Makes the storage pool of the node where it is missing. A node that was reset is prepared from here on. */
import type { TaskHandler } from './task.ts'

export const server_setup_storage: TaskHandler<'server_setup_storage'> = {
  run: async context => {
    context.progress(10, 'make_pool')
    await context.hypervisor.makePool()
    await context.resetMark.clear()
    return {}
  },
}
