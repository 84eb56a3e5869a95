/** VMs of a server (cnapi-behaviour §9): listings from the actors' records, live reads from the node, verbs that become tasks. */
import * as v from 'valibot'
import { type Rejection, rejection } from '../../actors/contract/errors.ts'
import { READS, type ReadName } from '../../actors/contract/task.ts'
import type { Backend, Outcome, Server, Vm } from '../backend.ts'
import { jsonBytes } from '../body.ts'
import { type Answer, type AnyRow, row } from '../row.ts'
import { booleanWord, listMatching, notObject, numberFromZero, object, text } from '../rules.ts'
import { shownVm } from '../shown-vm.ts'
import { started } from '../tasks.ts'
import { SPEC_MAX_BYTES, specTooLarge, vmPayload, vmSpecOf } from '../vm-spec.ts'
import { UPDATE_MAX_BYTES, updateTooLarge } from '../vm-update.ts'

const taskId = v.object({ id: v.string() })
const jobid = v.optional(text)
const idempotent = v.optional(booleanWord)
const force = v.optional(booleanWord)
/** Seconds. */
const timeout = v.optional(v.pipe(numberFromZero, v.maxValue(3600, 'must be at most 3600')))
const update = v.optional(object)
const readErrors = ['AgentNotConnected', 'HypervisorUnavailable', 'HypervisorError'] as const

export const vmRows: AnyRow[] = [
  row({
    method: 'GET',
    path: '/servers/:server_uuid/vms',
    name: 'VmList',
    summary: 'VMs of a server, without destroyed ones. The server need not run.',
    gate: 'GS',
    strict: false,
    params: {},
    success: { status: 200, description: 'VMs', body: v.array(v.looseObject({ uuid: v.string(), state: v.string() })) },
    errors: [],
    handle: async ({ server }, backend) => {
      await backend.vms.barrier()
      const listed = backend.vms.of(server.uuid).filter(vm => vm.state !== 'destroyed')
      return { status: 200, body: listed.sort((a, b) => (a.uuid < b.uuid ? -1 : 1)).map(shownVm) }
    },
  }),
  row({
    method: 'POST',
    path: '/servers/:server_uuid/vms',
    name: 'VmCreate',
    summary:
      'Makes a VM on a server from CNAPI\u2019s payload. Members that mean nothing here are accepted and ignored.',
    gate: 'GSR',
    strict: false,
    params: vmPayload,
    success: { status: 200, description: 'The task', body: v.object({ id: v.string(), vm_uuid: v.string() }) },
    errors: ['VmExists', 'PayloadTooLarge'],
    handle: async ({ server, params, ids, key, reqId }, backend) => {
      const mapped = vmSpecOf(params, ids)
      if ('errors' in mapped) return { error: rejection('InvalidParameters', undefined, mapped.errors) }
      if (jsonBytes(mapped.spec) > SPEC_MAX_BYTES) return { error: specTooLarge }
      const order = { server_uuid: server.uuid, task_id: ids.task(), ...mapped }
      return started(await backend.call('vm', mapped.spec.uuid, 'create', order, { key, reqId }))
    },
  }),
  row({
    method: 'GET',
    path: '/servers/:server_uuid/vms/:uuid',
    name: 'VmLoad',
    summary: 'A VM as its node sees it now.',
    gate: 'GSV',
    strict: false,
    params: { jobid, include_dni: v.optional(booleanWord) },
    success: { status: 200, description: 'The VM', body: v.looseObject({ uuid: v.string(), state: v.string() }) },
    errors: readErrors,
    handle: async ({ server, vm, reqId }, backend) => {
      const outcome = await read(backend, server, 'machine_load', { uuid: vm.uuid }, reqId)
      if (!('error' in outcome)) return { status: 200, body: outcome.value }
      // The node does not have it yet: what was ordered is all there is to show.
      if (outcome.error.code === 'VmNotFound' && vm.state === 'provisioning') return { status: 200, body: shownVm(vm) }
      return asNotFound(outcome.error, vm)
    },
  }),
  row({
    method: 'GET',
    path: '/servers/:server_uuid/vms/:uuid/info',
    name: 'VmInfo',
    summary:
      'Facts of a running VM, by type (`info`: a comma list; default all), such as its VNC address: a JSON text inside a JSON string.',
    gate: 'GSV',
    strict: false,
    params: { jobid, info: v.optional(listMatching('info', /^[a-zA-Z_-]+(,[a-zA-Z_-]+)*$/)) },
    success: { status: 200, description: 'Facts by type, as a JSON text', body: v.string() },
    errors: ['VmNotRunning', ...readErrors],
    handle: async ({ server, vm, params, reqId }, backend) => {
      const types = params.info ? { types: params.info } : {}
      const outcome = await read(backend, server, 'machine_info', { uuid: vm.uuid, ...types }, reqId)
      return 'error' in outcome ? asNotFound(outcome.error, vm) : { status: 200, body: infoText(outcome.value) }
    },
  }),
  row({
    method: 'GET',
    path: '/servers/:server_uuid/vms/:uuid/vnc',
    name: 'VmVnc',
    summary: 'Where the screen of a running VM can be reached.',
    gate: 'GSV',
    strict: false,
    params: { jobid },
    success: { status: 200, description: 'Address', body: v.object({ host: v.string(), port: v.number() }) },
    errors: ['VmNotRunning', ...readErrors],
    handle: async ({ server, vm, reqId }, backend) => {
      const outcome = await read(backend, server, 'machine_info', { uuid: vm.uuid, types: ['vnc'] }, reqId)
      if ('error' in outcome) return asNotFound(outcome.error, vm)
      const screen = v.safeParse(Screen, infoOf(outcome.value))
      if (!screen.success) return { error: rejection('VmNotRunning', 'The VM has no screen now') }
      const { host, port } = screen.output.vnc
      return { status: 200, body: { host, port } }
    },
  }),
  row({
    method: 'GET',
    path: '/servers/:server_uuid/vms/:uuid/actions',
    name: 'VmActions',
    summary: 'Which verbs are legal now and, for the others, the guard that says no.',
    gate: 'GV',
    strict: false,
    params: {},
    success: {
      status: 200,
      description: 'Verbs',
      body: v.looseObject({ state: v.string(), actions: v.array(v.looseObject({ verb: v.string() })) }),
    },
    errors: [],
    handle: async ({ vm, reqId }, backend) => {
      const outcome = await backend.call('vm', vm.uuid, 'actions', {}, { reqId })
      return 'error' in outcome ? outcome : { status: 200, body: outcome.value }
    },
  }),
  verb('POST', 'start', { name: 'VmStart', summary: 'Boots a stopped VM.', params: { jobid, idempotent, update } }),
  verb('POST', 'stop', {
    name: 'VmStop',
    summary: 'Asks the guest to shut down; after `timeout` seconds, or at once with `force`, it is powered off.',
    params: { jobid, idempotent, force, timeout },
  }),
  verb('POST', 'kill', {
    name: 'VmKill',
    summary: 'Sends a signal (a name or a number) to a VM; without one it is powered off.',
    params: {
      jobid,
      idempotent,
      signal: v.optional(v.union([v.string(), v.number()], 'value was not a number or string')),
    },
  }),
  verb('POST', 'reboot', {
    name: 'VmReboot',
    summary: 'Stops and boots a running VM.',
    params: { jobid, idempotent, force, timeout, update },
  }),
  verb('DELETE', 'destroy', {
    name: 'VmDestroy',
    summary: 'Destroys a VM and its disks.',
    params: { jobid, include_dni: v.optional(booleanWord) },
  }),
]

const Screen = v.looseObject({ vnc: v.looseObject({ host: v.string(), port: v.number() }) })

/** CNAPI's clients get the node's text as it is: JSON inside a JSON string (cnapi-behaviour §1.4). */
function infoText(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value)
}

/** The text's content, for those who need one fact of it. */
function infoOf(value: unknown): unknown {
  if (typeof value !== 'string') return value
  try {
    return JSON.parse(value)
  } catch {
    return {}
  }
}

type Verb = 'start' | 'stop' | 'kill' | 'reboot' | 'destroy'

/** The row of a verb: `POST …/vms/:uuid/<verb>`, or DELETE of the VM itself. Its parameters go with the task. */
function verb(
  method: 'POST' | 'DELETE',
  name: Verb,
  is: { name: string; summary: string; params: Record<string, v.GenericSchema> },
): AnyRow {
  return row({
    method,
    path: `/servers/:server_uuid/vms/:uuid${method === 'DELETE' ? '' : `/${name}`}`,
    ...is,
    gate: 'GSV',
    strict: false,
    success: { status: 200, description: 'The task; an illegal verb ends as a failed task', body: taskId },
    errors: ['TooManyWaiting', ...('update' in is.params ? (['InvalidArgument', 'PayloadTooLarge'] as const) : [])],
    handle: async ({ vm, params: given, ids, key, reqId }, backend) => {
      const { jobid: _, include_dni: __, ...params } = given as Record<string, unknown>
      const refusal = params['update'] === undefined ? undefined : refuseUpdate(name, params['update'] as object)
      if (refusal) return refusal
      return started(await backend.call('vm', vm.uuid, name, { task_id: ids.task(), params }, { key, reqId }))
    },
  })
}

/** CNAPI lets a start or reboot carry new internal metadata and nothing else, and clients depend on the 500 (cnapi-behaviour §9.3). */
function refuseUpdate(name: Verb, update: object): Answer | undefined {
  const given = Object.keys(update)
  const metadata = 'set_internal_metadata' in update ? update.set_internal_metadata : undefined
  if (given.length !== 1 || !given.includes('set_internal_metadata')) {
    const text = `Vm.${name} update param only allows set_internal_metadata, received: [${given.join(', ')}]`
    return { error: rejection('InvalidArgument', text), status: 500 }
  }
  if (typeof metadata === 'object' && metadata !== null && !Array.isArray(metadata))
    return jsonBytes(update) > UPDATE_MAX_BYTES ? { error: updateTooLarge } : undefined
  const errors = [{ field: 'update.set_internal_metadata', code: 'Invalid', message: notObject({ input: metadata }) }]
  return { error: rejection('InvalidParameters', undefined, errors) }
}

/** A live read of a node. */
export function read(
  backend: Backend,
  server: Pick<Server, 'uuid'>,
  name: ReadName,
  params: Record<string, unknown>,
  reqId: string,
): Promise<Outcome<unknown>> {
  const deadlineMs = READS[name].limitMs + READ_GRACE_MS
  return backend.call('cn', server.uuid, 'read', { read: name, params }, { reqId, deadlineMs })
}

/** More than the node's own limit of a read, so that what it says of being late arrives, ms. */
const READ_GRACE_MS = 2_000

/** CNAPI's word for a VM that its node does not have. */
function asNotFound(error: Rejection, vm: Vm): Answer {
  return { error: error.code === 'VmNotFound' ? rejection('ResourceNotFound', `VM ${vm.uuid} not found`) : error }
}
