/**
 * Sends commands to counters as several senders, each command again until it is acknowledged, and counts. The check: a counter's
 * total equals the number of its acknowledged commands, so one lost or one doubled shows.
 */
import type { Reply } from '../../actors/contract/record.ts'
import { createCaller } from '../../services/nats/caller.ts'
import { connectNats, type NatsConnection, serversOf } from '../../services/nats/connect.ts'
import { openRecords } from '../../services/nats/records.ts'

export interface Load {
  stop(): Promise<void>
  figures(): Figures
  /** Gives up at once. */
  close(): Promise<void>
  /** Compares every counter (and ledger) with what was acknowledged. */
  check(): Promise<{ lost: number; doubled: number }>
}

export interface Figures {
  acknowledged: number
  maxMs: number
  p50Ms: number
  p99Ms: number
}

export type AnyCall = (
  kind: string,
  id: string,
  verb: string,
  params: unknown,
  options?: { deadlineMs?: number },
) => Promise<Reply>

/** A connection that delivers every request twice, the copy without an address for its answer. */
function doubling(nc: NatsConnection): NatsConnection {
  const double: Pick<NatsConnection, 'publish'> = {
    publish: (subject, payload, options) => {
      if (options?.reply) nc.publish(subject, payload)
      nc.publish(subject, payload, options)
    },
  }
  return Object.setPrototypeOf(double, nc) as NatsConnection
}

/** `caller.call` for kinds that are not in VERBS. */
export const callerOf = (nc: NatsConnection, sender: string) => createCaller(nc, sender).call as unknown as AnyCall

export async function startLoad(
  natsUrl: string,
  { actors = 50, inFlight = 16, twice = false, name = 'load' } = {},
): Promise<Load> {
  const nc = await connectNats({ servers: serversOf(natsUrl), name, inboxOwner: 'gateway' })
  const call = callerOf(twice ? doubling(nc) : nc, `${name}-${process.pid}-${Date.now()}`)
  const added = new Map<string, number>()
  const noted = new Map<string, number>()
  const times: number[] = []
  let running = true
  const count = (map: Map<string, number>, id: string) => map.set(id, (map.get(id) ?? 0) + 1)

  const worker = async (number: number) => {
    for (let turn = number; running; turn += inFlight) {
      const id = `${name}-counter-${turn % actors}`
      const to = `${name}-ledger-${turn % 7}`
      const begun = performance.now()
      const transfer = turn % 5 === 0
      // A deadline far beyond every fault: within it the same command is sent again and again.
      const reply = await (transfer
        ? call('vm', id, 'transfer', { to, n: 1 }, { deadlineMs: 60_000 })
        : call('vm', id, 'add', { n: 1 }, { deadlineMs: 60_000 }))
      if ('error' in reply) throw new Error(`${id}: ${JSON.stringify(reply)}`)
      times.push(performance.now() - begun)
      count(added, id)
      if (transfer) count(noted, to)
    }
  }
  const workers = Promise.all(Array.from({ length: inFlight }, (_, number) => worker(number)))
  workers.catch(() => {})

  return {
    stop: async () => {
      running = false
      await workers
    },
    close: async () => {
      running = false
      await nc.close()
    },
    figures: () => {
      const sorted = [...times].sort((a, b) => a - b)
      const at = (share: number) => Math.round(sorted[Math.floor((sorted.length - 1) * share)] ?? 0)
      return { acknowledged: times.length, maxMs: at(1), p50Ms: at(0.5), p99Ms: at(0.99) }
    },
    check: async () => {
      const records = openRecords(nc)
      let [lost, doubled] = [0, 0]
      const compare = async (kind: 'vm' | 'cn', expected: Map<string, number>) => {
        for (const [id, wanted] of expected) {
          const record = (await records.get(kind, id))?.value as { snapshot: { context: { total: number } } }
          const total = record?.snapshot.context.total ?? 0
          lost += Math.max(0, wanted - total)
          doubled += Math.max(0, total - wanted)
        }
      }
      await compare('vm', added)
      await compare('cn', noted)
      await nc.close()
      return { lost, doubled }
    },
  }
}
