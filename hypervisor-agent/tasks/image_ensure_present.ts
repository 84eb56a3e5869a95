/** Fetches an image into the node's pool unless it is there. */
import { HypervisorError } from '../hypervisor.ts'
import type { TaskHandler } from './task.ts'

/** CNAPI's clients name this pool where they have no wish. */
const poolOfClients = 'zones'

export const image_ensure_present: TaskHandler<'image_ensure_present'> = {
  run: async (context, { image_uuid: name, zfs_storage_pool_name: wanted, sha256, sha1, md5, ...file }) => {
    const { pool } = await context.hypervisor.storage()
    if (wanted !== undefined && wanted !== pool && wanted !== poolOfClients) {
      throw new HypervisorError('InvalidArgument', `this server keeps its images in pool ${pool}, not in ${wanted}`)
    }
    await context.images.ensure({ name, digests: { sha256, sha1, md5 }, ...file }, context)
    return {}
  },
}
