/**
 * VMs as the agent reports them. Listing asks for all states in one call that skips guests that hang, and for each definition
 * only when it may have changed.
 */
import { readFile } from 'node:fs/promises'
import { type DomainLifecycleEvent, type DomainStats, isLibvirtError, type Hypervisor as Libvirt } from 'node-libvirt'
import type { VmDetail, VmState } from '../hypervisor.ts'
import { targetOf } from '../shape.ts'
import { mib, volumeSizes } from './volumes.ts'
import { type ReadDomain, readDomain } from './xml-reading.ts'

/** How long a definition is believed without an event: events can be lost. */
const definitionLifetimeMs = 60_000

export interface Vms {
  list(): Promise<VmState[]>
  /** Undefined if there is none. */
  load(uuid: string): Promise<VmDetail | undefined>
  /** When libvirt last told of a change, or when listening began, ms since the epoch. */
  changedAt(uuid: string): number
  noteEvent(event: DomainLifecycleEvent): void
  /** This VM, or without a name any of them, may have changed. */
  forget(uuid?: string): void
}

/** `look`: the connection for listing, as of now. */
export function vms(look: () => Libvirt, poolName: string): Vms {
  const definitions = new Map<string, { read: ReadDomain; at: number }>()
  const changedAt = new Map<string, number>()
  const openedAt = Date.now()
  /** Grows with each event: what was read before one may be older than it. */
  let generation = 0

  async function definition(uuid: string): Promise<ReadDomain | undefined> {
    const known = definitions.get(uuid)
    if (known && Date.now() - known.at < definitionLifetimeMs) return known.read
    const began = generation
    try {
      const domain = await look().lookupDomainByUuid(uuid)
      const read = readDomain(await domain.getXml({ inactive: true }))
      if (began === generation) definitions.set(uuid, { read, at: Date.now() })
      return read
    } catch (error) {
      if (isLibvirtError(error, 'NO_DOMAIN')) return undefined
      throw error
    }
  }

  async function list(): Promise<VmState[]> {
    const [domains, all] = await Promise.all([look().listDomains(), states(look())])
    const ids = new Map(domains.map(({ uuid, id }) => [uuid, id]))
    const found = await Promise.all(
      all.map(async stats => {
        const read = await definition(stats.uuid)
        return read && vmState(read, stats, ids.get(stats.uuid) ?? null)
      }),
    )
    return found.filter(vm => vm !== undefined)
  }

  function vmState(read: ReadDomain, { uuid, stats }: DomainStats, id: number | null): VmState {
    const { metadata } = read
    const seen = observed(Number(stats['state.state']), Number(stats['state.reason']))
    const { words } = seen
    const state = words === 'paused' && isOnItsWay(read) ? 'stopped' : seen.state
    const alias = metadata?.alias ?? read.title
    return {
      uuid,
      name: read.name,
      owner_uuid: metadata?.owner_uuid ?? null,
      brand: metadata?.brand ?? 'kvm',
      cpu_cap: metadata?.cpu_cap ?? null,
      max_physical_memory: read.memoryMib,
      ...(metadata ? { quota: metadata.quota_gib ?? gibOf(metadata.disks.map(disk => disk.size_mib)) } : {}),
      state,
      zone_state: state === 'running' ? 'running' : 'installed',
      last_modified: new Date(changedAt.get(uuid) ?? metadata?.created_at ?? openedAt).toISOString(),
      ...(alias === undefined ? {} : { alias }),
      domain_id: state === 'running' ? id : null,
      domain_state: words,
      vcpus: read.vcpus,
      ...(metadata ? { created_by: metadata.task_id } : {}),
      ...(metadata?.held ? { held_by: metadata.held.by } : {}),
    }
  }

  async function load(uuid: string): Promise<VmDetail | undefined> {
    try {
      const domain = await look().lookupDomainByUuid(uuid)
      const [stats, live, stored, autostart, pid] = await Promise.all([
        states(look()).then(all => all.find(one => one.uuid === domain.uuid)),
        domain.getXml(),
        domain.getXml({ inactive: true }),
        domain.getAutostart().catch(() => false),
        qemuPid(domain.name),
      ])
      if (!stats) return undefined
      const read = readDomain(stored)
      const now = readDomain(live)
      const state = vmState(read, stats, domain.id)
      const sizes = await volumeSizes(
        look(),
        poolName,
        now.disks.map(disk => disk.path),
      )
      const running = state.state === 'running'
      const { metadata } = read
      return {
        ...state,
        memory_mib: read.memoryMib,
        vcpus: read.vcpus,
        autostart,
        customer_metadata: metadata?.customer_metadata ?? {},
        internal_metadata: metadata?.internal_metadata ?? {},
        tags: metadata?.tags ?? {},
        quota: state.quota ?? gibOf([...sizes.values()].map(one => one.size_bytes / mib)),
        disks: now.disks.map(disk => {
          const image = metadata?.disks.find(({ slot }, n) => targetOf(slot ?? n) === disk.target)?.image
          return { ...disk, ...(sizes.get(disk.path) ?? { size_bytes: 0 }), ...(image ? { image } : {}) }
        }),
        nics: now.nics.map(nic => {
          const tag = metadata?.nics?.find(asked => asked.mac.toLowerCase() === nic.mac.toLowerCase())?.nic_tag
          return tag === undefined ? nic : { ...nic, nic_tag: tag }
        }),
        ...(running && now.vnc ? { vnc: now.vnc } : {}),
        ...(read.consoleLog ? { console_log: read.consoleLog } : {}),
        ...(running && pid !== undefined ? { pid } : {}),
      }
    } catch (error) {
      if (isLibvirtError(error, 'NO_DOMAIN')) return undefined
      throw error
    }
  }

  return {
    list,
    load: uuid => load(uuid.toLowerCase()),
    changedAt: uuid => changedAt.get(uuid.toLowerCase()) ?? openedAt,
    noteEvent: ({ uuid, event }) => {
      generation += 1
      definitions.delete(uuid)
      if (event === 'undefined') changedAt.delete(uuid)
      else changedAt.set(uuid, Date.now())
    },
    forget: uuid => {
      generation += 1
      if (uuid === undefined) definitions.clear()
      else definitions.delete(uuid.toLowerCase())
    },
  }
}

/** Between two nodes: paused on both, until one of them lets it go on. */
export function isOnItsWay({ metadata }: ReadDomain): boolean {
  return metadata !== undefined && (metadata.held !== undefined || !metadata.complete)
}

function gibOf(sizesMib: number[]): number {
  return Math.ceil(sizesMib.reduce((sum, size) => sum + size, 0) / 1024)
}

function states(libvirt: Libvirt): Promise<DomainStats[]> {
  return libvirt.getAllDomainStats({ stats: { state: true }, filter: { nowait: true } })
}

/** virsh's words for libvirt's states, in their order. */
const stateWords = ['no state', 'running', 'idle', 'paused', 'in shutdown', 'shut off', 'crashed', 'pmsuspended']
const shutOff = 5
const crashed = 6
/** Reason of `shut off`: QEMU ended without being asked to. */
const shutOffCrashed = 3

function observed(state: number, reason: number): { state: VmState['state']; words: string } {
  const words = stateWords[state] ?? 'no state'
  if (state === crashed || (state === shutOff && reason === shutOffCrashed)) return { state: 'failed', words }
  return { state: state === shutOff || state === 0 ? 'stopped' : 'running', words }
}

/** libvirtd keeps it for root; unknown to an agent of lesser rights. */
export async function qemuPid(name: string): Promise<number | undefined> {
  const text = await readFile(`/run/libvirt/qemu/${name}.pid`, 'utf8').catch(() => '')
  return Number(text) > 0 ? Number(text) : undefined
}
