/** What the owner of a node must know of all records, kept from their headers: nodes with their state, VMs by node. */
import { NO_SERVER } from '../../actors/contract/server.ts'
import type { Told } from '../runtime/pending-index.ts'

export interface PlacedVm {
  state: string
  /** When its record was stored last, ms by the server's clock. */
  changedAt: number
}

export interface Fleet {
  told(told: Told): void
  servers(): Iterable<[uuid: string, state: string]>
  stateOf(serverUuid: string): string | undefined
  vmsOf(serverUuid: string): ReadonlyMap<string, PlacedVm>
  vm(vmUuid: string): PlacedVm | undefined
}

export function createFleet(): Fleet {
  const servers = new Map<string, string>()
  const byServer = new Map<string, Map<string, PlacedVm>>()
  const serverOf = new Map<string, string>()

  const remove = (vmUuid: string) => {
    const before = serverOf.get(vmUuid)
    if (before === undefined) return
    const vms = byServer.get(before)
    vms?.delete(vmUuid)
    if (vms?.size === 0) byServer.delete(before)
    serverOf.delete(vmUuid)
  }

  return {
    told: ({ kind, id, gone, at, server, state }) => {
      if (kind === 'cn') {
        if (gone || NO_SERVER.includes(state)) servers.delete(id)
        else servers.set(id, state)
      } else if (kind === 'vm') {
        if (gone || server !== serverOf.get(id)) remove(id)
        if (gone || !server) return
        const vms = byServer.get(server) ?? new Map<string, PlacedVm>()
        vms.set(id, { state, changedAt: at })
        byServer.set(server, vms)
        serverOf.set(id, server)
      }
    },
    servers: () => servers,
    stateOf: serverUuid => servers.get(serverUuid),
    vmsOf: serverUuid => byServer.get(serverUuid) ?? none,
    vm: vmUuid => byServer.get(serverOf.get(vmUuid) ?? '')?.get(vmUuid),
  }
}

const none: ReadonlyMap<string, PlacedVm> = new Map()
