/** Storage pools and the volumes in them. */
import type { CallOptions, Client } from './client.ts'
import { type Flags, flagWord } from './flags.ts'
import type { NonnullStoragePool, NonnullStorageVol } from './protocol-types.ts'
import { type PoolStateName, poolStateOf, type VolumeTypeName, volumeTypeOf } from './states.ts'
import { plain, uuidText } from './values.ts'

export interface StoragePoolInfo {
  state: PoolStateName
  capacityBytes: number
  allocationBytes: number
  /** For directories this counts blocks reserved for root too (statfs' f_bfree), so less can be used. */
  availableBytes: number
}

export interface StorageVolumeInfo {
  type: VolumeTypeName
  capacityBytes: number
  allocationBytes: number
}

/** How to overwrite a volume before it goes to somebody else. */
export type WipeAlgorithm = (typeof wipeAlgorithms)[number]

const wipeAlgorithms = [
  'zero',
  'nnsa',
  'dod',
  'bsi',
  'gutmann',
  'schneier',
  'pfitzner7',
  'pfitzner33',
  'random',
  'trim',
] as const

export class StoragePool {
  readonly name: string
  readonly uuid: string
  #client: Client
  #wire: NonnullStoragePool

  constructor(client: Client, wire: NonnullStoragePool) {
    this.#client = client
    this.#wire = wire
    this.name = wire.name
    this.uuid = uuidText(wire.uuid)
  }

  /** Starts a defined pool. */
  async create(flags: Flags<'poolCreate'> = {}, options?: CallOptions): Promise<void> {
    const word = flagWord('poolCreate', flags)
    await this.#client.call('storage_pool_create', { pool: this.#wire, flags: word }, options)
  }

  /** Makes what the pool stands on, for instance its directory. */
  async build(flags: Flags<'poolBuild'> = {}, options?: CallOptions): Promise<void> {
    const word = flagWord('poolBuild', flags)
    await this.#client.call('storage_pool_build', { pool: this.#wire, flags: word }, options)
  }

  /** Stops it; nothing stored is lost. */
  async destroy(options?: CallOptions): Promise<void> {
    await this.#client.call('storage_pool_destroy', { pool: this.#wire }, options)
  }

  async undefine(options?: CallOptions): Promise<void> {
    await this.#client.call('storage_pool_undefine', { pool: this.#wire }, options)
  }

  /** Looks for volumes that came or went without libvirt. */
  async refresh(options?: CallOptions): Promise<void> {
    await this.#client.call('storage_pool_refresh', { pool: this.#wire, flags: 0 }, options)
  }

  async getInfo(options?: CallOptions): Promise<StoragePoolInfo> {
    const info = await this.#client.call('storage_pool_get_info', { pool: this.#wire }, options)
    return {
      state: poolStateOf(info.state),
      capacityBytes: plain(info.capacity),
      allocationBytes: plain(info.allocation),
      availableBytes: plain(info.available),
    }
  }

  async getXml(flags: Flags<'poolXml'> = {}, options?: CallOptions): Promise<string> {
    const word = flagWord('poolXml', flags)
    return (await this.#client.call('storage_pool_get_xml_desc', { pool: this.#wire, flags: word }, options)).xml
  }

  async isActive(options?: CallOptions): Promise<boolean> {
    return (await this.#client.call('storage_pool_is_active', { pool: this.#wire }, options)).active !== 0
  }

  async isPersistent(options?: CallOptions): Promise<boolean> {
    return (await this.#client.call('storage_pool_is_persistent', { pool: this.#wire }, options)).persistent !== 0
  }

  async getAutostart(options?: CallOptions): Promise<boolean> {
    return (await this.#client.call('storage_pool_get_autostart', { pool: this.#wire }, options)).autostart !== 0
  }

  async setAutostart(autostart: boolean, options?: CallOptions): Promise<void> {
    const args = { pool: this.#wire, autostart: autostart ? 1 : 0 }
    await this.#client.call('storage_pool_set_autostart', args, options)
  }

  async listVolumes(options?: CallOptions): Promise<StorageVolume[]> {
    const args = { pool: this.#wire, need_results: 1, flags: 0 }
    const { vols } = await this.#client.call('storage_pool_list_all_volumes', args, options)
    return vols.map(vol => new StorageVolume(this.#client, vol))
  }

  async lookupVolume(name: string, options?: CallOptions): Promise<StorageVolume> {
    const { vol } = await this.#client.call('storage_vol_lookup_by_name', { pool: this.#wire, name }, options)
    return new StorageVolume(this.#client, vol)
  }

  async createVolume(xml: string, flags: Flags<'volumeCreate'> = {}, options?: CallOptions): Promise<StorageVolume> {
    const args = { pool: this.#wire, xml, flags: flagWord('volumeCreate', flags) }
    const { vol } = await this.#client.call('storage_vol_create_xml', args, options)
    return new StorageVolume(this.#client, vol)
  }

  /** A new volume with the content of `source`, in the format that `xml` asks for. */
  async cloneVolume(
    xml: string,
    source: StorageVolume,
    flags: Flags<'volumeCreate'> = {},
    options?: CallOptions,
  ): Promise<StorageVolume> {
    const args = { pool: this.#wire, xml, clonevol: source.wire, flags: flagWord('volumeCreate', flags) }
    const { vol } = await this.#client.call('storage_vol_create_xml_from', args, options)
    return new StorageVolume(this.#client, vol)
  }
}

export class StorageVolume {
  readonly pool: string
  readonly name: string
  /** libvirt's identity of it; for files the path. */
  readonly key: string
  /** As the protocol names it, for raw calls. */
  readonly wire: NonnullStorageVol
  #client: Client

  constructor(client: Client, wire: NonnullStorageVol) {
    this.#client = client
    this.wire = wire
    this.pool = wire.pool
    this.name = wire.name
    this.key = wire.key
  }

  /** Deletes it, even when other volumes stand on it. */
  async delete(flags: Flags<'volumeDelete'> = {}, options?: CallOptions): Promise<void> {
    await this.#client.call('storage_vol_delete', { vol: this.wire, flags: flagWord('volumeDelete', flags) }, options)
  }

  async resize(capacityBytes: number, flags: Flags<'volumeResize'> = {}, options?: CallOptions): Promise<void> {
    const args = { vol: this.wire, capacity: BigInt(capacityBytes), flags: flagWord('volumeResize', flags) }
    await this.#client.call('storage_vol_resize', args, options)
  }

  /** Writes these bytes over the volume from its beginning: the file itself, whatever format it is in. */
  async upload(pieces: AsyncIterable<Uint8Array>, options?: CallOptions): Promise<void> {
    const args = { vol: this.wire, offset: 0n, length: 0n, flags: 0 }
    await this.#client.upload('storage_vol_upload', args, pieces, options)
  }

  /**
   * The bytes of the volume's file from its beginning, at most `bytes` of them. While they are not read the connection waits: use one of
   * its own.
   */
  download(options: CallOptions & { bytes?: number } = {}): AsyncIterable<Uint8Array> {
    const args = { vol: this.wire, offset: 0n, length: BigInt(options.bytes ?? 0), flags: 0 }
    return this.#client.download('storage_vol_download', args, options)
  }

  async wipe(algorithm: WipeAlgorithm = 'zero', options?: CallOptions): Promise<void> {
    const args = { vol: this.wire, algorithm: wipeAlgorithms.indexOf(algorithm), flags: 0 }
    await this.#client.call('storage_vol_wipe_pattern', args, options)
  }

  async getInfo(options?: CallOptions): Promise<StorageVolumeInfo> {
    const info = await this.#client.call('storage_vol_get_info', { vol: this.wire }, options)
    return {
      type: volumeTypeOf(info.type),
      capacityBytes: plain(info.capacity),
      allocationBytes: plain(info.allocation),
    }
  }

  async getPath(options?: CallOptions): Promise<string> {
    return (await this.#client.call('storage_vol_get_path', { vol: this.wire }, options)).name
  }

  async getXml(options?: CallOptions): Promise<string> {
    return (await this.#client.call('storage_vol_get_xml_desc', { vol: this.wire, flags: 0 }, options)).xml
  }
}
