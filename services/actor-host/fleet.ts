/** What the owner of a node must know of all records, kept from their headers: nodes with their state, VMs and hostnames by node. */
import { NO_SERVER } from '../../actors/contract/server.ts'
import type { Told } from '../runtime/pending-index.ts'

/** A record that belongs to a server. */
export interface Placed {
  state: string
  /** When it was stored last, ms by the NATS server's clock. */
  changedAt: number
}

export interface Fleet {
  told(told: Told): void
  servers(): Iterable<[uuid: string, state: string]>
  stateOf(serverUuid: string): string | undefined
  /** Servers of which there is only the mark of their deletion. */
  deleted(): ReadonlySet<string>
  vmsOf(serverUuid: string): ReadonlyMap<string, Placed>
  hostsOf(serverUuid: string): ReadonlyMap<string, Placed>
  vm(vmUuid: string): Placed | undefined
}

export function createFleet(): Fleet {
  const servers = new Map<string, string>()
  const deleted = new Set<string>()
  const vms = createPlaces()
  const hosts = createPlaces()

  return {
    told: told => {
      const { kind, id, gone, state } = told
      if (kind === 'vm') vms.told(told)
      if (kind === 'host') hosts.told(told)
      if (kind !== 'cn') return
      if (gone || NO_SERVER.includes(state)) servers.delete(id)
      else servers.set(id, state)
      if (!gone && state === 'deleted') deleted.add(id)
      else deleted.delete(id)
    },
    servers: () => servers,
    stateOf: serverUuid => servers.get(serverUuid),
    deleted: () => deleted,
    vmsOf: vms.of,
    hostsOf: hosts.of,
    vm: vms.get,
  }
}

/** Records of one kind by the server that they belong to. */
function createPlaces() {
  const byServer = new Map<string, Map<string, Placed>>()
  const serverOf = new Map<string, string>()

  const remove = (id: string) => {
    const before = serverOf.get(id)
    if (before === undefined) return
    const there = byServer.get(before)
    there?.delete(id)
    if (there?.size === 0) byServer.delete(before)
    serverOf.delete(id)
  }

  return {
    told: ({ id, gone, at, server, state }: Told) => {
      if (gone || server !== serverOf.get(id)) remove(id)
      if (gone || !server) return
      const there = byServer.get(server) ?? new Map<string, Placed>()
      there.set(id, { state, changedAt: at })
      byServer.set(server, there)
      serverOf.set(id, server)
    },
    of: (serverUuid: string): ReadonlyMap<string, Placed> => byServer.get(serverUuid) ?? none,
    get: (id: string): Placed | undefined => byServer.get(serverOf.get(id) ?? '')?.get(id),
  }
}

const none: ReadonlyMap<string, Placed> = new Map()
