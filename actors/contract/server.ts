/** Servers: what agents tell about a compute node, and what its actor's record holds. */
import * as v from 'valibot'
import { BootModule } from './boot.ts'
import { Uuid } from './ids.ts'
import { RunningJob } from './job.ts'
import { VmSummary } from './vm.ts'

const text = v.optional(v.string())
const numeric = v.optional(v.union([v.number(), v.string()]))

/** One network interface in a sysinfo, by interface name. */
export const SysinfoNic = v.looseObject({
  'MAC Address': text,
  ip4addr: text,
  'Link Status': text,
  'NIC Names': v.optional(v.array(v.string())),
  /** Ours: the Open vSwitch bridge behind the nic tags of this interface. */
  Bridge: text,
})

/** Something a node can boot: an installed kernel by its release, with what it runs and what it boots next if nobody says otherwise. */
export const Platform = v.looseObject({
  name: v.string(),
  running: v.optional(v.boolean()),
  next: v.optional(v.boolean()),
})
export type Platform = v.InferOutput<typeof Platform>

/** Full inventory of a compute node, with the field names existing node agents use. Loose: everything is kept as posted. */
export const Sysinfo = v.looseObject({
  UUID: v.optional(Uuid),
  Hostname: text,
  'System Type': text,
  'SDC Version': text,
  'Live Image': text,
  'Boot Time': numeric,
  /** Ours: which boot this is, another one after every reboot whatever the clock says. */
  'Boot Id': text,
  'MiB of Memory': numeric,
  'CPU Total Cores': numeric,
  'CPU Online Count': numeric,
  Setup: v.optional(v.union([v.boolean(), v.string()])),
  'Zpool Creation': numeric,
  'Boot Parameters': v.optional(v.record(v.string(), v.unknown())),
  'Network Interfaces': v.optional(v.record(v.string(), SysinfoNic)),
  'Virtual Network Interfaces': v.optional(v.record(v.string(), SysinfoNic)),
  'SDC Agents': v.optional(v.array(v.looseObject({ name: v.string(), version: text }))),
  /** Ours: what is installed for the node to boot. */
  Platforms: v.optional(v.array(Platform)),
  'CN Agent Port': numeric,
  'Admin IP': text,
})
export type Sysinfo = v.InferOutput<typeof Sysinfo>
export const isSysinfo = (value: unknown): value is Sysinfo => v.is(Sysinfo, value)

const count = v.optional(v.number())

/** A libvirt network on a node, in virsh's words. */
export const NetworkSummary = v.object({
  name: v.string(),
  state: v.picklist(['active', 'inactive']),
  autostart: v.picklist(['yes', 'no']),
  persistent: v.picklist(['yes', 'no']),
  bridge: v.optional(v.string()),
  vlan: v.optional(v.number()),
})
export type NetworkSummary = v.InferOutput<typeof NetworkSummary>

/** How one part of a node is. `ok`: null where nobody can tell. */
export const HealthItem = v.object({ ok: v.nullable(v.boolean()), message: v.string(), at: v.string() })
export type HealthItem = v.InferOutput<typeof HealthItem>

/**
 * Periodic report of a node: CNAPI's shape (`vms` by uuid, `meminfo`, `diskinfo` in bytes), then ours.
 * `timestamp` is the agent's clock when the sample was taken, ISO 8601.
 */
export const StatusEvent = v.looseObject({
  vms: v.optional(v.record(v.string(), VmSummary)),
  meminfo: v.optional(v.looseObject({ availrmem_bytes: count, arcsize_bytes: count, total_bytes: count })),
  diskinfo: v.optional(
    v.looseObject({
      kvm_zvol_used_bytes: count,
      kvm_zvol_volsize_bytes: count,
      kvm_quota_bytes: count,
      kvm_quota_used_bytes: count,
      zone_quota_bytes: count,
      zone_quota_used_bytes: count,
      cores_quota_bytes: count,
      cores_quota_used_bytes: count,
      installed_images_used_bytes: count,
      pool_size_bytes: count,
      pool_alloc_bytes: count,
      system_used_bytes: count,
    }),
  ),
  zpoolStatus: v.optional(v.record(v.string(), v.unknown())),
  /** Ours: `hypervisor` and `openvswitch`. An agent whose hypervisor does not answer tells this alone. */
  health: v.optional(v.record(v.string(), HealthItem)),
  boot_time: v.optional(v.union([v.string(), v.number()])),
  timestamp: v.optional(v.string()),
})
export type StatusEvent = v.InferOutput<typeof StatusEvent>

/** A task that a compute node has not ended yet. */
const OpenTask = v.object({
  task: v.string(),
  vm_uuid: v.nullable(v.string()),
  /** held: its VM is busy with another; offered: until the agent accepts; accepted: the agent works on it. */
  state: v.picklist(['held', 'offered', 'accepted']),
  req_id: v.optional(v.string()),
  at: v.number(),
})
export type OpenTask = v.InferOutput<typeof OpenTask>

/** Room held for a VM that is not asked for yet: what it will take, as a ticket's `extra` says it, until then (ms since the epoch). */
export const Claim = v.object({
  vm_uuid: v.string(),
  owner_uuid: v.string(),
  brand: v.string(),
  /** MiB, percent of a core, GiB. */
  ram: v.number(),
  cpu_cap: v.optional(v.number()),
  quota: v.optional(v.number()),
  until: v.number(),
})
export type Claim = v.InferOutput<typeof Claim>

/** The context of a compute node's machine. Field names are CNAPI's where the record is shown (cnapi-behaviour §2.1). */
export const ServerContext = v.object({
  uuid: v.string(),
  hostname: v.string(),
  datacenter: v.string(),
  created: v.string(),
  last_boot: v.nullable(v.string()),
  /** `Boot Id` of the last sysinfo; absent where its agent tells none. */
  boot_id: v.optional(v.string()),
  boot_platform: v.string(),
  boot_params: v.record(v.string(), v.unknown()),
  kernel_flags: v.record(v.string(), v.unknown()),
  current_platform: v.nullable(v.string()),
  comments: v.string(),
  default_console: v.string(),
  serial: v.string(),
  headnode: v.boolean(),
  rack_identifier: v.string(),
  ram: v.number(),
  reservation_ratio: v.number(),
  reserved: v.boolean(),
  reservoir: v.boolean(),
  setup: v.boolean(),
  system_type: v.nullable(v.string()),
  traits: v.record(v.string(), v.unknown()),
  agents: v.array(v.looseObject({ name: v.string(), version: v.optional(v.string()) })),
  transitional_status: v.optional(v.string()),
  /** By an operator: new tasks fail as AgentPaused. Absent in a record that was never paused. */
  paused: v.optional(v.boolean()),
  job: v.optional(RunningJob),
  /** A setup job did not succeed: what the node says of itself does not make it set up. */
  setup_failed: v.optional(v.boolean()),
  /** Absent until they are set: by ServerUpdate (`next_reboot` is a date, '' after it was cleared) and by the boot endpoints. */
  next_reboot: v.optional(v.string()),
  setting_up: v.optional(v.boolean()),
  boot_modules: v.optional(v.array(BootModule)),
  /** Deleted with more VMs or hostnames than one commit has forgotten: the mark stays until none is left. */
  forgetting: v.optional(v.boolean()),
  /** Tasks not ended, by id. Bodies are in bucket `task`. */
  open: v.record(v.string(), OpenTask),
  /** By claim id; and how often they have changed. Absent in a record that has never had one. */
  claims: v.optional(v.record(v.string(), Claim)),
  claims_version: v.optional(v.number()),
})
export type ServerContext = v.InferOutput<typeof ServerContext>

/** What operators may set of a server (ServerUpdate); `transitional_status` is shown while it is silent. */
export const ServerAttributes = v.partial(
  v.object({
    agents: ServerContext.entries.agents,
    boot_params: ServerContext.entries.boot_params,
    boot_platform: v.string(),
    comments: v.string(),
    datacenter: v.string(),
    default_console: v.string(),
    next_reboot: v.string(),
    rack_identifier: v.string(),
    reservation_ratio: v.number(),
    reserved: v.boolean(),
    reservoir: v.boolean(),
    serial: v.string(),
    setting_up: v.boolean(),
    setup: v.boolean(),
    traits: ServerContext.entries.traits,
    transitional_status: v.picklist(['', 'rebooting']),
  }),
)
export type ServerAttributes = v.InferOutput<typeof ServerAttributes>

/** States of a compute node's record in which there is no server (yet, or any more). */
export const NO_SERVER: readonly string[] = ['unregistered', 'defaults', 'deleted', 'forgotten']

/** Liveness (cnapi-behaviour Appendix C): one beat each 5 s; a node that was silent for 11 s is `unknown`. */
export const HEARTBEAT_MS = 5_000
export const HEARTBEAT_LIFETIME_MS = 11_000
/** Most tasks that one compute node may have open: more is refused, so that its record stays small. */
export const OPEN_TASKS_MAX = 512
/** Most VMs and hostnames that the commit of a deletion has forgotten: with all its open tasks a record stays within its bucket's limit. */
export const FORGOTTEN_AT_ONCE = 512
/** Most claims on one compute node. */
export const CLAIMS_MAX = 256
