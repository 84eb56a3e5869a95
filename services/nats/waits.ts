/**
 * Waiting until a value says what a caller waits for: one watch per bucket for all who wait, never a consumer each.
 * A wait registers first and reads then, so nothing falls between; it re-reads every 5 s and after a gap, so a lost message costs seconds.
 */
import type { Bucket } from './buckets.ts'
import type { NatsConnection } from './connect.ts'
import { follow } from './follow.ts'
import { decode } from './json.ts'
import { openRecords } from './records.ts'

export interface Waits {
  /** The first value of the key that satisfies the predicate; undefined when time is up or the signal aborts. */
  until(
    key: string,
    predicate: (value: unknown) => boolean,
    options: { deadlineMs: number; signal?: AbortSignal },
  ): Promise<unknown | undefined>
  close(): void
}

const rereadMs = 5_000

export function openWaits(nc: NatsConnection, bucket: Bucket): Waits {
  const records = openRecords(nc)
  const waiting = new Map<string, Set<Waiter>>()
  const tell = (key: string, value: unknown) => {
    for (const waiter of waiting.get(key) ?? []) waiter.look(value)
  }
  const follower = follow({
    nc,
    bucket,
    updatesOnly: true,
    onChange: ({ key, bytes, gone }) => {
      if (!gone && waiting.has(key)) tell(key, decode(bytes))
    },
    onCaughtUp: () => {
      for (const waiters of waiting.values()) for (const waiter of waiters) waiter.reread()
    },
  })

  return {
    until: (key, predicate, { deadlineMs, signal }) =>
      new Promise(resolve => {
        const waiters = waiting.get(key) ?? new Set()
        waiting.set(key, waiters)
        const finish = (value: unknown) => {
          waiters.delete(waiter)
          if (waiters.size === 0 && waiting.get(key) === waiters) waiting.delete(key)
          clearTimeout(end)
          clearInterval(again)
          signal?.removeEventListener('abort', aborted)
          resolve(value)
        }
        const waiter: Waiter = {
          look: value => {
            if (waiters.has(waiter) && predicate(value)) finish(value)
          },
          // No leader at the moment: the next re-read will tell.
          reread: () => {
            records.get(bucket, key).then(
              entry => entry && waiter.look(entry.value),
              () => {},
            )
          },
        }
        const aborted = () => finish(undefined)
        waiters.add(waiter)
        const end = setTimeout(aborted, deadlineMs)
        const again = setInterval(waiter.reread, rereadMs)
        if (signal?.aborted) return aborted()
        signal?.addEventListener('abort', aborted, { once: true })
        waiter.reread()
      }),
    close: () => follower.close(),
  }
}

interface Waiter {
  look(value: unknown): void
  reread(): void
}
