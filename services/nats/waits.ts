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
  /** Keys that are waited for, with how many wait. */
  waiting(): { key: string; waiters: number }[]
  close(): void
}

const rereadMs = 5_000

export function openWaits(nc: NatsConnection, bucket: Bucket): Waits {
  const records = openRecords(nc)
  const waiting = new Map<string, Group>()
  const follower = follow({
    nc,
    bucket,
    updatesOnly: true,
    onChange: ({ key, bytes, gone }) => {
      const group = gone ? undefined : waiting.get(key)
      if (group) tell(group, decode(bytes))
    },
    onCaughtUp: () => {
      for (const [key, group] of waiting) void reread(key, group)
    },
  })

  const tell = (group: Group, value: unknown) => {
    for (const look of group.waiters) {
      try {
        look(value)
      } catch {
        // A value that makes no sense to who waits, put there by a person, is not what they wait for.
      }
    }
  }

  /** One read for all who wait for the key; who came while one was under way gets the next. */
  const reread = async (key: string, group: Group) => {
    if (group.reading) {
      group.readAgain = true
      return
    }
    group.reading = true
    do {
      group.readAgain = false
      // No leader at the moment: the next re-read will tell.
      const entry = await records.get(bucket, key).catch(() => undefined)
      if (entry) tell(group, entry.value)
    } while (group.readAgain && group.waiters.size > 0)
    group.reading = false
  }

  const groupOf = (key: string): Group => {
    const there = waiting.get(key)
    if (there) return there
    const again = setInterval(() => void reread(key, group), rereadMs)
    const group: Group = { waiters: new Set(), again, reading: false, readAgain: false }
    waiting.set(key, group)
    return group
  }

  return {
    until: (key, predicate, { deadlineMs, signal }) =>
      new Promise(resolve => {
        if (signal?.aborted) return resolve(undefined)
        const group = groupOf(key)
        const finish = (value: unknown) => {
          group.waiters.delete(look)
          if (group.waiters.size === 0 && waiting.get(key) === group) {
            clearInterval(group.again)
            waiting.delete(key)
          }
          clearTimeout(end)
          signal?.removeEventListener('abort', aborted)
          resolve(value)
        }
        const look = (value: unknown) => {
          if (group.waiters.has(look) && predicate(value)) finish(value)
        }
        const aborted = () => finish(undefined)
        group.waiters.add(look)
        const end = setTimeout(aborted, deadlineMs)
        signal?.addEventListener('abort', aborted, { once: true })
        void reread(key, group)
      }),
    waiting: () => [...waiting].map(([key, { waiters }]) => ({ key, waiters: waiters.size })),
    close: () => follower.close(),
  }
}

/** All who wait for one key. */
interface Group {
  waiters: Set<(value: unknown) => void>
  again: NodeJS.Timeout
  reading: boolean
  /** Somebody came while a read was under way. */
  readAgain: boolean
}
