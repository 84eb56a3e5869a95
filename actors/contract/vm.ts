/** VMs: what callers ask for, what the agent is told to make, what the actor's record holds, what agents report. */
import * as v from 'valibot'
import { BridgeName, Hostname, ImageName, Mac, NetworkName, Uuid, VlanId } from './ids.ts'
import { Leftover, Migration } from './migration.ts'

const mib = v.pipe(v.number(), v.integer('must be a whole number'), v.minValue(1), v.maxValue(64 * 1024 * 1024))

/**
 * One disk of a VM, in the order the guest sees them (sda, sdb, ...). `image` is a volume of the node's pool; without one it is blank.
 * `slot`: its place among these names, where it is not that of the list, because a disk before it was removed.
 */
export const DiskSpec = v.object({
  size_mib: mib,
  image: v.optional(ImageName),
  slot: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(255))),
})

/** One NIC: either on a libvirt network by name, or on the bridge of a nic tag with a VLAN. */
export const NicSpec = v.object({
  mac: Mac,
  network: v.optional(NetworkName),
  nic_tag: v.optional(v.pipe(v.string(), v.minLength(1), v.maxLength(64))),
  bridge: v.optional(BridgeName),
  vlan_id: v.optional(VlanId),
  ip: v.optional(v.string()),
  primary: v.optional(v.boolean()),
})

export type NicSpec = v.InferOutput<typeof NicSpec>

/** Network install: kernel and initrd are taken from an installer tree; the VM boots from disk afterwards. */
export const InstallSpec = v.object({
  location: v.pipe(v.string(), v.maxLength(2048), v.regex(/^https?:\/\/[^\s]+$/, 'must be an http or https URL')),
  cmdline: v.optional(v.pipe(v.string(), v.maxLength(2048), v.regex(/^[\x20-\x7e]*$/, 'must be printable ASCII'))),
  console: v.optional(v.boolean(), false),
})

const metadata = v.record(v.string(), v.unknown())

/** What an agent makes a domain from; the gateway derives it from the payload of either API. Sizes in MiB. */
export const VmSpec = v.object({
  uuid: Uuid,
  /** Name of the domain: the hostname for /host, the uuid for CNAPI. */
  name: v.union([Hostname, Uuid]),
  alias: v.optional(v.pipe(v.string(), v.maxLength(200))),
  owner_uuid: v.optional(Uuid),
  brand: v.optional(v.string(), 'kvm'),
  memory_mib: mib,
  vcpus: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(255)),
  cpu_cap: v.optional(v.pipe(v.number(), v.minValue(1))),
  quota_gib: v.optional(v.pipe(v.number(), v.minValue(0))),
  disks: v.pipe(v.array(DiskSpec), v.maxLength(256)),
  nics: v.pipe(v.array(NicSpec), v.maxLength(32)),
  autoboot: v.optional(v.boolean(), true),
  install: v.optional(InstallSpec),
  customer_metadata: v.optional(metadata),
  internal_metadata: v.optional(metadata),
  tags: v.optional(metadata),
})
export type VmSpec = v.InferOutput<typeof VmSpec>

/** What a domain is doing, as an agent sees it; the word `state` of CNAPI's listings. */
export const VmObservedState = v.picklist(['running', 'stopped', 'failed', 'provisioning'])
export type VmObservedState = v.InferOutput<typeof VmObservedState>

/**
 * One VM in a status event: CNAPI's nine fields, then ours. max_physical_memory in MiB, quota in GiB, cpu_cap in percent of a core.
 * Loose, because node agents of other makes send more.
 */
export const VmSummary = v.looseObject({
  uuid: Uuid,
  owner_uuid: v.optional(v.nullable(v.string())),
  brand: v.optional(v.string()),
  cpu_cap: v.optional(v.nullable(v.number())),
  max_physical_memory: v.optional(v.number()),
  quota: v.optional(v.number()),
  state: v.string(),
  zone_state: v.optional(v.string()),
  last_modified: v.optional(v.string()),
  /** Domain name, virsh's number of a running one and virsh's word for its state. */
  name: v.optional(v.string()),
  alias: v.optional(v.string()),
  domain_id: v.optional(v.nullable(v.number())),
  domain_state: v.optional(v.string()),
  vcpus: v.optional(v.number()),
  /** Set while the installer of a network install runs. */
  installing: v.optional(v.boolean()),
})
export type VmSummary = v.InferOutput<typeof VmSummary>

/** Verbs of a VM's lifecycle that end in a task. */
export const VM_VERBS = [
  'create',
  'start',
  'stop',
  'reboot',
  'kill',
  'destroy',
  'update',
  'reprovision',
  'migrate',
  'create_snapshot',
  'rollback_snapshot',
  'delete_snapshot',
  'create_image',
] as const
export type VmVerb = (typeof VM_VERBS)[number]

const OperationSchema = v.object({
  verb: v.picklist(VM_VERBS),
  task_id: Uuid,
  /** When it was asked for, ms since the epoch. */
  at: v.number(),
  params: v.record(v.string(), v.unknown()),
  req_id: v.optional(v.string()),
})
/** A verb in flight or waiting for its turn. */
export type Operation = v.InferOutput<typeof OperationSchema>

/** The context of a VM's machine: what the record knows. */
export const VmContext = v.object({
  uuid: v.string(),
  server_uuid: v.string(),
  name: v.string(),
  alias: v.nullable(v.string()),
  owner_uuid: v.nullable(v.string()),
  brand: v.string(),
  ram: v.number(),
  vcpus: v.number(),
  cpu_cap: v.nullable(v.number()),
  quota: v.nullable(v.number()),
  image_uuid: v.nullable(v.string()),
  disks: v.array(v.object({ size_mib: v.number(), image: v.optional(v.string()), slot: v.optional(v.number()) })),
  nics: v.array(
    v.object({
      mac: v.string(),
      network: v.optional(v.string()),
      nic_tag: v.optional(v.string()),
      bridge: v.optional(v.string()),
      vlan_id: v.optional(v.number()),
      ip: v.optional(v.string()),
      primary: v.optional(v.boolean()),
    }),
  ),
  /** Started with its node; absent in records of before it was kept. */
  autoboot: v.optional(v.boolean()),
  tags: v.optional(metadata),
  /** Of a VM made as a Docker container. */
  docker_id: v.optional(v.string()),
  /** Key of the host actor that had it made, for /host. */
  host_key: v.nullable(v.string()),
  /** True for a domain that nobody ordered through Muster. */
  discovered: v.boolean(),
  created_at: v.number(),
  modified_at: v.number(),
  /** What the node last said of it. */
  observed: v.nullable(
    v.object({
      state: v.string(),
      at: v.number(),
      domain_id: v.nullable(v.number()),
      domain_state: v.nullable(v.string()),
    }),
  ),
  operation: v.nullable(OperationSchema),
  /** The state the operation in flight began from. */
  before: v.nullable(v.string()),
  waiting: v.array(OperationSchema),
  /** A migration under way, and what earlier ones have yet to remove: actors/contract/migration.ts. */
  migration: v.optional(v.nullable(Migration)),
  leftovers: v.optional(v.array(Leftover)),
  /** Why the last operation failed. */
  failure: v.nullable(v.object({ verb: v.string(), code: v.string(), message: v.string(), at: v.number() })),
  /** End of the last operation by the agent's clock: older reports are not news. */
  settled_at: v.number(),
})
export type VmContext = v.InferOutput<typeof VmContext>

/** Most verbs that may wait for their turn in one VM. */
export const WAITING_MAX = 16
