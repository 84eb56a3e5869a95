/** Sets properties of a dataset: all, or none where ZFS refuses one. */
import type { TaskHandler } from './task.ts'

export const zfs_set_properties: TaskHandler<'zfs_set_properties'> = {
  run: async (context, { dataset, properties }) => {
    const { zfs } = context
    const before = await context.once('before', async () => {
      return (await zfs.properties(dataset, Object.keys(properties)))[dataset] ?? {}
    })
    const done: string[] = []
    try {
      for (const [name, value] of Object.entries(properties)) {
        await zfs.set(dataset, { [name]: value })
        done.push(name)
      }
    } catch (error) {
      for (const name of done.reverse()) {
        const old = before[name] ?? '-'
        await (old === '-' ? zfs.unset(dataset, name) : zfs.set(dataset, { [name]: old }))
      }
      throw error
    }
    return {}
  },
}
