/**
 * Every change of several buckets for many readers: one follower a bucket for all who are up to date, and one of their own for those who
 * come back, until they are. A reader's place is a revision for each bucket, the same at every gateway.
 */
import type { Bucket } from './buckets.ts'
import type { NatsConnection } from './connect.ts'
import { type Follower, follow, lastSequence } from './follow.ts'
import { decode } from './json.ts'

export interface FeedChange<B extends Bucket = Bucket> {
  bucket: B
  key: string
  /** Undefined when the key was deleted. */
  value: unknown
  revision: number
}

/** Everything up to these revisions has been told. */
export type Positions<B extends Bucket = Bucket> = Record<B, number>

export interface Reader<B extends Bucket> {
  /** In the order of revisions in each bucket; a key that changed several times meanwhile is told once, as it is. */
  told(change: FeedChange<B>): void
  /** Nothing more will be told: the feed has been closed. */
  ended(): void
}

export interface Reading<B extends Bucket> {
  /** Where it began. */
  from: Positions<B>
  /** Buckets of which the reader's place was never true: it begins anew there. */
  unknown: B[]
  stop(): void
}

export interface Feed<B extends Bucket> {
  /** Begins after `from`, or with what comes from now on. */
  read(from: Positions<B> | undefined, reader: Reader<B>): Promise<Reading<B>>
  readers(): number
  /** Ends all readers. */
  close(): void
}

/** Followers stay so long after the last reader has left: who lost its connection comes back within seconds. */
const LINGER_MS = 10_000

interface Live {
  follower: Follower
  position(): number
  listeners: Set<(change: { key: string; value: unknown; revision: number }) => void>
}

export function createFeed<B extends Bucket>(
  nc: NatsConnection,
  buckets: readonly B[],
  warn: (problem: string, error: unknown) => void,
  { lingerMs = LINGER_MS } = {},
): Feed<B> {
  let opened: Promise<Map<B, Live>> | undefined
  let lingering: NodeJS.Timeout | undefined
  const endings = new Set<() => void>()

  const endAll = () => {
    for (const end of [...endings]) end()
  }

  const openLive = async (bucket: B): Promise<[B, Live]> => {
    let position = await lastSequence(nc, bucket)
    const listeners: Live['listeners'] = new Set()
    const follower = follow({
      nc,
      bucket,
      after: position,
      warn,
      onChange: ({ key, bytes, gone, revision }) => {
        position = revision
        if (listeners.size === 0) return
        const change = { key, value: gone ? undefined : decode(bytes), revision }
        for (const listener of listeners) listener(change)
      },
      // Made anew: places in the old one say nothing, and who comes back with one is told so.
      onReset: () => {
        position = 0
        endAll()
      },
    })
    return [bucket, { follower, position: () => position, listeners }]
  }
  const open = () => {
    clearTimeout(lingering)
    opened ??= Promise.all(buckets.map(openLive)).then(
      all => new Map(all),
      error => {
        opened = undefined
        throw error
      },
    )
    return opened
  }
  const shut = () => {
    opened?.then(
      lives => {
        for (const { follower } of lives.values()) follower.close()
      },
      () => {},
    )
    opened = undefined
  }

  /** Tells one bucket to one reader from a revision on. Returns how to stop. */
  const tell = (bucket: B, live: Live, from: number, told: Reader<B>['told']) => {
    let at = from
    const take = ({ key, value, revision }: { key: string; value: unknown; revision: number }) => {
      if (revision <= at) return
      at = revision
      told({ bucket, key, value, revision })
    }
    let catchingUp: Follower | undefined
    // What the others have been told by now comes through a follower of its own.
    const target = live.position()
    const attach = () => {
      catchingUp?.close()
      catchingUp = undefined
      live.listeners.add(take)
    }
    const attachIfThere = () => {
      if (catchingUp && at >= live.position()) attach()
    }
    if (at >= target) attach()
    else {
      catchingUp = follow({
        nc,
        bucket,
        after: at,
        warn,
        onChange: ({ key, bytes, gone, revision }) => {
          if (!catchingUp) return
          take({ key, value: gone ? undefined : decode(bytes), revision })
          attachIfThere()
        },
        onCaughtUp: () => {
          // Everything up to there that still exists has been told.
          at = Math.max(at, target)
          attachIfThere()
        },
      })
    }
    return () => {
      catchingUp?.close()
      catchingUp = undefined
      live.listeners.delete(take)
    }
  }

  return {
    read: async (from, reader) => {
      const lives = await open()
      const unknown: B[] = []
      const begins = {} as Positions<B>
      for (const [bucket, live] of lives) {
        const wanted = from?.[bucket]
        begins[bucket] = wanted ?? live.position()
        // Another gateway may have told more than this one knows yet, but nobody more than the leader has.
        if (wanted !== undefined && wanted > live.position() && wanted > (await lastSequence(nc, bucket))) {
          unknown.push(bucket)
          begins[bucket] = live.position()
        }
      }
      const stops = [...lives].map(([bucket, live]) => tell(bucket, live, begins[bucket], reader.told))
      const stop = () => {
        if (!endings.delete(end)) return
        for (const stopOne of stops) stopOne()
        if (endings.size > 0) return
        clearTimeout(lingering)
        lingering = setTimeout(shut, lingerMs)
        lingering.unref()
      }
      const end = () => {
        stop()
        reader.ended()
      }
      endings.add(end)
      // The last of the others may have left while this one found its place.
      clearTimeout(lingering)
      return { from: { ...begins }, unknown, stop }
    },
    readers: () => endings.size,
    close: () => {
      endAll()
      clearTimeout(lingering)
      shut()
    },
  }
}
