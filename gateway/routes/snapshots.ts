/**
 * Snapshots of a VM (cnapi-behaviour §9.3): three verbs that become tasks, and what the node has now. CNAPI does not check the name;
 * here it becomes part of what libvirt keeps in files, so it has a rule, and one is made where the caller gives none.
 */
import * as v from 'valibot'
import { type Rejection, rejection } from '../../actors/contract/errors.ts'
import { SnapshotName } from '../../actors/contract/ids.ts'
import { VmSnapshot } from '../../actors/contract/snapshot.ts'
import { type AnyRow, row } from '../row.ts'
import { text } from '../rules.ts'
import { started } from '../tasks.ts'
import { read } from './vms.ts'

const vm = '/servers/:server_uuid/vms/:uuid'
const jobid = v.optional(text)
const task = {
  status: 200,
  description: 'The task; an illegal verb ends as a failed task',
  body: v.object({ id: v.string() }),
} as const

export const snapshotRows: AnyRow[] = [
  row({
    method: 'GET',
    path: `${vm}/snapshots`,
    name: 'VmSnapshotList',
    summary: 'Snapshots of a VM as its node has them now, oldest first.',
    gate: 'GSV',
    strict: false,
    params: { jobid },
    success: { status: 200, description: 'Snapshots', body: v.array(VmSnapshot) },
    errors: ['AgentNotConnected', 'HypervisorUnavailable', 'HypervisorError'],
    handle: async ({ server, vm, reqId }, backend) => {
      const outcome = await read(backend, server, 'machine_snapshots', { uuid: vm.uuid }, reqId)
      return 'error' in outcome ? { error: asNotFound(outcome.error, vm.uuid) } : { status: 200, body: outcome.value }
    },
  }),
  row({
    method: 'PUT',
    path: `${vm}/snapshots`,
    name: 'VmSnapshotCreate',
    summary:
      'Takes a snapshot of a VM’s disks, and of its memory if it runs. Without a name it is called by the time of the request.',
    gate: 'GSV',
    strict: false,
    params: { jobid, snapshot_name: v.optional(SnapshotName) },
    success: task,
    errors: ['TooManyWaiting'],
    handle: async ({ vm, params, ids, key, reqId }, backend) => {
      const { snapshot_name } = params
      const order = { task_id: ids.task(), params: snapshot_name === undefined ? {} : { snapshot_name } }
      return started(await backend.call('vm', vm.uuid, 'create_snapshot', order, { key, reqId }))
    },
  }),
  verb('PUT', `${vm}/snapshots/:snapshot_name/rollback`, 'rollback_snapshot', {
    name: 'VmSnapshotRollback',
    summary: 'Brings a VM back to a snapshot: running with its memory, or stopped, as it was then.',
  }),
  verb('DELETE', `${vm}/snapshots/:snapshot_name`, 'delete_snapshot', {
    name: 'VmSnapshotDestroy',
    summary: 'Deletes a snapshot of a VM. One that is not there is success.',
  }),
]

function verb(
  method: 'PUT' | 'DELETE',
  path: string,
  verb: 'rollback_snapshot' | 'delete_snapshot',
  is: { name: string; summary: string },
): AnyRow {
  return row({
    method,
    path,
    ...is,
    gate: 'GSV',
    strict: false,
    params: { jobid, snapshot_name: SnapshotName },
    success: task,
    errors: ['TooManyWaiting'],
    handle: async ({ vm, params, ids, key, reqId }, backend) => {
      const order = { task_id: ids.task(), params: { snapshot_name: params.snapshot_name } }
      return started(await backend.call('vm', vm.uuid, verb, order, { key, reqId }))
    },
  })
}

/** CNAPI's word for a VM that its node does not have. */
function asNotFound(error: Rejection, uuid: string): Rejection {
  return error.code === 'VmNotFound' ? rejection('ResourceNotFound', `VM ${uuid} not found`) : error
}
