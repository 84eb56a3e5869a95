/** Tasks about a node's ZFS (cnapi-behaviour §9.5), and the names they take. What only looks is a live read. */
import * as v from 'valibot'
import { minute, nothing, type TaskKind } from './kind.ts'

const part = '[A-Za-z0-9][A-Za-z0-9_.:-]*'
const named = (form: string, what: string) =>
  v.pipe(v.string('value was not a string'), v.maxLength(255, 'is too long'), v.regex(new RegExp(`^${form}$`), what))

/** `pool` or `pool/a/b`: letters, digits and `_.:-` in each part, the first a letter or digit; so never an option of a command. */
export const DatasetName = named(`${part}(/${part})*`, 'is not the name of a dataset')
/** The part behind `@`. */
export const SnapshotPart = named(part, 'is not the name of a snapshot')
export const SnapshotName = named(`${part}(/${part})*@${part}`, 'is not the name of a snapshot')
export const DatasetOrSnapshot = named(`${part}(/${part})*(@${part})?`, 'is not the name of a dataset or snapshot')
/** A native property, or a user's own with a colon in its name. */
export const PropertyName = named('[a-z0-9][a-z0-9_.:-]*', 'is not the name of a property')
export const PropertyValues = v.pipe(
  v.record(PropertyName, v.pipe(v.string('value was not a string'), v.maxLength(1024), v.regex(/^[^\0\n]*$/))),
  v.check(properties => Object.keys(properties).length > 0, 'names no property'),
)

const onDataset = {
  params: v.object({ dataset: DatasetName }),
  result: nothing,
  limitMs: minute,
  serial: 'none',
} as const
const onSnapshot = { ...onDataset, params: v.object({ dataset: SnapshotName }) } as const

export const ZFS_TASKS = {
  zfs_create_dataset: onDataset,
  zfs_snapshot_dataset: onSnapshot,
  zfs_rollback_dataset: onSnapshot,
  zfs_set_properties: { ...onDataset, params: v.object({ dataset: DatasetName, properties: PropertyValues }) },
  zfs_destroy_dataset: { ...onDataset, params: v.object({ dataset: DatasetOrSnapshot }), limitMs: 5 * minute },
} as const satisfies Record<string, TaskKind>

export const ZFS_READS = {
  zfs_list_datasets: { params: v.object({}), limitMs: 20_000 },
  zfs_list_snapshots: { params: v.object({ dataset: DatasetName }), limitMs: 20_000 },
  /** Of one dataset or of all; `properties` empty: every property. */
  zfs_get_properties: {
    params: v.object({ dataset: v.optional(DatasetOrSnapshot), properties: v.array(PropertyName) }),
    limitMs: 20_000,
  },
  zfs_list_pools: { params: v.object({}), limitMs: 20_000 },
} as const satisfies Record<string, { params: v.GenericSchema; limitMs: number }>
