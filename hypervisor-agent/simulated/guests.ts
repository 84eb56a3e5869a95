/** The guests of a simulated hypervisor, their networks, and how they look from outside; kept in a file where a folder is given. */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { NetworkSummary } from '../../actors/contract/server.ts'
import type { VmSpec } from '../../actors/contract/vm.ts'
import type { VmDetail, VmState } from '../hypervisor.ts'
import { targetOf } from '../shape.ts'
import { type SimulatedHardware, shapeOf } from './devices.ts'
import type { SimulatedFile } from './guest-programs.ts'
import type { SimulatedContent, SimulatedSnapshot } from './snapshots.ts'

export interface Guest {
  spec: VmSpec
  task_id: string
  state: 'running' | 'stopped' | 'failed'
  domain_id: number | null
  /** Times it was started or rebooted. */
  boots: number
  /** ms since the epoch. */
  started_at: number
  modified_at: number
  /** Present while it runs from an installer. JSON knows no Infinity: an endless one comes back without an end. */
  installer: { cmdline: string; ends_at: number } | null
  acpi: 'listens' | 'ignores'
  /** What it runs with; null while it does not run. */
  hardware?: SimulatedHardware | null
  /** Volume by slot, where its disks have been changed; and volumes that no definition names, with their size in MiB. */
  volumes?: Record<string, string>
  loose?: Record<string, number>
  snapshots?: SimulatedSnapshot[]
  /** The snapshot it comes from. */
  snapshot?: string | null
  content?: SimulatedContent
  /** The migration that holds it, and whether it started with its node before; and one that is not whole yet. */
  held?: { by: string; autoboot: boolean } | null
  incoming?: boolean
  /** It was copied to another node and stands still here; what it was. */
  departed?: { domain_id: number | null } | null
  /** Switch ports that somebody changed, by MAC. */
  bent_ports?: Record<string, { bridge: string | null; vlan_id: number | null }>
  /** The guest runs a QEMU guest agent. */
  guest_agent?: boolean
  /** Its files by path, as far as anybody asked, and how many programs were started in it. */
  files?: Record<string, SimulatedFile>
  programs_started?: number
}

export interface GuestStore {
  guests: Map<string, Guest>
  networks: Map<string, NetworkSummary>
  lastDomainId: number
  machine: MachineState
  save(): void
}

/** What a simulated host itself remembers; absent: as its seed made it. */
export interface MachineState {
  boot?: { id: string; time_s: number; count: number }
  hostname?: string
  /** A reboot was asked for and has not happened yet. */
  reboot_due?: true
}

/** Loads what the folder remembers; without a folder it starts empty and `save` does nothing. */
export function guestStore(folder: string | undefined): GuestStore {
  const store: GuestStore = { guests: new Map(), networks: new Map(), lastDomainId: 0, machine: {}, save: () => {} }
  if (!folder) return store
  mkdirSync(folder, { recursive: true })
  const file = join(folder, 'guests.json')
  const kept = readKept(file)
  for (const guest of kept.guests) {
    if (guest.installer) guest.installer.ends_at ??= Number.POSITIVE_INFINITY
    store.guests.set(guest.spec.uuid, guest)
  }
  for (const network of kept.networks) store.networks.set(network.name, network)
  store.lastDomainId = kept.last_domain_id
  store.machine = kept.machine ?? {}
  store.save = () => {
    const { guests, networks, lastDomainId, machine } = store
    const kept: Kept = {
      last_domain_id: lastDomainId,
      machine,
      networks: [...networks.values()],
      guests: [...guests.values()],
    }
    writeFileSync(`${file}.new`, `${JSON.stringify(kept, null, 2)}\n`)
    renameSync(`${file}.new`, file)
  }
  return store
}

const mib = 1024 * 1024
/** Sizes of a guest's disks; what a disk really takes is an eighth, as of a fresh system on thin volumes. */
export const bytes = {
  mib,
  capacity: (guest: Guest) =>
    [...guest.spec.disks.map(disk => disk.size_mib), ...Object.values(guest.loose ?? {})].reduce((a, b) => a + b, 0) *
    mib,
  allocated: (guest: Guest) => Math.floor(bytes.capacity(guest) / 8),
}

const domainStates = { running: 'running', stopped: 'shut off', failed: 'crashed' } as const

/** A guest as listings show it. */
export function vmState(guest: Guest): VmState {
  const { spec } = guest
  return {
    uuid: spec.uuid,
    name: spec.name,
    owner_uuid: spec.owner_uuid ?? null,
    brand: spec.brand,
    cpu_cap: spec.cpu_cap ?? null,
    max_physical_memory: spec.memory_mib,
    quota: spec.quota_gib ?? Math.ceil(bytes.capacity(guest) / (1024 * mib)),
    state: guest.state,
    zone_state: guest.state === 'running' ? 'running' : 'installed',
    last_modified: new Date(guest.modified_at).toISOString(),
    ...(spec.alias === undefined ? {} : { alias: spec.alias }),
    domain_id: guest.domain_id,
    domain_state: domainStates[guest.state],
    vcpus: spec.vcpus,
    created_by: guest.task_id,
    ...(guest.held ? { held_by: guest.held.by } : {}),
  }
}

/** A guest with everything a person may ask. */
export function vmDetail(guest: Guest): VmDetail {
  const { spec } = guest
  const running = guest.state === 'running' && guest.domain_id !== null ? guest.domain_id : undefined
  return {
    ...vmState(guest),
    memory_mib: spec.memory_mib,
    vcpus: spec.vcpus,
    autostart: spec.autoboot,
    customer_metadata: spec.customer_metadata ?? {},
    internal_metadata: spec.internal_metadata ?? {},
    tags: spec.tags ?? {},
    disks: shapeOf(guest).disks.map(disk => ({
      target: targetOf(disk.slot),
      path: `/var/lib/libvirt/images/${disk.volume}`,
      size_bytes: disk.size_mib * mib,
      allocated_bytes: Math.floor((disk.size_mib * mib) / 8),
      ...(disk.image ? { image: disk.image } : {}),
    })),
    nics: spec.nics.map((nic, n) => ({
      mac: nic.mac.toLowerCase(),
      model: 'virtio',
      ...(nic.nic_tag ? { nic_tag: nic.nic_tag } : {}),
      ...(nic.network ? { network: nic.network } : {}),
      ...(nic.bridge ? { bridge: nic.bridge } : {}),
      ...(nic.vlan_id ? { vlan: nic.vlan_id } : {}),
      ...(running === undefined ? {} : { interface: `vnet${running * 8 + n}` }),
    })),
    ...(running === undefined
      ? {}
      : { vnc: { host: '127.0.0.1', port: 5900 + (running % 1000) }, pid: 10_000 + running }),
  }
}

interface Kept {
  last_domain_id: number
  machine?: MachineState
  networks: NetworkSummary[]
  guests: Guest[]
}

function readKept(file: string): Kept {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { last_domain_id: 0, networks: [], guests: [] }
    throw error
  }
  return JSON.parse(text) as Kept
}
