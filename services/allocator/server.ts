/** A server as placement wants it, from what is stored of it: its actor's record, its sysinfo and its last status event. */
import type { FleetServer, FleetVm, Flight } from '../../actors/allocation/fleet.ts'
import { NOBODY } from '../../actors/contract/allocation.ts'
import type { Claim, ServerContext, StatusEvent, Sysinfo } from '../../actors/contract/server.ts'
import type { VmContext } from '../../actors/contract/vm.ts'

/** The parts of an actor's record that count. */
export interface StoredServer {
  status: string
  context: ServerContext
}

const bytesPerMib = 2 ** 20

/**
 * A server that has registered and not reported yet has what its sysinfo says, all of it free. Sizes that its agent does not tell stay
 * away: rule hard-filter-invalid-servers names the first one.
 */
export function fleetServer(
  { status, context }: StoredServer,
  sysinfo: Sysinfo | undefined,
  report: StatusEvent | undefined,
): FleetServer {
  const { open: _, claims: __, agents: ___, ...server } = context
  return { ...server, status, sysinfo, ...(report ? reported(report) : sysinfo ? promised(sysinfo) : {}) }
}

function reported({ meminfo, diskinfo }: StatusEvent): Record<string, unknown> {
  const disk = Object.entries(diskinfo ?? {}).map(([name, bytes]) => [`disk_${name}`, bytes])
  return {
    memory_total_bytes: meminfo?.total_bytes,
    memory_available_bytes: meminfo?.availrmem_bytes,
    ...Object.fromEntries(disk),
  }
}

/** Before the first status event: nothing runs there that Muster should count. */
function promised(sysinfo: Sysinfo): Record<string, unknown> {
  const memory = Number(sysinfo['MiB of Memory'] ?? Number.NaN) * bytesPerMib
  const pools = Object.values(
    (sysinfo['Pools'] ?? {}) as Record<string, { size_bytes?: number; available_bytes?: number }>,
  )
  const size = pools.reduce((sum, pool) => sum + (pool.size_bytes ?? 0), 0)
  const left = pools.reduce((sum, pool) => sum + (pool.available_bytes ?? 0), 0)
  const nothing = ['installed_images_used', 'cores_quota_used', 'zone_quota', 'kvm_quota', 'kvm_zvol_volsize']
  return {
    ...(Number.isFinite(memory) ? { memory_total_bytes: memory, memory_available_bytes: memory } : {}),
    disk_pool_size_bytes: size,
    disk_pool_alloc_bytes: size - left,
    disk_system_used_bytes: size - left,
    ...Object.fromEntries(nothing.map(name => [`disk_${name}_bytes`, 0])),
  }
}

/** States without a domain, in which a VM takes nothing. */
const GONE = ['absent', 'missing', 'incomplete', 'destroyed', 'forgotten']

/** A VM that is there or being made: its record is durable before its node hears of it, so it counts from the moment it was asked for. */
export function fleetVm(state: string, vm: VmContext): FleetVm | undefined {
  if (GONE.includes(state)) return undefined
  const { uuid, server_uuid, owner_uuid, brand, ram, quota, alias, tags, docker_id } = vm
  return {
    uuid,
    server_uuid,
    owner_uuid: owner_uuid ?? NOBODY,
    brand,
    counts: true,
    max_physical_memory: Math.max(ram, memoryToBe(vm)),
    cpu_cap: capOf(vm),
    quota: quota ?? undefined,
    alias: alias ?? undefined,
    tags,
    docker: docker_id !== undefined,
    docker_id,
  }
}

/** Memory that an update in flight asks for, MiB: room is taken from the moment it is promised. */
function memoryToBe({ operation }: VmContext): number {
  const changes = operation?.verb === 'update' ? operation.params['changes'] : undefined
  const { memory_mib } = (changes ?? {}) as { memory_mib?: unknown }
  return typeof memory_mib === 'number' ? memory_mib : 0
}

/** A domain cannot use more than its vcpus: what has no cap has that one. */
export const capOf = ({
  cpu_cap,
  vcpus,
}: {
  cpu_cap?: number | null | undefined
  vcpus?: number | undefined
}): number => cpu_cap || 100 * Math.max(1, Math.ceil(vcpus ?? 1))

/** Claims of a node's record, as what is on its way to it. */
export const flightsOf = ({ uuid, claims = {} }: ServerContext): Flight[] =>
  Object.entries(claims).map(([id, claim]) => flightOfClaim(uuid, id, claim))

export function flightOfClaim(serverUuid: string, claimId: string, claim: Claim): Flight {
  const { vm_uuid, owner_uuid, brand, ram, cpu_cap, quota } = claim
  const extra = { owner_uuid, brand, max_physical_memory: ram, cpu_cap, quota }
  return { uuid: claimId, server_uuid: serverUuid, id: vm_uuid, exact: true, extra }
}

/** A VM that is being migrated takes its place on the target too, from the moment that was asked for until it is there. */
export function flightOfMigration(vm: VmContext): Flight | undefined {
  const { uuid, server_uuid, owner_uuid, brand, ram, quota, migration } = vm
  if (!migration || migration.target === server_uuid) return undefined
  const extra = { owner_uuid: owner_uuid ?? NOBODY, brand, max_physical_memory: ram, cpu_cap: capOf(vm) }
  const disk = quota === null ? {} : { quota }
  return { uuid, server_uuid: migration.target, id: uuid, exact: true, extra: { ...extra, ...disk } }
}
