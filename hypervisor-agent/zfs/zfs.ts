/** The ZFS of a node, as far as the API goes. Failures are ZfsNotAvailable, DatasetNotFound, DatasetExists, DatasetBusy and ZfsFailed with ZFS's own words. */

export interface Zfs {
  /** Filesystems and volumes. */
  datasets(): Promise<ZfsRow[]>
  /** Those of this dataset and of all below it. */
  snapshots(dataset: string): Promise<ZfsRow[]>
  /** By dataset (snapshots too where none is named); all properties where none is named. */
  properties(dataset: string | undefined, names: readonly string[]): Promise<Record<string, Record<string, string>>>
  /** Those of these properties that were set on the dataset itself, and not inherited. */
  ownProperties(dataset: string, names: readonly string[]): Promise<Record<string, string>>
  pools(): Promise<ZpoolRow[]>
  create(dataset: string): Promise<void>
  snapshot(name: string): Promise<void>
  rollback(name: string): Promise<void>
  set(dataset: string, properties: Readonly<Record<string, string>>): Promise<void>
  /** The property is as if it had never been set here. */
  unset(dataset: string, property: string): Promise<void>
  destroy(name: string): Promise<void>
}

/** As `zfs list` shows it; sizes are whole bytes in digits (cnapi-behaviour §9.5). */
export type ZfsRow = Record<'name' | 'used' | 'avail' | 'refer' | 'type' | 'mountpoint', string>
export type ZpoolRow = Record<'name' | 'size' | 'allocated' | 'free' | 'cap' | 'health', string>

/** Is there such a dataset or snapshot. */
export async function hasDataset(zfs: Zfs, name: string): Promise<boolean> {
  try {
    await zfs.properties(name, ['type'])
    return true
  } catch (error) {
    if ((error as { code?: unknown }).code === 'DatasetNotFound') return false
    throw error
  }
}
