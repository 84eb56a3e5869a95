/** Fills a bucket fast: many writes in flight over one connection, without waiting for each. */
import type { Bucket } from '../services/nats/buckets.ts'
import type { NatsConnection } from '../services/nats/connect.ts'
import { type EntryHeaders, publish } from '../services/nats/records.ts'

export interface Entry {
  key: string
  text: string
  head?: EntryHeaders
}

const inFlight = 512

/** Writes `count` values made by `make`; returns what it took in ms. */
export async function fill(
  nc: NatsConnection,
  bucket: Bucket,
  count: number,
  make: (n: number) => Entry,
): Promise<number> {
  const began = performance.now()
  let next = 0
  const lane = async () => {
    while (next < count) {
      const { key, text, head } = make(next++)
      const bytes = Buffer.from(text)
      await publish(nc, { bucket, key, bytes, expected: undefined, head, timeoutMs: 60_000 })
    }
  }
  await Promise.all(Array.from({ length: inFlight }, lane))
  return performance.now() - began
}
