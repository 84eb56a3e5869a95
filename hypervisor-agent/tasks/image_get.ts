/** One image of the node's pool, and where it came from. */
import { HypervisorError } from '../hypervisor.ts'
import type { TaskHandler } from './task.ts'

export const image_get: TaskHandler<'image_get'> = {
  run: async ({ hypervisor, images }, { uuid }) => {
    const image = (await images.list(hypervisor)).find(one => one.name === uuid)
    if (!image) throw new HypervisorError('ImageNotFound', `there is no image ${uuid} on this server`)
    return image
  },
}
