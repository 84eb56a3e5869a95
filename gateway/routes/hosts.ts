/**
 * Hosts: the compute agent's API (compute-agent-api.md) in its documented form, `/host/:hostname`, and the newer one, `/hosts/:host`.
 * A host is a VM known by its hostname; every change goes through the hostname's actor, so that two creates at once bind once.
 */
import * as v from 'valibot'
import { rejection } from '../../actors/contract/errors.ts'
import { Hostname } from '../../actors/contract/ids.ts'
import type { Backend, Vm } from '../backend.ts'
import { hostKey } from '../ids.ts'
import { propose, questionOf } from '../placement.ts'
import { type Answer, type AnyRow, type Entries, type Incoming, row } from '../row.ts'
import { uuid } from '../rules.ts'
import { shownHost } from '../shown-vm.ts'
import { whenEnded } from '../tasks.ts'
import { checkHostPayload, hostPayload, hostSpecOf } from '../vm-spec.ts'

const server_uuid = v.optional(uuid)
const Shown = v.object({ id: v.string(), name: v.string(), state: v.string() })
const createErrors = [
  'HostExists',
  'VmExists',
  'ServerNotRunning',
  'NoAllocatableServersError',
  'NetworkNotFound',
  'InsufficientStorage',
  'InsufficientMemory',
  'InstallSourceInvalid',
  'AgentNotConnected',
  'TaskFailed',
  'RequestTimedOut',
] as const

export const hostRows: AnyRow[] = [
  row({
    method: 'GET',
    path: '/host/:hostname',
    name: 'HostProbe',
    summary: 'Is there a domain of this hostname, made by Muster or discovered on a node.',
    gate: 'G0',
    strict: false,
    params: { hostname: Hostname },
    success: { status: 204, description: 'There is' },
    errors: ['ResourceNotFound'],
    handle: async ({ params }, backend) => ((await find(params.hostname, backend)) ? { status: 204 } : noSuchHost),
  }),
  create('/host/:hostname', 'hostname', 'HostCreate'),
  row({
    method: 'GET',
    path: '/hosts',
    name: 'HostList',
    summary: 'All domains of the fleet, or of ?server_uuid=, stopped ones too.',
    gate: 'G0',
    strict: false,
    params: { server_uuid },
    success: { status: 200, description: 'Domains by name, as virsh lists them', body: v.array(Shown) },
    errors: [],
    handle: async ({ params }, backend) => {
      await backend.vms.barrier()
      const vms = params.server_uuid ? backend.vms.of(params.server_uuid) : [...backend.vms.all()]
      const present = vms.filter(vm => vm.present).sort((a, b) => (a.name < b.name ? -1 : 1))
      return { status: 200, body: present.map(shownHost) }
    },
  }),
  row({
    method: 'GET',
    path: '/hosts/:host',
    name: 'HostGet',
    summary: 'A domain as virsh lists it.',
    gate: 'G0',
    strict: false,
    params: { host: Hostname },
    success: { status: 200, description: 'The domain', body: Shown },
    errors: ['ResourceNotFound'],
    handle: async ({ params }, backend) => {
      const vm = await find(params.host, backend)
      return vm ? { status: 200, body: shownHost(vm) } : noSuchHost
    },
  }),
  create('/hosts/:host', 'host', 'HostsCreate'),
  row({
    method: 'DELETE',
    path: '/hosts/:host',
    name: 'HostDelete',
    summary: 'Destroys the host\u2019s domain and its disks; answered when that is done.',
    gate: 'G0',
    strict: false,
    params: { host: Hostname },
    success: { status: 204, description: 'Gone' },
    errors: ['ResourceNotFound', 'AgentNotConnected', 'TaskFailed', 'RequestTimedOut'],
    handle: (incoming, backend) => operate('destroy', incoming.params.host, {}, incoming, backend),
  }),
  row({
    method: 'PUT',
    path: '/hosts/:host/start',
    name: 'HostStart',
    summary: 'Boots the host; one that runs already is left alone. Answered when that is done.',
    gate: 'G0',
    strict: false,
    params: { host: Hostname },
    success: { status: 204, description: 'Runs' },
    errors: ['ResourceNotFound', 'AgentNotConnected', 'TaskFailed', 'RequestTimedOut'],
    handle: (incoming, backend) => operate('start', incoming.params.host, { idempotent: true }, incoming, backend),
  }),
]

const noSuchHost: Answer = { error: rejection('ResourceNotFound', 'no such host') }

/** A host that is there, by everything acknowledged so far. */
async function find(hostname: string, backend: Backend): Promise<Vm | undefined> {
  await backend.vms.barrier()
  return backend.vms.named(hostname).find(vm => vm.present)
}

/** POST of a host in either form; the payload is the same but for the path's own name. */
function create(path: string, name: 'hostname' | 'host', operation: string): AnyRow {
  return row({
    method: 'POST',
    path,
    name: operation,
    summary: 'Makes the host\u2019s domain, and starts its network install if asked to; answered when it runs.',
    gate: 'G0',
    strict: false,
    params: { [name]: Hostname, ...hostPayload, server_uuid: v.optional(v.unknown()) } as Entries,
    check: params => checkHostPayload(params as Parameters<typeof checkHostPayload>[0]),
    success: { status: 201, description: 'Domain and install have started', body: v.looseObject({ id: v.string() }) },
    errors: createErrors,
    handle: async ({ params, ids, key, reqId, signal }, backend) => {
      const { [name]: hostname, server_uuid: named, ...payload } = params as Record<string, unknown>
      const mapped = hostSpecOf(String(hostname), payload as Parameters<typeof hostSpecOf>[1], ids)
      if ('errors' in mapped) return { error: rejection('InvalidParameters', undefined, mapped.errors) }
      const { spec } = mapped
      // A domain that nobody ordered has no actor of its hostname to refuse a second one.
      const other = backend.vms.named(spec.name).find(vm => vm.present && vm.uuid !== spec.uuid)
      if (other && !other.host_key) return { error: rejection('HostExists') }
      const proposal = await propose(spec.name, named, questionOf(spec), backend)
      if ('error' in proposal) return proposal
      const order = { hostname: spec.name, ...proposal, task_id: ids.task(), spec }
      const outcome = await backend.call('host', hostKey(spec.name), 'create', order, { key, reqId })
      if ('error' in outcome) return outcome
      const location = `/hosts/${spec.name}`
      const done = { status: 201, body: outcome.value, headers: { location } }
      return whenEnded(backend, outcome.value.id, signal(), done, hostKey(spec.name))
    },
  })
}

/** Starts or destroys a host. A discovered domain has no actor of its hostname: its VM's actor is asked at once. */
async function operate(
  verb: 'start' | 'destroy',
  hostname: string,
  params: Record<string, unknown>,
  { ids, key, reqId, signal }: Incoming,
  backend: Backend,
): Promise<Answer> {
  const order = { task_id: ids.task(), params }
  let outcome = await backend.call('host', hostKey(hostname), verb, order, { key, reqId })
  if ('error' in outcome && outcome.error.code === 'VmNotFound') {
    // The repeat of a keyed request may find the domain destroyed by the first.
    const vm = (await find(hostname, backend)) ?? (key && backend.vms.named(hostname)[0])
    if (!vm) return noSuchHost
    outcome = await backend.call('vm', vm.uuid, verb, order, { key, reqId })
  }
  if ('error' in outcome) return outcome
  return whenEnded(backend, outcome.value.id, signal(), { status: 204 }, hostKey(hostname))
}
