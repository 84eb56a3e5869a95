/**
 * What must hold before a handler runs (cnapi-behaviour §1.2), in its order: a known server, a well-formed VM id, a running
 * server, a VM that is there. A view may be milliseconds old, so before anything is refused the leader is asked.
 */
import { DEFAULTS_ID } from '../actors/contract/boot.ts'
import { type Rejection, rejection } from '../actors/contract/errors.ts'
import type { Backend, Server, Vm } from './backend.ts'
import type { Gate } from './row.ts'
import { defaultServer } from './shown-server.ts'

export type Passed = { server?: Server; vm?: Vm }
type Checked<T> = T | { error: Rejection }

/** Steps of each gate. GL, GSW and GSRW differ from others only by stores that Muster does not have. */
const steps = {
  G0: {},
  GM: {},
  GMW: {},
  GL: { server: true },
  GS: { server: true },
  GSW: { server: true },
  GSR: { server: true, running: true },
  GSRW: { server: true, running: true },
  GSV: { server: true, running: true, vm: true },
  GV: { server: true, vm: true },
} as const satisfies Record<Gate, { server?: true; running?: true; vm?: true }>

/** Codes that a gate may answer, for the OpenAPI document. */
export function gateErrors(gate: Gate) {
  const { server, running } = steps[gate] as { server?: true; running?: true }
  return [
    ...(server ? (['InvalidArgument', 'ResourceNotFound'] as const) : []),
    ...(running ? (['ServerNotRunning'] as const) : []),
  ]
}

/** Ids are lower-cased here, so the rest of the gateway meets one spelling. `keyed`: the request carries an Idempotency-Key. */
export async function pass(
  gate: Gate,
  all: Record<string, unknown>,
  backend: Backend,
  keyed: boolean,
): Promise<Checked<Passed>> {
  const step = steps[gate] as { server?: true; running?: true; vm?: true }
  if (!step.server) return {}
  const server = await findServer(all['server_uuid'], backend)
  if ('error' in server) return server
  all['server_uuid'] = server.uuid
  if (step.vm && !isUuid(all['uuid'])) return { error: rejection('InvalidArgument', 'Invalid vm_uuid') }
  if (step.running) {
    const refusal = await refuseUnlessRunning(server, backend)
    if (refusal) return { error: refusal }
  }
  if (!step.vm) return { server }
  const vm = await findVm(String(all['uuid']).toLowerCase(), server.uuid, backend, keyed)
  if ('error' in vm) return vm
  all['uuid'] = vm.uuid
  return { server, vm }
}

/** The server of an id that a caller gave; `default` holds the boot defaults of servers to come. */
export async function findServer(id: unknown, backend: Backend): Promise<Checked<Server>> {
  if (id === DEFAULTS_ID) return { ...defaultServer, ...(await backend.bootDefaults()) }
  if (!isUuid(id)) return { error: rejection('InvalidArgument', 'Invalid server_uuid') }
  const uuid = id.toLowerCase()
  const server = backend.servers.get(uuid) ?? (await backend.servers.load(uuid))
  return server ?? { error: rejection('ResourceNotFound', `Server ${uuid} not found`) }
}

/** The same server after a barrier of the view: one that was deleted meanwhile is not shown from before. */
export async function serverNow({ uuid }: Server, backend: Backend): Promise<Checked<Server>> {
  return backend.servers.get(uuid) ?? findServer(uuid, backend)
}

/** A refusal when the server is not running by the leader's record either. */
export async function refuseUnlessRunning(server: Server, backend: Backend): Promise<Rejection | undefined> {
  if (server.status === 'running') return undefined
  const now = server.uuid === DEFAULTS_ID ? undefined : await backend.servers.load(server.uuid)
  return now?.status === 'running' ? undefined : rejection('ServerNotRunning')
}

/** A VM of this server. A destroyed one is gone, except for the repeat of a keyed request that may have destroyed it. */
async function findVm(uuid: string, serverUuid: string, backend: Backend, keyed: boolean): Promise<Checked<Vm>> {
  const fits = (vm: Vm | undefined): vm is Vm =>
    vm !== undefined && vm.server_uuid === serverUuid && (keyed || vm.state !== 'destroyed')
  const seen = backend.vms.get(uuid)
  if (fits(seen)) return seen
  const stored = await backend.vms.load(uuid)
  return fits(stored) ? stored : { error: rejection('ResourceNotFound', `VM ${uuid} not found`) }
}

const uuidForm = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i

export function isUuid(value: unknown): value is string {
  return typeof value === 'string' && uuidForm.test(value)
}
