/**
 * A server as placement looks at it: every fact that a rule needs, worked out once from its record, its VMs and what is on its way to it.
 * A row never changes; when something about its server does, another one takes its place.
 */
import type { FleetServer, FleetVm, Flight, Knobs, Traits } from './fleet.ts'
import { isHvm } from './fleet.ts'
import { type NicTags, nicTagsOf } from './nic-tags.ts'
import { type Platform, stampMs } from './platform.ts'
import { isObject, problemOf } from './validity.ts'

/** What a server has left: cpu in percent of a core, ram and disk in MiB. May be negative. */
export interface Capacity {
  cpu: number
  ram: number
  disk: number
}

/** A VM that counts: one that is there, or on its way. */
export interface Load {
  uuid: string
  server_uuid: string
  owner_uuid: string
  hvm: boolean
  brand: string
  /** MiB. */
  ram: number
  /** Percent of a core; undefined without a cap. */
  cap: number | undefined
}

/** Overprovisioning by dimension; one that is absent is not set. */
export type Ratios = Partial<Record<'cpu' | 'ram' | 'disk' | 'io' | 'net', number>>

export interface Row {
  uuid: string
  server: FleetServer
  setup: boolean
  status: string
  /** Its agent drives a hypervisor of Muster's, so every VM becomes a domain of QEMU. */
  muster: boolean
  linux: boolean
  virtual: boolean
  encrypted: boolean
  reserved: boolean
  reservoir: boolean
  headnode: boolean
  /** Why the record cannot be used. */
  problem: string | undefined
  /** What the pool has left beside 6 % that stay free, MiB. */
  freeDiskMib: number
  tags: NicTags | undefined
  platform: Platform
  traits: Traits
  ratios: Ratios
  /** Something without dimensions is on its way. */
  unsizedFlight: string | undefined
  loads: Load[]
  capped: boolean
  capless: boolean
  hvm: { bhyve: boolean; maxVcpus: number; api: boolean; hasKvm: boolean; hasBhyve: boolean }
  /** Left when what is on its way counts too, and left by the VMs that are there. */
  spare: Capacity
  capacity: Capacity
  /** `disk_zone_quota_bytes` and `disk_kvm_zvol_volsize_bytes` with what is on its way. */
  zoneQuotaBytes: number
  zvolBytes: number
  /** Age of its platform as ms since the epoch; NaN for a platform that is no stamp. */
  platformMs: number
  /** When it will reboot, ms since the epoch; -Infinity when nothing is pending. */
  rebootMs: number
}

const bytesPerMib = 2 ** 20
const bytesPerGib = 2 ** 30
/** Share of a pool that may be filled. */
const POOL_SHARE = 0.94
/** Beside its disk every kvm zone has a quota of its own, bytes. */
const KVM_ZONE_BYTES = 10 * bytesPerGib
/** What a hypervisor takes beside the guest's memory, MiB. */
const OVERHEAD_MIB: Record<string, number> = { kvm: 1024, bhyve: 1280 }

/** Works out a row. `vms` and `flights` are of this server; only their order decides between equals. */
export function rowOf(server: FleetServer, vms: readonly FleetVm[], flights: readonly Flight[], knobs: Knobs): Row {
  const sysinfo = isObject(server['sysinfo']) ? server['sysinfo'] : {}
  const muster = typeof sysinfo['Hypervisor'] === 'string'
  const resident = vms.filter(vm => vm.counts).map(loadOf)
  const here = new Set(resident.map(load => load.uuid))
  const arriving = flights.filter(flight => !here.has(flight.id))
  const sized = arriving.filter(flight => flight.extra !== undefined)
  const loads = sized.length === 0 ? resident : [...resident, ...sized.map(loadOfFlight)]
  const [zoneFlightGib, zvolFlightGib] = diskOf(sized)
  const zoneQuotaBytes = num(server['disk_zone_quota_bytes']) + zoneFlightGib * bytesPerGib
  const zvolBytes = num(server['disk_kvm_zvol_volsize_bytes']) + zvolFlightGib * bytesPerGib
  const ratios = ratiosOf(server, knobs)
  const capacity = capacityOf(server, sysinfo, resident, ratios, {
    zone: num(server['disk_zone_quota_bytes']),
    zvol: num(server['disk_kvm_zvol_volsize_bytes']),
  })
  const cores = coresOf(sysinfo)
  return {
    uuid: server.uuid,
    server,
    setup: Boolean(server['setup']),
    status: String(server['status']),
    muster,
    linux: sysinfo['System Type'] === 'Linux',
    virtual: sysinfo['System Type'] === 'Virtual',
    encrypted: Boolean(sysinfo['Zpool Encrypted']),
    reserved: Boolean(server['reserved']),
    reservoir: Boolean(server['reservoir']),
    headnode: Boolean(server['headnode']),
    problem: problemOf(server),
    freeDiskMib: Math.max(
      0,
      Math.ceil(
        (num(server['disk_pool_size_bytes']) * POOL_SHARE - num(server['disk_pool_alloc_bytes'])) / bytesPerMib,
      ),
    ),
    tags: nicTagsOf(sysinfo),
    platform: { version: String(sysinfo['SDC Version'] ?? '6.5'), live: String(sysinfo['Live Image'] ?? '') },
    traits: isObject(server['traits']) ? server['traits'] : {},
    ratios,
    unsizedFlight: arriving.find(flight => flight.extra === undefined)?.uuid,
    loads,
    capped: loads.some(load => load.cap !== undefined),
    capless: loads.some(load => load.cap === undefined),
    hvm: {
      bhyve: muster || sysinfo['Bhyve Capable'] === true,
      maxVcpus: muster ? cores : Math.min(cores, vcpuLimit(sysinfo['Bhyve Max Vcpus'])),
      api: muster || Boolean(sysinfo['HVM API']),
      hasKvm: loads.some(load => load.brand === 'kvm'),
      hasBhyve: loads.some(load => load.brand === 'bhyve'),
    },
    spare:
      sized.length === 0
        ? capacity
        : capacityOf(server, sysinfo, loads, ratios, { zone: zoneQuotaBytes, zvol: zvolBytes }),
    capacity,
    zoneQuotaBytes,
    zvolBytes,
    platformMs: stampMs(server['current_platform']),
    rebootMs: pendingMs(server['next_reboot'], server['last_boot']),
  }
}

function loadOf(vm: FleetVm): Load {
  const { uuid, server_uuid, owner_uuid, brand, max_physical_memory: ram, cpu_cap } = vm
  return { uuid, server_uuid, owner_uuid, hvm: isHvm(brand), brand, ram, cap: cpu_cap || undefined }
}

function loadOfFlight({ id, server_uuid, extra = {}, exact }: Flight): Load {
  const { brand = '', owner_uuid = '', max_physical_memory: ram = 0, cpu_cap } = extra
  const overhead = exact ? 0 : (OVERHEAD_MIB[brand] ?? 0)
  return { uuid: id, server_uuid, owner_uuid, hvm: isHvm(brand), brand, ram: ram + overhead, cap: cpu_cap || undefined }
}

/** Disk of what is on its way, GiB: zone quotas (bhyve's disks among them), and volumes of kvm. */
function diskOf(flights: readonly Flight[]): [zone: number, zvol: number] {
  let zone = 0
  let zvol = 0
  for (const { extra = {} } of flights) {
    zone += extra.quota ?? 0
    if (!isHvm(extra.brand)) continue
    const disksMib = (extra.disks ?? []).reduce((sum, { size }) => sum + (size ?? 0), 0)
    const gib = Math.ceil(disksMib / 1024)
    if (extra.brand === 'kvm') zvol += gib
    else zone += gib
  }
  return [zone, zvol]
}

/** rules.md §4.23, but for VMs without a cap: one of them leaves no CPU, wherever it stands in the list. */
function capacityOf(
  server: FleetServer,
  sysinfo: Record<string, unknown>,
  loads: readonly Load[],
  ratios: Ratios,
  quota: { zone: number; zvol: number },
): Capacity {
  let cpu = 100 * coresOf(sysinfo)
  let ram = (num(server['memory_total_bytes']) / bytesPerMib) * (1 - num(server['reservation_ratio']))
  let kvms = 0
  let capless = false
  const cpuRatio = ratios.cpu || 1
  const ramRatio = ratios.ram || 1
  for (const load of loads) {
    if (load.cap === undefined) capless = true
    else cpu -= load.cap / cpuRatio
    ram -= load.hvm ? load.ram : load.ram / ramRatio
    if (load.brand === 'kvm') kvms += 1
  }
  const pool = num(server['disk_pool_size_bytes']) * POOL_SHARE
  const zoneUsed = num(server['disk_zone_quota_used_bytes'])
  const promised =
    pool -
    num(server['disk_system_used_bytes']) -
    num(server['disk_installed_images_used_bytes']) -
    num(server['disk_cores_quota_used_bytes']) -
    quota.zvol -
    KVM_ZONE_BYTES * kvms -
    (zoneUsed + (quota.zone - zoneUsed) / (ratios.disk || 1))
  const disk = Math.min(promised, pool - num(server['disk_pool_alloc_bytes'])) / bytesPerMib
  return { cpu: capless ? 0 : Math.floor(cpu), ram: Math.floor(ram), disk: Math.floor(disk) }
}

/** The configured ratios for every server, or each server's own; one without any has 4, 1 and 1 in its capacity. */
function ratiosOf(server: FleetServer, knobs: Knobs): Ratios {
  if (!knobs.disable_override_overprovisioning) {
    const { overprovision_ratio_cpu, overprovision_ratio_ram, overprovision_ratio_disk } = knobs
    return { cpu: overprovision_ratio_cpu, ram: overprovision_ratio_ram, disk: overprovision_ratio_disk }
  }
  const own = server['overprovision_ratios']
  return isObject(own) ? (own as Ratios) : { cpu: 4, ram: 1, disk: 1 }
}

/** A reboot before the last boot has happened. */
function pendingMs(reboot: unknown, boot: unknown): number {
  if (typeof reboot !== 'string' || (typeof boot === 'string' && reboot < boot)) return Number.NEGATIVE_INFINITY
  const at = Date.parse(reboot)
  return Number.isNaN(at) ? Number.NEGATIVE_INFINITY : at
}

const coresOf = (sysinfo: Record<string, unknown>) =>
  num('CPU Online Count' in sysinfo ? sysinfo['CPU Online Count'] : sysinfo['CPU Total Cores'])

function vcpuLimit(value: unknown): number {
  const limit = value === undefined ? Number.NaN : Number(value)
  return Number.isNaN(limit) ? 16 : limit
}

function num(value: unknown): number {
  const number = Number(value ?? 0)
  return Number.isFinite(number) ? number : 0
}
