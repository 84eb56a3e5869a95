/** A virtual network: a bridge that domains plug into. */
import type { CallOptions, Client } from './client.ts'
import { type Flags, flagWord } from './flags.ts'
import type { NonnullNetwork } from './protocol-types.ts'
import { uuidText } from './values.ts'

export class Network {
  readonly name: string
  readonly uuid: string
  #client: Client
  #wire: NonnullNetwork

  constructor(client: Client, wire: NonnullNetwork) {
    this.#client = client
    this.#wire = wire
    this.name = wire.name
    this.uuid = uuidText(wire.uuid)
  }

  /** Starts a defined network. libvirt does not check that its bridge exists. */
  async create(options?: CallOptions): Promise<void> {
    await this.#client.call('network_create', { net: this.#wire }, options)
  }

  /** Stops it; domains that use it keep running. */
  async destroy(options?: CallOptions): Promise<void> {
    await this.#client.call('network_destroy', { net: this.#wire }, options)
  }

  /** Forgets it, also while domains use it: those cannot start again. */
  async undefine(options?: CallOptions): Promise<void> {
    await this.#client.call('network_undefine', { net: this.#wire }, options)
  }

  async getXml(flags: Flags<'networkXml'> = {}, options?: CallOptions): Promise<string> {
    const word = flagWord('networkXml', flags)
    return (await this.#client.call('network_get_xml_desc', { net: this.#wire, flags: word }, options)).xml
  }

  /** The bridge's name; rejects for networks without one. */
  async getBridge(options?: CallOptions): Promise<string> {
    return (await this.#client.call('network_get_bridge_name', { net: this.#wire }, options)).name
  }

  async isActive(options?: CallOptions): Promise<boolean> {
    return (await this.#client.call('network_is_active', { net: this.#wire }, options)).active !== 0
  }

  async isPersistent(options?: CallOptions): Promise<boolean> {
    return (await this.#client.call('network_is_persistent', { net: this.#wire }, options)).persistent !== 0
  }

  async getAutostart(options?: CallOptions): Promise<boolean> {
    return (await this.#client.call('network_get_autostart', { net: this.#wire }, options)).autostart !== 0
  }

  async setAutostart(autostart: boolean, options?: CallOptions): Promise<void> {
    const args = { net: this.#wire, autostart: autostart ? 1 : 0 }
    await this.#client.call('network_set_autostart', args, options)
  }
}
