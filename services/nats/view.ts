/**
 * A bucket in memory, projected to the fields a reader needs, with a read barrier: what was acknowledged before
 * the barrier was asked for is in the view after it.
 */

import { UnavailableError } from './api.ts'
import type { Bucket } from './buckets.ts'
import type { NatsConnection } from './connect.ts'
import { follow, lastSequence } from './follow.ts'
import { decode } from './json.ts'

/** `value` is undefined when the key was deleted or is not kept by the projection. */
export interface ViewChange<T> {
  key: string
  value: T | undefined
  revision: number
}

export interface View<T> {
  /** Resolves when the view holds every write that was acknowledged before this call. UnavailableError after 5 s. */
  barrier(): Promise<void>
  get(key: string): T | undefined
  entries(): IterableIterator<[string, T]>
  readonly size: number
  /** Revision of the last change in the view. */
  position(): number
  /** Every change from now on, after a gap also those missed; returns how to stop. */
  onChange(listener: (change: ViewChange<T>) => void): () => void
  close(): void
}

export interface ViewOptions<T> {
  nc: NatsConnection
  bucket: Bucket
  /** What to keep of a value; undefined: nothing. */
  project: (key: string, value: unknown) => T | undefined
  /** How values are read; default: whole. */
  read?: (bytes: Uint8Array) => unknown
  warn?: (problem: string, error: unknown) => void
}

const barrierLimitMs = 5_000

/** Opens a view; resolves when it holds everything. */
export async function openView<T>({ nc, bucket, project, read = decode, warn }: ViewOptions<T>): Promise<View<T>> {
  const kept = new Map<string, T>()
  const listeners = new Set<(change: ViewChange<T>) => void>()
  /** Keys before a reset that have not been told again. */
  let unseen: Set<string> | undefined
  const set = (key: string, value: T | undefined, revision: number) => {
    if (value === undefined) kept.delete(key)
    else kept.set(key, value)
    for (const listener of listeners) listener({ key, value, revision })
  }
  const follower = follow({
    nc,
    bucket,
    ...(warn ? { warn } : {}),
    onReset: () => {
      unseen = new Set(kept.keys())
    },
    onCaughtUp: () => {
      for (const key of unseen ?? []) set(key, undefined, follower.position())
      unseen = undefined
    },
    onChange: ({ key, bytes, gone, revision }) => {
      unseen?.delete(key)
      let value: T | undefined
      try {
        value = gone ? undefined : project(key, read(bytes))
      } catch (error) {
        warn?.(`${bucket}/${key} cannot be read`, error)
      }
      if (value !== undefined || kept.has(key)) set(key, value, revision)
    },
  })
  await follower.ready

  const pass = async () => {
    const end = performance.now() + barrierLimitMs
    const wanted = await lastSequence(nc, bucket)
    while (follower.position() < wanted) {
      if (performance.now() > end) throw new UnavailableError(`the view of ${bucket} is behind`)
      await follower.moved(50)
      if (follower.position() < wanted && (await follower.reached(wanted))) return
    }
  }
  let asked: Promise<void> | undefined
  let underWay: Promise<void> = Promise.resolve()
  return {
    // All barriers asked for before a question is sent share its answer; one asked for later needs the next.
    barrier: () => {
      asked ??= underWay.then(() => {
        asked = undefined
        const passed = pass()
        underWay = passed.catch(() => {})
        return passed
      })
      return asked
    },
    get: key => kept.get(key),
    entries: () => kept.entries(),
    get size() {
      return kept.size
    },
    position: () => follower.position(),
    onChange: listener => {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
    close: () => follower.close(),
  }
}
