/** A virtual machine as libvirt knows it. Methods are single calls; what they leave undone is the caller's to decide. */
import type { CallOptions, Client } from './client.ts'
import { type Affect, affectWord, type Flags, flagWord } from './flags.ts'
import type { NonnullDomain } from './protocol-types.ts'
import { DomainSnapshot } from './snapshot.ts'
import { type DomainReasonName, type DomainStateName, domainStateOf } from './states.ts'
import { type ParameterValue, parametersObject, plain, textParameters, uuidText } from './values.ts'

export interface DomainInfo {
  state: DomainStateName
  maxMemoryKib: number
  memoryKib: number
  vcpus: number
  cpuTimeNs: number
}

export interface BlockInfo {
  capacityBytes: number
  allocationBytes: number
  physicalBytes: number
}

/** What the two ends of a migration have to tell each other; nobody else reads it. */
export type MigrationCookie = Uint8Array

/** What a source sends to. `uri`: of the memory, as `prepareMigration` answers it; `disksUri`: of the disks, where not beside it. */
export interface MigrationDestination {
  uri: string
  disksUri?: string
}

/** All KiB but faults and `lastUpdate` (Unix seconds); a guest without balloon driver reports only few of them. */
export type MemoryStats = { [Name in (typeof memoryTags)[number]]?: number }

const memoryTags = [
  'swapIn',
  'swapOut',
  'majorFault',
  'minorFault',
  'unused',
  'available',
  'actualBalloon',
  'rss',
  'usable',
  'lastUpdate',
  'diskCaches',
  'hugetlbPgalloc',
  'hugetlbPgfail',
] as const

/** A short text about the domain, its title, or an XML element of an application's own namespace. */
export type MetadataKind = 'description' | 'title' | 'element'

const metadataTypes: Record<MetadataKind, number> = { description: 0, title: 1, element: 2 }

export class Domain {
  readonly name: string
  readonly uuid: string
  #client: Client
  #wire: NonnullDomain

  constructor(client: Client, wire: NonnullDomain) {
    this.#client = client
    this.#wire = wire
    this.name = wire.name
    this.uuid = uuidText(wire.uuid)
  }

  /** The running domain's number when this object was made or last started, null when it did not run. */
  get id(): number | null {
    return this.#wire.id < 0 ? null : this.#wire.id
  }

  /** Starts a defined domain. */
  async create(flags: Flags<'domainCreate'> = {}, options?: CallOptions): Promise<void> {
    const word = flagWord('domainCreate', flags)
    const { dom } = await this.#client.call('domain_create_with_flags', { dom: this.#wire, flags: word }, options)
    this.#wire = dom
  }

  /** Asks the guest to power off. Success says only that it was asked: it may be deaf, or still booting. */
  async shutdown(flags: Flags<'domainShutdown'> = {}, options?: CallOptions): Promise<void> {
    const word = flagWord('domainShutdown', flags)
    await this.#client.call('domain_shutdown_flags', { dom: this.#wire, flags: word }, options)
  }

  /** Asks the guest to reboot, with the same caveat as `shutdown`. */
  async reboot(flags: Flags<'domainShutdown'> = {}, options?: CallOptions): Promise<void> {
    await this.#client.call('domain_reboot', { dom: this.#wire, flags: flagWord('domainShutdown', flags) }, options)
  }

  /** The reset button: at once and without the guest's consent. */
  async reset(options?: CallOptions): Promise<void> {
    await this.#client.call('domain_reset', { dom: this.#wire, flags: 0 }, options)
  }

  /** The power plug; `graceful` fails instead of sending SIGKILL to a QEMU that ignores SIGTERM. */
  async destroy(flags: Flags<'domainDestroy'> = {}, options?: CallOptions): Promise<void> {
    await this.#client.call(
      'domain_destroy_flags',
      { dom: this.#wire, flags: flagWord('domainDestroy', flags) },
      options,
    )
  }

  /** Forgets the definition. A running domain goes on as a transient one and vanishes when it stops. */
  async undefine(flags: Flags<'domainUndefine'> = {}, options?: CallOptions): Promise<void> {
    const word = flagWord('domainUndefine', flags)
    await this.#client.call('domain_undefine_flags', { dom: this.#wire, flags: word }, options)
  }

  async suspend(options?: CallOptions): Promise<void> {
    await this.#client.call('domain_suspend', { dom: this.#wire }, options)
  }

  async resume(options?: CallOptions): Promise<void> {
    await this.#client.call('domain_resume', { dom: this.#wire }, options)
  }

  async getState(options?: CallOptions): Promise<{ state: DomainStateName; reason: DomainReasonName }> {
    const { state, reason } = await this.#client.call('domain_get_state', { dom: this.#wire, flags: 0 }, options)
    return domainStateOf(state, reason)
  }

  async getInfo(options?: CallOptions): Promise<DomainInfo> {
    const info = await this.#client.call('domain_get_info', { dom: this.#wire }, options)
    return {
      state: domainStateOf(info.state, 0).state,
      maxMemoryKib: plain(info.maxMem),
      memoryKib: plain(info.memory),
      vcpus: info.nrVirtCpu,
      cpuTimeNs: plain(info.cpuTime),
    }
  }

  /** The running domain's XML, or with `inactive` the one of its next start. */
  async getXml(flags: Flags<'domainXml'> = {}, options?: CallOptions): Promise<string> {
    const word = flagWord('domainXml', flags)
    return (await this.#client.call('domain_get_xml_desc', { dom: this.#wire, flags: word }, options)).xml
  }

  /** Memory in KiB; with `maximum` the upper limit, which only the stored definition can change. */
  async setMemory(
    memoryKib: number,
    { affect, maximum = false }: { affect?: Affect; maximum?: boolean } = {},
    options?: CallOptions,
  ): Promise<void> {
    const flags = affectWord(affect) + (maximum ? 4 : 0)
    await this.#client.call('domain_set_memory_flags', { dom: this.#wire, memory: BigInt(memoryKib), flags }, options)
  }

  async setVcpus(
    count: number,
    { affect, maximum = false }: { affect?: Affect; maximum?: boolean } = {},
    options?: CallOptions,
  ): Promise<void> {
    const flags = affectWord(affect) + (maximum ? 4 : 0)
    await this.#client.call('domain_set_vcpus_flags', { dom: this.#wire, nvcpus: count, flags }, options)
  }

  async attachDevice(xml: string, affect?: Affect, options?: CallOptions): Promise<void> {
    const args = { dom: this.#wire, xml, flags: affectWord(affect) }
    await this.#client.call('domain_attach_device_flags', args, options)
  }

  async detachDevice(xml: string, affect?: Affect, options?: CallOptions): Promise<void> {
    const args = { dom: this.#wire, xml, flags: affectWord(affect) }
    await this.#client.call('domain_detach_device_flags', args, options)
  }

  async updateDevice(
    xml: string,
    { affect, ...flags }: { affect?: Affect } & Flags<'deviceModify'> = {},
    options?: CallOptions,
  ): Promise<void> {
    const args = { dom: this.#wire, xml, flags: affectWord(affect) + flagWord('deviceModify', flags) }
    await this.#client.call('domain_update_device_flags', args, options)
  }

  async createSnapshot(
    xml: string,
    flags: Flags<'snapshotCreate'> = {},
    options?: CallOptions,
  ): Promise<DomainSnapshot> {
    const args = { dom: this.#wire, xml_desc: xml, flags: flagWord('snapshotCreate', flags) }
    const { snap } = await this.#client.call('domain_snapshot_create_xml', args, options)
    return new DomainSnapshot(this.#client, snap)
  }

  async listSnapshots(flags: Flags<'snapshotList'> = {}, options?: CallOptions): Promise<DomainSnapshot[]> {
    const args = { dom: this.#wire, need_results: 1, flags: flagWord('snapshotList', flags) }
    const { snapshots } = await this.#client.call('domain_list_all_snapshots', args, options)
    return snapshots.map(snap => new DomainSnapshot(this.#client, snap))
  }

  async lookupSnapshot(name: string, options?: CallOptions): Promise<DomainSnapshot> {
    const args = { dom: this.#wire, name, flags: 0 }
    const { snap } = await this.#client.call('domain_snapshot_lookup_by_name', args, options)
    return new DomainSnapshot(this.#client, snap)
  }

  /** Grows a running domain's disk, named by target (`sda`) or path. */
  async blockResize(disk: string, sizeBytes: number, options?: CallOptions): Promise<void> {
    const inBytes = 1
    const args = { dom: this.#wire, disk, size: BigInt(sizeBytes), flags: inBytes }
    await this.#client.call('domain_block_resize', args, options)
  }

  async getBlockInfo(disk: string, options?: CallOptions): Promise<BlockInfo> {
    const info = await this.#client.call('domain_get_block_info', { dom: this.#wire, path: disk, flags: 0 }, options)
    return {
      capacityBytes: plain(info.capacity),
      allocationBytes: plain(info.allocation),
      physicalBytes: plain(info.physical),
    }
  }

  async memoryStats(options?: CallOptions): Promise<MemoryStats> {
    const args = { dom: this.#wire, maxStats: memoryTags.length, flags: 0 }
    const { stats } = await this.#client.call('domain_memory_stats', args, options)
    const known = stats.filter(({ tag }) => tag in memoryTags)
    return Object.fromEntries(known.map(({ tag, val }) => [memoryTags[tag], plain(val)]))
  }

  /** Rejects with NO_DOMAIN_METADATA when there is none. An element is asked for by its namespace's `uri`. */
  async getMetadata(
    kind: MetadataKind,
    { uri = null, affect }: { uri?: string | null; affect?: Affect } = {},
    options?: CallOptions,
  ): Promise<string> {
    const args = { dom: this.#wire, type: metadataTypes[kind], uri, flags: affectWord(affect) }
    return (await this.#client.call('domain_get_metadata', args, options)).metadata
  }

  /** Null removes it. An element needs its namespace's `uri` and the prefix `key` to write it with. */
  async setMetadata(
    kind: MetadataKind,
    metadata: string | null,
    { key = null, uri = null, affect }: { key?: string | null; uri?: string | null; affect?: Affect } = {},
    options?: CallOptions,
  ): Promise<void> {
    const args = { dom: this.#wire, type: metadataTypes[kind], metadata, key, uri, flags: affectWord(affect) }
    await this.#client.call('domain_set_metadata', args, options)
  }

  /**
   * A command of QEMU's guest agent, as JSON, and its answer: `{return: ...}`. Rejects with AGENT_UNRESPONSIVE where none is connected.
   * Only QEMU's domains have one. `waitS`: how long the guest may take.
   */
  async agentCommand(command: object, waitS: number, options?: CallOptions): Promise<unknown> {
    const args = { dom: this.#wire, cmd: JSON.stringify(command), timeout: waitS, flags: 0 }
    const { result } = await this.#client.call('domain_agent_command', args, options)
    return JSON.parse(result ?? 'null')
  }

  /** First phase of a migration, on the source. The answer is for `prepareMigration`; with `changeProtection` it lasts as long as this connection. */
  async beginMigration(
    flags: Flags<'migrate'>,
    options?: CallOptions,
  ): Promise<{ xml: string; cookie: MigrationCookie }> {
    const args = { dom: this.#wire, params: [], flags: flagWord('migrate', flags) }
    const { xml, cookie_out } = await this.#client.call('domain_migrate_begin3_params', args, options)
    return { xml, cookie: cookie_out }
  }

  /** Third phase, on the source: copies; the guest is paused in the end. May take hours. The answer is for `finishMigration`. */
  async performMigration(
    { uri, disksUri }: MigrationDestination,
    cookie: MigrationCookie,
    flags: Flags<'migrate'>,
    options?: CallOptions,
  ): Promise<MigrationCookie> {
    const params = textParameters({ destination_name: this.name, migrate_uri: uri, disks_uri: disksUri })
    const args = {
      dom: this.#wire,
      dconnuri: null,
      params,
      cookie_in: cookie,
      flags: flagWord('migrate', flags),
    }
    return (await this.#client.call('domain_migrate_perform3_params', args, options)).cookie_out
  }

  /** What it is at, as migrating or saving: `type` 0 is nothing. `completed`: what it was at last, asked once. Fields as libvirt calls them: `memory_total`, `disk_processed`... */
  async getJobStats(
    flags: Flags<'jobStats'> = {},
    options?: CallOptions,
  ): Promise<{ type: number; stats: Record<string, ParameterValue> }> {
    const args = { dom: this.#wire, flags: flagWord('jobStats', flags) }
    const { type, params } = await this.#client.call('domain_get_job_stats', args, options)
    return { type, stats: parametersObject(params) }
  }

  async abortJob(options?: CallOptions): Promise<void> {
    await this.#client.call('domain_abort_job', { dom: this.#wire }, options)
  }

  async isActive(options?: CallOptions): Promise<boolean> {
    return (await this.#client.call('domain_is_active', { dom: this.#wire }, options)).active !== 0
  }

  async isPersistent(options?: CallOptions): Promise<boolean> {
    return (await this.#client.call('domain_is_persistent', { dom: this.#wire }, options)).persistent !== 0
  }

  async getAutostart(options?: CallOptions): Promise<boolean> {
    return (await this.#client.call('domain_get_autostart', { dom: this.#wire }, options)).autostart !== 0
  }

  async setAutostart(autostart: boolean, options?: CallOptions): Promise<void> {
    const args = { dom: this.#wire, autostart: autostart ? 1 : 0 }
    await this.#client.call('domain_set_autostart', args, options)
  }
}
