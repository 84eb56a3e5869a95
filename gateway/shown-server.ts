/**
 * A server as the REST API shows it (cnapi-behaviour §2.1, §2.3, §2.4): the actor's record, with inventory, liveness and computed
 * values added by the `extras` asked for.
 */
import { DEFAULTS_ID } from '../actors/contract/boot.ts'
import { newServer } from '../actors/contract/new-server.ts'
import type { StatusEvent, Sysinfo } from '../actors/contract/server.ts'
import type { Backend, Server } from './backend.ts'
import { shownVm } from './shown-vm.ts'

/** Groups of properties that `extras` names; ServerGet asks for `all`. */
export type Extra = 'agents' | 'vms' | 'memory' | 'disk' | 'sysinfo' | 'capacity' | 'all'

const { open: _, ...unknownServer } = newServer(DEFAULTS_ID)
/** The record `default` while nobody has set any boot parameters; never listed. */
export const defaultServer: Server = { ...unknownServer, hostname: '', status: 'unknown' }

/** The record with its extras. Call after the barriers of servers, inventory and, for vms, of the VMs. */
export function shownServer(server: Server, extras: ReadonlySet<string>, backend: Backend): Record<string, unknown> {
  const { agents, status, last_boot, system_type, current_platform, ...base } = server
  const shown: Record<string, unknown> = { ...base, status: shownStatus(server) }
  for (const [name, value] of Object.entries({ last_boot, system_type, current_platform })) {
    if (value !== null) shown[name] = value
  }
  if (extras.size === 0) return shown
  const heard = backend.lastHeartbeat(server.uuid)
  shown['last_heartbeat'] = heard === undefined ? null : new Date(heard).toISOString()
  for (const [name, group] of Object.entries(groups)) {
    if (group.also.some(word => extras.has(word)) || extras.has(name)) {
      Object.assign(shown, group.of(server, agents, backend, extras))
    }
  }
  return shown
}

/** `transitional_status` is shown in place of `unknown` only: a rebooting server that still beats is running. */
function shownStatus(server: Server): string {
  const stored = server.status || 'unknown'
  return stored === 'unknown' && server.transitional_status ? server.transitional_status : stored
}

type Group = (server: Server, agents: Server['agents'], backend: Backend, extras: ReadonlySet<string>) => object

const groups: Record<string, { also: Extra[]; of: Group }> = {
  agents: { also: ['capacity', 'all'], of: (_server, agents) => ({ agents }) },
  memory: { also: ['capacity', 'all'], of: (server, _agents, backend) => memory(server, backend) },
  disk: { also: ['capacity', 'all'], of: (server, _agents, backend) => disk(backend.inventory.status(server.uuid)) },
  sysinfo: {
    also: ['all'],
    of: (server, _agents, backend) => ({ sysinfo: backend.inventory.sysinfo(server.uuid) ?? {} }),
  },
  vms: { also: ['all'], of: (server, _agents, backend, extras) => ({ vms: vms(server, backend, extras) }) },
}

const bytesPerMib = 2 ** 20

function memory(server: Server, backend: Backend): object {
  const status = backend.inventory.status(server.uuid)
  const info = status?.meminfo
  return {
    ...defined('memory_available_bytes', info?.availrmem_bytes),
    ...defined('memory_arc_bytes', info?.arcsize_bytes),
    ...defined('memory_total_bytes', info?.total_bytes),
    ...defined(
      'memory_provisionable_bytes',
      provisionableBytes(server, backend.inventory.sysinfo(server.uuid), status),
    ),
  }
}

/**
 * What VMs may still be promised: all memory, less the reserved share, less what each VM has. Memory is the sysinfo's, else
 * the status event's; a VM that tells no size counts as none. Undefined while neither has come.
 */
export function provisionableBytes(
  server: Pick<Server, 'reservation_ratio'>,
  sysinfo: Sysinfo | undefined,
  status: StatusEvent | undefined,
): number | undefined {
  const mib = Number(sysinfo?.['MiB of Memory'])
  const total = mib > 0 ? mib * bytesPerMib : status?.meminfo?.total_bytes
  if (!total) return undefined
  const promised = Object.values(status?.vms ?? {}).reduce((sum, vm) => sum + (vm.max_physical_memory ?? 0), 0)
  return Math.floor(total - total * server.reservation_ratio - bytesPerMib * promised)
}

/** Status event's name without the prefix that the record adds. */
const diskFields = [
  'cores_quota_bytes',
  'cores_quota_used_bytes',
  'installed_images_used_bytes',
  'kvm_quota_bytes',
  'kvm_quota_used_bytes',
  'kvm_zvol_used_bytes',
  'kvm_zvol_volsize_bytes',
  'pool_alloc_bytes',
  'pool_size_bytes',
  'system_used_bytes',
  'zone_quota_bytes',
  'zone_quota_used_bytes',
] as const

function disk(status: StatusEvent | undefined): object {
  return Object.assign({}, ...diskFields.map(field => defined(`disk_${field}`, status?.diskinfo?.[field])))
}

/** By uuid: the actors' own records of a server in use when everything is asked for, else what the node reported last. */
function vms(server: Server, backend: Backend, extras: ReadonlySet<string>): object {
  const own = server.setup && server.status === 'running' && (extras.has('all') || extras.has('capacity'))
  if (!own) return backend.inventory.status(server.uuid)?.vms ?? {}
  const listed = backend.vms.of(server.uuid).filter(vm => vm.state !== 'destroyed')
  return Object.fromEntries(listed.map(vm => [vm.uuid, shownVm(vm)]))
}

function defined(name: string, value: number | undefined): object {
  return value === undefined ? {} : { [name]: value }
}
