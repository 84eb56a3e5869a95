/**
 * What placement knows of a fleet, and what it is asked: plain data, in the words of the REST API. RAM in MiB, CPU in percent of one
 * core, disk in bytes or MiB as the name says; a VM's `quota` is GiB, a package's is MiB.
 */

/** A server as CNAPI shows it: its record, its sysinfo, and the `memory_*` and `disk_*` fields of its last status event. */
export interface FleetServer {
  uuid: string
  [field: string]: unknown
}

/** A VM of the directory. `counts`: it is load on its server; one that failed is not, nor one that a ticket stands for. */
export interface FleetVm {
  uuid: string
  server_uuid: string
  owner_uuid: string
  brand: string
  counts: boolean
  max_physical_memory: number
  /** Falsy: without a cap. */
  cpu_cap?: number | undefined
  quota?: number | undefined
  alias?: string | undefined
  tags?: Record<string, unknown> | undefined
  docker?: boolean | undefined
  docker_id?: string | undefined
}

/**
 * A VM on its way to a server: an open provision ticket, or a claim. `extra`: its dimensions; without them the server is not used.
 * `exact`: the sizes hold all that the VM takes (claims); else a hypervisor's overhead is added (tickets).
 */
export interface Flight {
  uuid: string
  server_uuid: string
  /** The VM's uuid: once the VM counts, its flight does not. */
  id: string
  extra?: FlightExtra | undefined
  exact?: boolean | undefined
}

export interface FlightExtra {
  owner_uuid?: string | undefined
  max_physical_memory?: number | undefined
  cpu_cap?: number | undefined
  quota?: number | undefined
  brand?: string | undefined
  disks?: { size?: number | undefined }[] | undefined
}

export const SPREADS = ['min-ram', 'max-ram', 'random', 'min-owner'] as const
export type Spread = (typeof SPREADS)[number]

/** Settings, by the allocator's keys (rules.md §7); `min_disk` adds the disk step. */
export interface Knobs {
  server_spread?: Spread | undefined
  filter_capness: boolean
  filter_headnode: boolean
  filter_min_resources: boolean
  filter_large_servers: boolean
  min_disk: boolean
  filter_vm_limit: number
  minimum_free_disk?: number | undefined
  filter_docker_min_platform?: string | undefined
  filter_docker_nfs_volumes_automount_min_platform?: string | undefined
  filter_non_docker_nfs_volumes_automount_min_platform?: string | undefined
  filter_volapi_nfs_v2_min_platform?: string | undefined
  filter_flexible_disk_min_platform?: string | undefined
  disable_override_overprovisioning: boolean
  overprovision_ratio_cpu: number
  overprovision_ratio_ram: number
  overprovision_ratio_disk: number
  weight_current_platform: number
  weight_next_reboot: number
  weight_num_owner_zones: number
  weight_uniform_random: number
  weight_unreserved_disk: number
  weight_unreserved_ram: number
}

export const KNOBS: Knobs = {
  filter_capness: true,
  filter_headnode: true,
  filter_min_resources: true,
  filter_large_servers: true,
  min_disk: false,
  filter_vm_limit: 224,
  filter_docker_nfs_volumes_automount_min_platform: '20160613T123039Z',
  filter_non_docker_nfs_volumes_automount_min_platform: '20170925T211846Z',
  filter_volapi_nfs_v2_min_platform: '20200213T123742Z',
  filter_flexible_disk_min_platform: '20181206T190647Z',
  disable_override_overprovisioning: false,
  overprovision_ratio_cpu: 4,
  overprovision_ratio_ram: 1,
  overprovision_ratio_disk: 1,
  weight_current_platform: 1,
  weight_next_reboot: 0.5,
  weight_num_owner_zones: 0,
  weight_uniform_random: 0.5,
  weight_unreserved_disk: 1,
  weight_unreserved_ram: 2,
}

/** The body of POST /allocate, after its checks. */
export interface Request {
  vm: {
    owner_uuid: string
    ram: number
    brand?: string | undefined
    vcpus?: number | undefined
    cpu_cap?: number | undefined
    quota?: number | undefined
    docker?: unknown
    volumes?: unknown
    flexible_disk_size?: unknown
    tags?: Record<string, unknown> | undefined
    traits?: Traits | undefined
    affinity?: Affinity[] | undefined
    locality?: Locality | undefined
    internal_metadata?: Record<string, unknown> | undefined
  }
  package?: Package | undefined
  image: {
    type?: string | undefined
    image_size?: number | undefined
    files?: { size?: number | undefined }[] | undefined
    traits?: Traits | undefined
    requirements?: { min_platform?: PlatformMap | undefined; max_platform?: PlatformMap | undefined } | undefined
  }
  nic_tags?: string[] | undefined
  /** Each inner list: any of these tags. Takes the place of `nic_tags`. */
  nic_tag_requirements?: string[][] | undefined
}

export interface Package {
  max_physical_memory?: number | undefined
  cpu_cap?: number | undefined
  /** MiB. */
  quota?: number | undefined
  traits?: Traits | undefined
  min_platform?: PlatformMap | undefined
  alloc_server_spread?: Spread | undefined
  overprovision_cpu?: number | string | undefined
  overprovision_memory?: number | string | undefined
  overprovision_storage?: number | string | undefined
  overprovision_network?: number | string | undefined
  overprovision_io?: number | string | undefined
}

export type Traits = Record<string, unknown>
/** Version to platform stamp. */
export type PlatformMap = Record<string, string>

export interface Affinity {
  key: string
  operator: '==' | '!='
  value: string
  valueType: 'exact' | 'glob' | 're'
  isSoft: boolean
}

export interface Locality {
  near?: string | string[] | null | undefined
  far?: string | string[] | null | undefined
  strict?: boolean | undefined
}

export const isHvm = (brand: string | undefined): boolean => brand === 'bhyve' || brand === 'kvm'
