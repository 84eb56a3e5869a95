/** A domain's snapshot. */
import type { CallOptions, Client } from './client.ts'
import { type Flags, flagWord } from './flags.ts'
import type { NonnullDomainSnapshot } from './protocol-types.ts'
import { uuidText } from './values.ts'

export class DomainSnapshot {
  readonly name: string
  readonly domainUuid: string
  #client: Client
  #wire: NonnullDomainSnapshot

  constructor(client: Client, wire: NonnullDomainSnapshot) {
    this.#client = client
    this.#wire = wire
    this.name = wire.name
    this.domainUuid = uuidText(wire.dom.uuid)
  }

  /** With `secure` it holds what is secret in the domain's definition. */
  async getXml({ secure = false }: { secure?: boolean } = {}, options?: CallOptions): Promise<string> {
    const args = { snap: this.#wire, flags: secure ? 1 : 0 }
    return (await this.#client.call('domain_snapshot_get_xml_desc', args, options)).xml
  }

  /** Whether the domain comes from this one. */
  async isCurrent(options?: CallOptions): Promise<boolean> {
    return (
      (await this.#client.call('domain_snapshot_is_current', { snap: this.#wire, flags: 0 }, options)).current !== 0
    )
  }

  /** Brings the domain back to this snapshot, in the state it had then unless `running` or `paused` says otherwise. */
  async revert(flags: Flags<'snapshotRevert'> = {}, options?: CallOptions): Promise<void> {
    const args = { snap: this.#wire, flags: flagWord('snapshotRevert', flags) }
    await this.#client.call('domain_revert_to_snapshot', args, options)
  }

  async delete(flags: Flags<'snapshotDelete'> = {}, options?: CallOptions): Promise<void> {
    const args = { snap: this.#wire, flags: flagWord('snapshotDelete', flags) }
    await this.#client.call('domain_snapshot_delete', args, options)
  }
}
