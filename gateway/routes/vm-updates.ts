/** Changing VMs (cnapi-behaviour §9.3): update, another image, NICs of many VMs at once; and what runs in a VM. */
import * as v from 'valibot'
import { rejection } from '../../actors/contract/errors.ts'
import { ImageName } from '../../actors/contract/ids.ts'
import { jsonBytes } from '../body.ts'
import { type AnyRow, row } from '../row.ts'
import { text, trimmed } from '../rules.ts'
import { started } from '../tasks.ts'
import {
  ignoredIn,
  nicMovesOf,
  nicsUpdatePayload,
  UPDATE_MAX_BYTES,
  updateTooLarge,
  vmChangesOf,
  vmUpdatePayload,
} from '../vm-update.ts'
import { read } from './vms.ts'

const taskId = v.object({ id: v.string() })
const theTask = (more: string) => ({ status: 200, description: `The task; ${more}`, body: taskId })

export const vmUpdateRows: AnyRow[] = [
  row({
    method: 'POST',
    path: '/servers/:server_uuid/vms/nics/update',
    name: 'VmNicsUpdate',
    summary: 'Moves every NIC of the server’s VMs that is on one network to others.',
    gate: 'GSR',
    strict: false,
    params: nicsUpdatePayload,
    success: theTask('its result lists what was done for each VM'),
    errors: ['InvalidVersion', 'TooManyWaiting'],
    handle: async ({ server, params, ids, key, reqId }, backend) => {
      await backend.inventory.barrier()
      if (!backend.inventory.sysinfo(server.uuid)?.['SDC Version']) return { error: rejection('InvalidVersion') }
      const moves = nicMovesOf(params)
      if ('errors' in moves) return { error: rejection('InvalidParameters', undefined, moves.errors) }
      const order = { task_id: ids.task(), task: 'machine_update_nics' as const, params: moves, req_id: reqId }
      return started(await backend.call('cn', server.uuid, 'task_add', order, { ...(key ? { key } : {}), reqId }))
    },
  }),
  row({
    method: 'POST',
    path: '/servers/:server_uuid/vms/:uuid/update',
    name: 'VmUpdate',
    summary: 'Changes memory, vcpus, disks, NICs, metadata... of a VM: all of it or nothing.',
    gate: 'GSV',
    strict: false,
    params: vmUpdatePayload,
    success: theTask(
      'its result says of each field whether it is live or comes with the next boot, and what was ignored',
    ),
    errors: ['TooManyWaiting', 'PayloadTooLarge'],
    handle: async ({ vm, params, all, ids, key, reqId }, backend) => {
      const mapped = vmChangesOf(params, ids)
      if ('errors' in mapped) return { error: rejection('InvalidParameters', undefined, mapped.errors) }
      if (jsonBytes(mapped.changes) > UPDATE_MAX_BYTES) return { error: updateTooLarge }
      const order = { task_id: ids.task(), params: { changes: mapped.changes, ignored: ignoredIn(all) } }
      return started(await backend.call('vm', vm.uuid, 'update', order, { key, reqId }))
    },
  }),
  row({
    method: 'POST',
    path: '/servers/:server_uuid/vms/:uuid/reprovision',
    name: 'VmReprovision',
    summary: 'Gives a VM’s first disk another image; identity, NICs, other disks and metadata stay.',
    gate: 'GSV',
    strict: false,
    params: { jobid: v.optional(text), image_uuid: v.pipe(trimmed, ImageName) },
    success: theTask('a running VM is stopped for it and started again'),
    errors: ['TooManyWaiting'],
    handle: async ({ vm, params: { image_uuid }, ids, key, reqId }, backend) => {
      const order = { task_id: ids.task(), params: { image_uuid } }
      return started(await backend.call('vm', vm.uuid, 'reprovision', order, { key, reqId }))
    },
  }),
  row({
    method: 'GET',
    path: '/servers/:server_uuid/vms/:uuid/proc',
    name: 'VmProc',
    summary: 'What runs in a VM, by process id: told by its guest agent, else the threads of its QEMU.',
    gate: 'GSV',
    strict: false,
    params: { jobid: v.optional(text) },
    success: { status: 200, description: 'Processes by id', body: v.record(v.string(), v.unknown()) },
    errors: ['VmNotRunning', 'GuestAgentNotConnected', 'AgentNotConnected', 'HypervisorUnavailable', 'HypervisorError'],
    handle: async ({ server, vm, reqId }, backend) => {
      const outcome = await read(backend, server, 'machine_proc', { uuid: vm.uuid }, reqId)
      if (!('error' in outcome)) return { status: 200, body: outcome.value }
      const isGone = outcome.error.code === 'VmNotFound'
      return { error: isGone ? rejection('ResourceNotFound', `VM ${vm.uuid} not found`) : outcome.error }
    },
  }),
]
