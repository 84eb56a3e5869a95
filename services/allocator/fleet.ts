/**
 * What the allocator knows of the fleet: the records of servers, their last status events, and what it has promised since.
 * A status event's memory is up to a minute old, so a promise counts until the next ones have certainly come.
 */
import { key, parseInventoryKey } from '../nats/buckets.ts'
import type { NatsConnection } from '../nats/connect.ts'
import { openView } from '../nats/view.ts'
import type { Candidate } from './choose.ts'

export interface Fleet {
  /** Everything acknowledged before this call is in the answer. */
  candidates(): Promise<Candidate[]>
  promise(serverUuid: string, memoryMib: number): void
  close(): void
}

/** Counters that move all the time are stored at most once a minute (DESIGN §3). */
const PROMISE_MS = 90_000
const bytesPerMib = 2 ** 20

export async function openFleet(nc: NatsConnection, warn: (problem: string, error: unknown) => void): Promise<Fleet> {
  const [servers, inventory] = await Promise.all([
    openView({ nc, bucket: 'cn', project: (_, value) => projectServer(value), warn }),
    openView({ nc, bucket: 'inventory', project: projectFree, warn }),
  ])
  const promises = new Map<string, { memoryMib: number; until: number }[]>()
  const promisedMib = (uuid: string) => {
    const now = performance.now()
    const valid = (promises.get(uuid) ?? []).filter(({ until }) => until > now)
    if (valid.length > 0) promises.set(uuid, valid)
    else promises.delete(uuid)
    return valid.reduce((sum, { memoryMib }) => sum + memoryMib, 0)
  }
  return {
    candidates: async () => {
      await Promise.all([servers.barrier(), inventory.barrier()])
      return [...servers.entries()].map(([uuid, server]) => {
        // A server that has just registered for the first time has nothing running yet that Muster should count.
        const free = inventory.get(key.status(uuid)) ?? inventory.get(key.sysinfo(uuid))
        return { uuid, ...server, freeMib: free === undefined ? undefined : free - promisedMib(uuid) }
      })
    },
    promise: (uuid, memoryMib) => {
      const until = performance.now() + PROMISE_MS
      promises.set(uuid, [...(promises.get(uuid) ?? []), { memoryMib, until }])
    },
    close: () => {
      servers.close()
      inventory.close()
    },
  }
}

function projectServer(value: unknown): { status: string; setup: boolean } | undefined {
  const { status, snapshot } = value as { status?: string; snapshot?: { context?: { setup?: boolean } } }
  if (!snapshot?.context || status === 'unregistered') return undefined
  return { status: status ?? 'unknown', setup: snapshot.context.setup === true }
}

/** MiB: what a status event says is free; of a sysinfo, all that the server has. */
function projectFree(name: string, value: unknown): number | undefined {
  if (parseInventoryKey(name)?.part === 'sysinfo') {
    const mib = Number((value as { 'MiB of Memory'?: unknown })['MiB of Memory'] ?? Number.NaN)
    return Number.isFinite(mib) ? mib : undefined
  }
  const free = (value as { meminfo?: { availrmem_bytes?: number } }).meminfo?.availrmem_bytes
  return free === undefined ? undefined : Math.floor(free / bytesPerMib)
}
