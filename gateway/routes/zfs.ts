/**
 * ZFS of a server (cnapi-behaviour §9.5): deprecated, kept for those who use it. It works on servers that do not run, as long as their agent
 * answers; a server without ZFS says so.
 */
import * as v from 'valibot'
import { type FieldError, rejection } from '../../actors/contract/errors.ts'
import {
  DatasetName,
  DatasetOrSnapshot,
  PropertyName,
  PropertyValues,
  SnapshotPart,
} from '../../actors/contract/tasks/zfs.ts'
import type { Backend, Server } from '../backend.ts'
import { type Answer, type AnyRow, row } from '../row.ts'
import { runTask } from '../tasks.ts'
import { read } from './vms.ts'

const readErrors = ['AgentNotConnected', 'ZfsNotAvailable', 'ZfsFailed'] as const
const changeErrors = [...readErrors, 'RequestTimedOut'] as const
const Rows = v.array(v.record(v.string(), v.string()))
const Properties = v.record(v.string(), v.record(v.string(), v.string()))
const capMs = 60_000
const done = { capMs, done: (): Answer => ({ status: 204 }) }
const nothing = { status: 204, description: 'Done' }
const deprecated = 'Deprecated.'

export const zfsRows: AnyRow[] = [
  row({
    method: 'GET',
    path: '/servers/:server_uuid/datasets',
    name: 'DatasetList',
    summary: `Filesystems and volumes of a server: sizes in bytes, as text. ${deprecated}`,
    gate: 'GS',
    strict: false,
    params: {},
    success: { status: 200, description: 'Datasets', body: Rows },
    errors: readErrors,
    handle: async ({ server, reqId }, backend) => shown(await read(backend, server, 'zfs_list_datasets', {}, reqId)),
  }),
  row({
    method: 'POST',
    path: '/servers/:server_uuid/datasets',
    name: 'DatasetCreate',
    summary: `Makes a filesystem; its parent must be there. ${deprecated}`,
    gate: 'GS',
    strict: false,
    params: { dataset: DatasetName },
    success: nothing,
    errors: [...changeErrors, 'DatasetExists', 'DatasetNotFound'],
    handle: (incoming, backend) => {
      const { dataset } = incoming.params
      return runTask(backend, incoming, { task: 'zfs_create_dataset', params: { dataset } }, done)
    },
  }),
  row({
    method: 'POST',
    path: '/servers/:server_uuid/datasets/:dataset/snapshot',
    name: 'SnapshotCreate',
    summary: `Takes a snapshot of a dataset. ${deprecated}`,
    gate: 'GS',
    strict: false,
    params: { dataset: DatasetName, name: SnapshotPart },
    success: nothing,
    errors: [...changeErrors, 'DatasetNotFound', 'DatasetExists'],
    handle: (incoming, backend) => {
      const { dataset, name } = incoming.params
      return runTask(
        backend,
        incoming,
        { task: 'zfs_snapshot_dataset', params: { dataset: `${dataset}@${name}` } },
        done,
      )
    },
  }),
  row({
    method: 'POST',
    path: '/servers/:server_uuid/datasets/:dataset/rollback',
    name: 'SnapshotRollback',
    summary: `Brings a dataset back to its latest snapshot. ${deprecated}`,
    gate: 'GS',
    strict: false,
    params: { dataset: DatasetName, name: SnapshotPart },
    success: nothing,
    errors: [...changeErrors, 'DatasetNotFound'],
    handle: (incoming, backend) => {
      const { dataset, name } = incoming.params
      return runTask(
        backend,
        incoming,
        { task: 'zfs_rollback_dataset', params: { dataset: `${dataset}@${name}` } },
        done,
      )
    },
  }),
  row({
    method: 'GET',
    path: '/servers/:server_uuid/datasets/:dataset/snapshots',
    name: 'SnapshotList',
    summary: `Snapshots of a dataset. ${deprecated}`,
    gate: 'GS',
    strict: false,
    params: { dataset: DatasetName },
    success: { status: 200, description: 'Snapshots', body: Rows },
    errors: [...readErrors, 'DatasetNotFound'],
    handle: async ({ server, params: { dataset }, reqId }, backend) =>
      shown(await read(backend, server, 'zfs_list_snapshots', { dataset }, reqId)),
  }),
  row({
    method: 'GET',
    path: '/servers/:server_uuid/dataset-properties',
    name: 'DatasetPropertiesGetAll',
    summary: `Properties of all datasets: those that parameters beginning with \`prop\` name, else every one. ${deprecated}`,
    gate: 'GS',
    strict: false,
    params: {},
    success: { status: 200, description: 'By dataset', body: Properties },
    errors: [...readErrors, 'InvalidParameters'],
    handle: ({ server, all, reqId }, backend) => properties(backend, server, undefined, all, reqId),
  }),
  row({
    method: 'GET',
    path: '/servers/:server_uuid/datasets/:dataset/properties',
    // As CNAPI spells it.
    name: 'DatasePropertiesGet',
    summary: `Properties of a dataset, likewise. ${deprecated}`,
    gate: 'GS',
    strict: false,
    params: { dataset: DatasetOrSnapshot },
    success: { status: 200, description: 'By dataset', body: Properties },
    errors: [...readErrors, 'InvalidParameters', 'DatasetNotFound'],
    handle: ({ server, params, all, reqId }, backend) => properties(backend, server, params.dataset, all, reqId),
  }),
  row({
    method: 'POST',
    path: '/servers/:server_uuid/datasets/:dataset/properties',
    name: 'DatasetPropertiesSet',
    summary: `Sets properties of a dataset, all or none. ${deprecated}`,
    gate: 'GS',
    strict: false,
    params: { dataset: DatasetName, properties: PropertyValues },
    success: nothing,
    errors: [...changeErrors, 'DatasetNotFound'],
    handle: (incoming, backend) => {
      const { dataset, properties } = incoming.params
      return runTask(backend, incoming, { task: 'zfs_set_properties', params: { dataset, properties } }, done)
    },
  }),
  row({
    method: 'DELETE',
    path: '/servers/:server_uuid/datasets/:dataset',
    name: 'DatasetDestroy',
    summary: `Destroys a dataset, or a snapshot as \`dataset@name\`. What has children is refused. ${deprecated}`,
    gate: 'GS',
    strict: false,
    params: { dataset: DatasetOrSnapshot },
    success: nothing,
    errors: [...changeErrors, 'DatasetNotFound', 'DatasetBusy'],
    handle: (incoming, backend) => {
      const { dataset } = incoming.params
      return runTask(backend, incoming, { task: 'zfs_destroy_dataset', params: { dataset } }, done)
    },
  }),
  row({
    method: 'GET',
    path: '/servers/:server_uuid/zpools',
    name: 'ZpoolList',
    summary: `ZFS pools of a server. ${deprecated}`,
    gate: 'GS',
    strict: false,
    params: {},
    success: { status: 200, description: 'Pools', body: Rows },
    errors: readErrors,
    handle: async ({ server, reqId }, backend) => shown(await read(backend, server, 'zfs_list_pools', {}, reqId)),
  }),
]

type Outcome = Awaited<ReturnType<typeof read>>

function shown(outcome: Outcome): Answer {
  return 'error' in outcome ? outcome : { status: 200, body: outcome.value }
}

/** Most properties that one request may name. */
const PROPERTIES_MAX = 64

/** The values of all parameters whose name begins with `prop` are the names of properties. */
async function properties(
  backend: Backend,
  server: Server,
  dataset: string | undefined,
  all: Record<string, unknown>,
  reqId: string,
): Promise<Answer> {
  const asked = Object.entries(all).filter(([name]) => name.startsWith('prop'))
  const errors = asked.flatMap(([field, value]): FieldError[] =>
    v.is(PropertyName, value) ? [] : [{ field, code: 'Invalid', message: 'is not the name of a property' }],
  )
  if (asked.length > PROPERTIES_MAX)
    errors.push({ field: 'prop', code: 'Invalid', message: `names more than ${PROPERTIES_MAX} properties` })
  if (errors.length > 0) return { error: rejection('InvalidParameters', undefined, errors) }
  const names = asked.map(([, value]) => String(value))
  const params = { properties: names, ...(dataset === undefined ? {} : { dataset }) }
  return shown(await read(backend, server, 'zfs_get_properties', params, reqId))
}
