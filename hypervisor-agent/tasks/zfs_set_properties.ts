/** Sets properties of a dataset: all of them or, as far as ZFS takes the old values back, none. ZFS itself sets one after the other. */
import type { TaskContext, TaskHandler } from './task.ts'

/** What the dataset had, and what of it was set on the dataset itself. */
interface Before {
  values: Record<string, string>
  own: Record<string, string>
}

export const zfs_set_properties: TaskHandler<'zfs_set_properties'> = {
  run: async (context, { dataset, properties }) => {
    const { zfs, signal } = context
    const names = Object.keys(properties)
    await context.once<Before>('before', async () => ({
      values: (await zfs.properties(dataset, names))[dataset] ?? {},
      own: await zfs.ownProperties(dataset, names),
    }))
    for (const [name, value] of Object.entries(properties)) {
      signal.throwIfAborted()
      await zfs.set(dataset, { [name]: value })
    }
    return {}
  },
  undo: async (context, { dataset, properties }) => {
    const before = await context.once<Before | null>('before', () => null)
    if (!before) return
    for (const name of Object.keys(properties).reverse()) await setBack(context, dataset, name, before)
  },
}

/** What was not set here is inherited again; a property that cannot be inherited has its old value. */
async function setBack({ zfs }: TaskContext, dataset: string, name: string, { values, own }: Before): Promise<void> {
  const [old = '-', ownValue] = [values[name], own[name]]
  if (ownValue !== undefined) return zfs.set(dataset, { [name]: ownValue })
  // One that was not set yet, or that nobody can set.
  if (!(name in (await zfs.ownProperties(dataset, [name])))) return
  await zfs.unset(dataset, name).catch(error => {
    if (old === '-') throw error
    // A quota or reservation that there is not reads as 0, and is set as none.
    return zfs.set(dataset, { [name]: old === '0' ? 'none' : old })
  })
}
