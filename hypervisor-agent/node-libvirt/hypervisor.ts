/**
 * A connection to one hypervisor: its domains, networks and storage pools, what the machine has, and what happens.
 * Raw procedures beyond the object model go through `call`.
 */
import { EventEmitter } from 'node:events'
import { type CallOptions, Client, type ConnectOptions } from './client.ts'
import { Domain, type MigrationCookie } from './domain.ts'
import { type EventKind, type HypervisorEvents, subscriptions } from './events.ts'
import { type Flags, flagWord } from './flags.ts'
import type { Load } from './link.ts'
import { Network } from './network.ts'
import type { Procedures } from './protocol-types.ts'
import { StoragePool } from './storage.ts'
import { type ParameterValue, parametersObject, plain, textParameters, uuidBytes, uuidText } from './values.ts'

/** libvirt's idea of the processors. Its memory sum was seen wrong on machines with NUMA nodes: see `getMemoryStats`. */
export interface NodeInfo {
  model: string
  memoryKib: number
  cpus: number
  mhz: number
  nodes: number
  sockets: number
  cores: number
  threads: number
}

/** In KiB. */
export interface NodeMemory {
  total: number
  free: number
  buffers: number
  cached: number
}

export interface DomainStats {
  name: string
  uuid: string
  /** As libvirt calls them: `state.state`, `cpu.time`, `balloon.current`, `block.0.name`... */
  stats: Record<string, ParameterValue>
}

export interface StatsOptions {
  stats?: Flags<'stats'>
  filter?: Flags<'statsFilter'>
  /** These domains; all when left out. */
  domains?: Domain[]
}

export class Hypervisor extends EventEmitter<HypervisorEvents> {
  #client: Client
  #subscribed = new Map<EventKind, Promise<void>>()

  /** Connects; rejects with ConnectionError (no socket) or LibvirtError (not allowed, no such driver). */
  static async connect(options: ConnectOptions = {}): Promise<Hypervisor> {
    return new Hypervisor(await Client.connect(options))
  }

  private constructor(client: Client) {
    super()
    this.#client = client
    client.on('disconnect', error => this.emit('disconnect', error))
    client.on('reconnect', () => this.emit('reconnect'))
    client.on('close', error => this.emit('close', error))
  }

  /** Whether calls can be made now. */
  get connected(): boolean {
    return this.#client.connected
  }

  /** How busy this connection is: what a caller with several of them chooses by. */
  get load(): Load {
    return this.#client.load
  }

  /** Says goodbye; open calls are rejected. Domains that other clients started are not touched. */
  close(): Promise<void> {
    return this.#client.close()
  }

  /** Any procedure of the protocol, with the names and types of the wire. */
  call<Name extends keyof Procedures>(
    procedure: Name,
    args: Procedures[Name]['args'],
    options?: CallOptions,
  ): Promise<Procedures[Name]['ret']> {
    return this.#client.call(procedure, args, options)
  }

  /** Starts events of these kinds, once each; they are registered again after every reconnect. */
  async subscribe(...kinds: EventKind[]): Promise<void> {
    await Promise.all(kinds.map(kind => this.#subscribe(kind)))
  }

  /** Resolves when the server answers; rejects otherwise. */
  async ping(options?: CallOptions): Promise<void> {
    await this.#client.call('connect_get_lib_version', undefined, options)
  }

  /** The hypervisor's version, as in `7.2.22`. */
  async getVersion(options?: CallOptions): Promise<string> {
    return versionText((await this.#client.call('connect_get_version', undefined, options)).hv_ver)
  }

  /** libvirt's version, as in `9.0.0`. */
  async getLibVersion(options?: CallOptions): Promise<string> {
    return versionText((await this.#client.call('connect_get_lib_version', undefined, options)).lib_ver)
  }

  /** The driver's name, `QEMU` or `TEST`. */
  async getType(options?: CallOptions): Promise<string> {
    return (await this.#client.call('connect_get_type', undefined, options)).type
  }

  async getHostname(options?: CallOptions): Promise<string> {
    return (await this.#client.call('connect_get_hostname', undefined, options)).hostname
  }

  async getUri(options?: CallOptions): Promise<string> {
    return (await this.#client.call('connect_get_uri', undefined, options)).uri
  }

  /** XML: the host and what guests it can run. */
  async getCapabilities(options?: CallOptions): Promise<string> {
    return (await this.#client.call('connect_get_capabilities', undefined, options)).capabilities
  }

  async getNodeInfo(options?: CallOptions): Promise<NodeInfo> {
    const { model, memory, ...counts } = await this.#client.call('node_get_info', undefined, options)
    // A C array of char: bytes up to the first NUL.
    const end = model.indexOf(0)
    const text = Buffer.from(end < 0 ? model : model.slice(0, end)).toString('utf8')
    return { model: text, memoryKib: plain(memory), ...counts }
  }

  async getMemoryStats(options?: CallOptions): Promise<NodeMemory> {
    const allCells = -1
    const args = { nparams: 4, cellNum: allCells, flags: 0 }
    const { params } = await this.#client.call('node_get_memory_stats', args, options)
    const named = new Map(params.map(({ field, value }) => [field, plain(value)]))
    const kib = (field: keyof NodeMemory) => named.get(field) ?? 0
    return { total: kib('total'), free: kib('free'), buffers: kib('buffers'), cached: kib('cached') }
  }

  /** Statistics of many domains in one call. `filter: {nowait: true}` skips what would wait for a hung guest. */
  async getAllDomainStats(
    { stats = {}, filter = {}, domains = [] }: StatsOptions = {},
    options?: CallOptions,
  ): Promise<DomainStats[]> {
    const args = {
      doms: domains.map(({ name, uuid }) => ({ name, uuid: uuidBytes(uuid), id: -1 })),
      stats: flagWord('stats', stats),
      flags: flagWord('statsFilter', filter),
    }
    const { retStats } = await this.#client.call('connect_get_all_domain_stats', args, options)
    return retStats.map(({ dom, params }) => ({
      name: dom.name,
      uuid: uuidText(dom.uuid),
      stats: parametersObject(params),
    }))
  }

  /** Stores a domain's definition, or replaces the one of the same name and UUID. */
  async defineDomain(xml: string, flags: Flags<'domainDefine'> = {}, options?: CallOptions): Promise<Domain> {
    const args = { xml, flags: flagWord('domainDefine', flags) }
    return this.#domain((await this.#client.call('domain_define_xml_flags', args, options)).dom)
  }

  /** Starts a domain without storing it: it vanishes when it stops. */
  async createDomain(xml: string, flags: Flags<'domainCreate'> = {}, options?: CallOptions): Promise<Domain> {
    const args = { xml_desc: xml, flags: flagWord('domainCreate', flags) }
    return this.#domain((await this.#client.call('domain_create_xml', args, options)).dom)
  }

  /**
   * Second phase of a migration, on the target, with what `beginMigration` answered: a paused domain that waits for its memory and disks.
   * It is gone with this connection unless it is finished. `uri`: where it listens, with the port it chose.
   */
  async prepareMigration(
    { name, xml, uri, listenAddress }: { name: string; xml: string; uri: string; listenAddress?: string },
    cookie: MigrationCookie,
    flags: Flags<'migrate'>,
    options?: CallOptions,
  ): Promise<{ uri: string; cookie: MigrationCookie }> {
    const params = textParameters({
      destination_name: name,
      destination_xml: xml,
      migrate_uri: uri,
      listen_address: listenAddress,
    })
    const args = { params, cookie_in: cookie, flags: flagWord('migrate', flags) }
    const { uri_out, cookie_out } = await this.#client.call('domain_migrate_prepare3_params', args, options)
    return { uri: uri_out ?? uri, cookie: cookie_out }
  }

  /** Fourth phase, on the target, with what `performMigration` answered: the domain runs, or with `cancelled` is gone. */
  async finishMigration(
    name: string,
    cookie: MigrationCookie,
    { cancelled = false, ...flags }: Flags<'migrate'> & { cancelled?: boolean },
    options?: CallOptions,
  ): Promise<Domain> {
    const params = textParameters({ destination_name: name })
    const args = {
      params,
      cookie_in: cookie,
      flags: flagWord('migrate', flags),
      cancelled: cancelled ? 1 : 0,
    }
    return this.#domain((await this.#client.call('domain_migrate_finish3_params', args, options)).dom)
  }

  /** Rejects with NO_DOMAIN. */
  async lookupDomainByName(name: string, options?: CallOptions): Promise<Domain> {
    return this.#domain((await this.#client.call('domain_lookup_by_name', { name }, options)).dom)
  }

  /** Rejects with NO_DOMAIN. */
  async lookupDomainByUuid(uuid: string, options?: CallOptions): Promise<Domain> {
    return this.#domain((await this.#client.call('domain_lookup_by_uuid', { uuid: uuidBytes(uuid) }, options)).dom)
  }

  /** Rejects with NO_DOMAIN. */
  async lookupDomainById(id: number, options?: CallOptions): Promise<Domain> {
    return this.#domain((await this.#client.call('domain_lookup_by_id', { id }, options)).dom)
  }

  async listDomains(flags: Flags<'domainList'> = {}, options?: CallOptions): Promise<Domain[]> {
    const args = { need_results: 1, flags: flagWord('domainList', flags) }
    const { domains } = await this.#client.call('connect_list_all_domains', args, options)
    return domains.map(dom => this.#domain(dom))
  }

  async defineNetwork(xml: string, flags: Flags<'networkDefine'> = {}, options?: CallOptions): Promise<Network> {
    const validate = flagWord('networkDefine', flags)
    const { net } = validate
      ? await this.#client.call('network_define_xml_flags', { xml, flags: validate }, options)
      : await this.#client.call('network_define_xml', { xml }, options)
    return new Network(this.#client, net)
  }

  /** Starts a network without storing it. */
  async createNetwork(xml: string, options?: CallOptions): Promise<Network> {
    return new Network(this.#client, (await this.#client.call('network_create_xml', { xml }, options)).net)
  }

  /** Rejects with NO_NETWORK. */
  async lookupNetworkByName(name: string, options?: CallOptions): Promise<Network> {
    return new Network(this.#client, (await this.#client.call('network_lookup_by_name', { name }, options)).net)
  }

  /** Rejects with NO_NETWORK. */
  async lookupNetworkByUuid(uuid: string, options?: CallOptions): Promise<Network> {
    const args = { uuid: uuidBytes(uuid) }
    return new Network(this.#client, (await this.#client.call('network_lookup_by_uuid', args, options)).net)
  }

  async listNetworks(flags: Flags<'networkList'> = {}, options?: CallOptions): Promise<Network[]> {
    const args = { need_results: 1, flags: flagWord('networkList', flags) }
    const { nets } = await this.#client.call('connect_list_all_networks', args, options)
    return nets.map(net => new Network(this.#client, net))
  }

  async defineStoragePool(xml: string, options?: CallOptions): Promise<StoragePool> {
    const { pool } = await this.#client.call('storage_pool_define_xml', { xml, flags: 0 }, options)
    return new StoragePool(this.#client, pool)
  }

  /** Starts a pool without storing it. */
  async createStoragePool(xml: string, flags: Flags<'poolCreate'> = {}, options?: CallOptions): Promise<StoragePool> {
    const args = { xml, flags: flagWord('poolCreate', flags) }
    return new StoragePool(this.#client, (await this.#client.call('storage_pool_create_xml', args, options)).pool)
  }

  /** Rejects with NO_STORAGE_POOL. */
  async lookupStoragePoolByName(name: string, options?: CallOptions): Promise<StoragePool> {
    const { pool } = await this.#client.call('storage_pool_lookup_by_name', { name }, options)
    return new StoragePool(this.#client, pool)
  }

  /** Rejects with NO_STORAGE_POOL. */
  async lookupStoragePoolByUuid(uuid: string, options?: CallOptions): Promise<StoragePool> {
    const { pool } = await this.#client.call('storage_pool_lookup_by_uuid', { uuid: uuidBytes(uuid) }, options)
    return new StoragePool(this.#client, pool)
  }

  async listStoragePools(flags: Flags<'poolList'> = {}, options?: CallOptions): Promise<StoragePool[]> {
    const args = { need_results: 1, flags: flagWord('poolList', flags) }
    const { pools } = await this.#client.call('connect_list_all_storage_pools', args, options)
    return pools.map(pool => new StoragePool(this.#client, pool))
  }

  #domain(wire: ConstructorParameters<typeof Domain>[1]): Domain {
    return new Domain(this.#client, wire)
  }

  #subscribe(kind: EventKind): Promise<void> {
    const begun = this.#subscribed.get(kind)
    if (begun !== undefined) return begun
    const { register, message, read } = subscriptions[kind]
    // Listening starts before the registration is answered: the first event may be in the same packet.
    const listen = (name: string, payload: unknown) => {
      if (name === message) this.emit(kind, read(payload) as never)
    }
    this.#client.on('event', listen)
    const registered = register(this.#client).catch(error => {
      this.#client.off('event', listen)
      this.#subscribed.delete(kind)
      throw error
    })
    this.#subscribed.set(kind, registered)
    return registered
  }
}

/** libvirt packs versions as major * 1,000,000 + minor * 1,000 + release. */
function versionText(version: bigint): string {
  const number = plain(version)
  return `${Math.floor(number / 1_000_000)}.${Math.floor(number / 1_000) % 1_000}.${number % 1_000}`
}
