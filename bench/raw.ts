/** The limit that commands are held against: compare-and-set writes into an actor bucket and nothing else. */
import type { NatsConnection } from '../services/nats/connect.ts'
import { publish } from '../services/nats/records.ts'
import { hammer, type Rate } from './hammer.ts'

export interface RawLoad {
  /** First part of the keys: each run writes keys of its own. */
  prefix: string
  keys: number
  bytes: number
  inFlight: number
  forMs: number
}

/** Each lane writes keys of its own in turn, so no write ever conflicts. */
export async function rawCompareAndSet(
  nc: NatsConnection,
  { prefix, keys, bytes, inFlight, forMs }: RawLoad,
): Promise<Rate> {
  const body = Buffer.from(JSON.stringify({ filler: 'x'.repeat(bytes - 13) }))
  const revisions = new Array<number>(keys).fill(0)
  const turns = new Array<number>(inFlight).fill(0)
  const perLane = Math.floor(keys / inFlight)
  return hammer({
    inFlight,
    forMs,
    operation: async lane => {
      const turn = turns[lane] ?? 0
      turns[lane] = turn + 1
      const n = lane * perLane + (turn % perLane)
      const expected = revisions[n] ?? 0
      revisions[n] = await publish(nc, { bucket: 'vm', key: `${prefix}${n}`, bytes: body, expected, timeoutMs: 10_000 })
    },
  })
}
