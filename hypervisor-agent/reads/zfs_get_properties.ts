/** Properties by dataset. */
import type { ReadHandlers } from './read.ts'

export const zfs_get_properties: ReadHandlers['zfs_get_properties'] = ({ zfs }, { dataset, properties }) =>
  zfs.properties(dataset, properties)
