/** Removes an image from the node's pool, unless a VM's disk stands on it. */
import { HypervisorError } from '../hypervisor.ts'
import { mayBegin, type TaskHandler } from './task.ts'

export const image_delete: TaskHandler<'image_delete'> = {
  run: async (context, { uuid }) => {
    const { hypervisor, images } = context
    await mayBegin(context, async () => {
      if ((await images.list(hypervisor)).some(image => image.name === uuid)) return
      throw new HypervisorError('ImageNotFound', `there is no image ${uuid} on this server`)
    })
    context.progress(50, 'remove_image')
    await images.remove(uuid, context)
    return {}
  },
}
