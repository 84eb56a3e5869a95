/**
 * Networks: the compute agent's API in both forms. Below a host they live on the host's server; `/networks…` means the only
 * server there is, or ?server_uuid=. Lists and probes are live reads, so they show what libvirt has.
 */
import * as v from 'valibot'
import { rejection } from '../../actors/contract/errors.ts'
import { BridgeName, Hostname, NetworkName } from '../../actors/contract/ids.ts'
import { NetworkSummary } from '../../actors/contract/server.ts'
import type { Backend, Outcome } from '../backend.ts'
import { hostKey } from '../ids.ts'
import { anyServer, bindingOf, onlyRunningServer, onlyServer, propose } from '../placement.ts'
import { type Answer, type AnyRow, row } from '../row.ts'
import { whenEnded } from '../tasks.ts'

const server_uuid = v.optional(v.unknown())
const Shown = v.pick(NetworkSummary, ['name', 'state', 'autostart', 'persistent'])
const readErrors = ['InvalidArgument', 'ServerAmbiguous', 'ResourceNotFound', 'AgentNotConnected'] as const
const createErrors = ['NetworkExists', 'BridgeNotFound', 'AgentNotConnected', 'TaskFailed', 'RequestTimedOut'] as const

const notVlan = 'must be a VLAN tag, 1 to 4094'
const payload = {
  bridge: BridgeName,
  vlan: v.pipe(
    v.union([v.number(), v.pipe(v.string(), v.regex(/^\d{1,4}$/, notVlan))], notVlan),
    v.transform(Number),
    v.integer(notVlan),
    v.minValue(1, notVlan),
    v.maxValue(4094, notVlan),
  ),
}

export const networkRows: AnyRow[] = [
  row({
    method: 'GET',
    path: '/host/:hostname/network/:networkname',
    name: 'HostNetworkProbe',
    summary: 'Is there a network of this name on the host\u2019s server.',
    gate: 'G0',
    strict: false,
    params: { hostname: Hostname, networkname: NetworkName, server_uuid },
    success: { status: 204, description: 'There is' },
    errors: ['InvalidArgument', 'ResourceNotFound', 'NetworkNotFound', 'AgentNotConnected'],
    handle: async ({ params, reqId }, backend) => {
      const home = await homeOf(params.hostname, params.server_uuid, backend)
      if (home && typeof home === 'object') return home
      if (home === undefined) return noSuchNetwork
      const outcome = await load(backend, home, params.networkname, reqId)
      return 'error' in outcome ? outcome : { status: 204 }
    },
  }),
  row({
    method: 'POST',
    path: '/host/:hostname/network/:networkname',
    name: 'HostNetworkCreate',
    summary: 'Makes a network on the host\u2019s server, binding the host to one if it is new.',
    gate: 'G0',
    strict: false,
    params: { hostname: Hostname, networkname: NetworkName, ...payload, server_uuid },
    success: { status: 201, description: 'Made', body: v.looseObject({ id: v.string() }) },
    errors: [...createErrors, 'InvalidArgument', 'ResourceNotFound', 'ServerNotRunning', 'NoAllocatableServersError'],
    handle: async ({ params, ids, key, reqId, signal }, backend) => {
      const { networkname: name, bridge, vlan } = params
      const hostname = params.hostname.toLowerCase()
      const proposal = await propose(hostname, params.server_uuid, anyServer, backend)
      if ('error' in proposal) return proposal
      const order = { hostname, ...proposal, task_id: ids.task(), name, bridge, vlan }
      const outcome = await backend.call('host', hostKey(hostname), 'network_create', order, { key, reqId })
      if ('error' in outcome) return outcome
      const location = `/host/${hostname}/network/${name}`
      return whenEnded(backend, outcome.value.id, signal(), { status: 201, body: outcome.value, headers: { location } })
    },
  }),
  row({
    method: 'GET',
    path: '/networks',
    name: 'NetworkList',
    summary: 'Networks of a server, as virsh lists them.',
    gate: 'G0',
    strict: false,
    params: { server_uuid },
    success: { status: 200, description: 'Networks', body: v.array(Shown) },
    errors: readErrors,
    handle: async ({ params, reqId }, backend) => {
      const server = await onlyServer(params.server_uuid, backend)
      if ('error' in server) return server
      const outcome = await backend.call('cn', server.uuid, 'read', { read: 'network_list', params: {} }, { reqId })
      if ('error' in outcome) return outcome
      const networks = v.parse(v.array(Shown), outcome.value)
      return { status: 200, body: networks.sort((a, b) => (a.name < b.name ? -1 : 1)) }
    },
  }),
  row({
    method: 'GET',
    path: '/networks/:network',
    name: 'NetworkGet',
    summary: 'A network of a server, as virsh lists it.',
    gate: 'G0',
    strict: false,
    params: { network: NetworkName, server_uuid },
    success: { status: 200, description: 'The network', body: Shown },
    errors: [...readErrors, 'NetworkNotFound'],
    handle: async ({ params, reqId }, backend) => {
      const server = await onlyServer(params.server_uuid, backend)
      if ('error' in server) return server
      const outcome = await load(backend, server.uuid, params.network, reqId)
      return 'error' in outcome ? outcome : { status: 200, body: v.parse(Shown, outcome.value) }
    },
  }),
  row({
    method: 'POST',
    path: '/networks/:network',
    name: 'NetworkCreate',
    summary: 'Makes a network on a server: an access port on an Open vSwitch bridge with a VLAN tag.',
    gate: 'G0',
    strict: false,
    params: { network: NetworkName, ...payload, server_uuid },
    success: { status: 201, description: 'Made', body: v.looseObject({ id: v.string() }) },
    errors: [...createErrors, 'InvalidArgument', 'ResourceNotFound', 'ServerAmbiguous', 'ServerNotRunning'],
    handle: async ({ params, ids, key, reqId, signal }, backend) => {
      const server = await onlyRunningServer(params.server_uuid, backend)
      if ('error' in server) return server
      const { network: name, bridge, vlan } = params
      const order = {
        task_id: ids.task(),
        task: 'network_create' as const,
        params: { name, bridge, vlan },
        req_id: reqId,
      }
      const outcome = await backend.call('cn', server.uuid, 'task_add', order, { key, reqId })
      if ('error' in outcome) return outcome
      const body = { ...outcome.value, server_uuid: server.uuid }
      return whenEnded(backend, outcome.value.id, signal(), {
        status: 201,
        body,
        headers: { location: `/networks/${name}?server_uuid=${server.uuid}` },
      })
    },
  }),
  row({
    method: 'DELETE',
    path: '/networks/:network',
    name: 'NetworkDelete',
    summary: 'Removes a network that no VM uses.',
    gate: 'G0',
    strict: false,
    params: { network: NetworkName, server_uuid },
    success: { status: 204, description: 'Gone' },
    errors: [...readErrors, 'ServerNotRunning', 'NetworkNotFound', 'NetworkInUse', 'TaskFailed', 'RequestTimedOut'],
    handle: async ({ params, ids, key, reqId, signal }, backend) => {
      const server = await onlyRunningServer(params.server_uuid, backend)
      if ('error' in server) return server
      const order = {
        task_id: ids.task(),
        task: 'network_delete' as const,
        params: { name: params.network },
        req_id: reqId,
      }
      const outcome = await backend.call('cn', server.uuid, 'task_add', order, { key, reqId })
      if ('error' in outcome) return outcome
      return whenEnded(backend, outcome.value.id, signal(), { status: 204 })
    },
  }),
]

const noSuchNetwork: Answer = { error: rejection('NetworkNotFound') }

/** The server to look on for a host's network; undefined for a host that nothing is known of in a fleet. */
async function homeOf(hostname: string, named: unknown, backend: Backend): Promise<string | Answer | undefined> {
  if (named === undefined) {
    const bound = await bindingOf(hostname, backend)
    if (bound) return bound
    await backend.vms.barrier()
    const vm = backend.vms.named(hostname).find(candidate => candidate.present)
    if (vm) return vm.server_uuid
  }
  const server = await onlyServer(named, backend)
  if (!('error' in server)) return server.uuid
  return named === undefined ? undefined : server
}

function load(backend: Backend, serverUuid: string, name: string, reqId: string): Promise<Outcome<unknown>> {
  return backend.call('cn', serverUuid, 'read', { read: 'network_load', params: { name } }, { reqId })
}
