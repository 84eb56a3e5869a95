/** Bodies beside a record, written before its commit. Each may be written twice: what is there already is done already. */
import { ConflictError, type Entry, type Records } from '../nats/records.ts'
import type { SidePut } from './decide.ts'

/** Performs them: in order for one key, side by side for different ones. Throws what Records throws. */
export async function performPuts(records: Records, puts: SidePut[]): Promise<void> {
  if (puts.length === 0) return
  const byKey = new Map<string, SidePut[]>()
  for (const put of puts) {
    const name = nameOf(put)
    byKey.set(name, [...(byKey.get(name) ?? []), put])
  }
  await Promise.all(
    [...byKey.values()].map(async list => {
      for (const put of list) await perform(records, put)
    }),
  )
}

async function perform(records: Records, put: SidePut): Promise<void> {
  switch (put.type) {
    case 'create':
      try {
        remember(records, put, { value: put.value, revision: await records.create(put.bucket, put.key, put.value) })
      } catch (error) {
        if (!(error instanceof ConflictError)) throw error
      }
      return
    case 'put':
      await records.put(put.bucket, put.key, put.value)
      return
    case 'delete':
      known.get(records)?.delete(nameOf(put))
      await records.delete(put.bucket, put.key)
      return
    case 'patch':
      return patch(records, put)
  }
}

/**
 * Merges fields while others still have the given values; somebody else's write in between is read again. What this process wrote is
 * changed without a read: the revision tells when it is no longer what is there.
 */
async function patch(records: Records, put: Extract<SidePut, { type: 'patch' }>): Promise<void> {
  let entry = known.get(records)?.get(nameOf(put))
  known.get(records)?.delete(nameOf(put))
  for (;;) {
    if (!entry || !holds(entry.value, put.while)) {
      entry = await records.get(put.bucket, put.key)
      // Aged out, or moved on: there is nothing left to change.
      if (!entry || !holds(entry.value, put.while)) return
    }
    const value = { ...(entry.value as object), ...put.patch }
    try {
      await records.update(put.bucket, put.key, value, entry.revision, lifetime(put.ttl_ms))
      return
    } catch (error) {
      if (!(error instanceof ConflictError)) throw error
      entry = undefined
    }
  }
}

/** Tickets as this process created them, until their first change; most are changed once, at their end. */
const known = new WeakMap<Records, Map<string, Entry>>()
const knownMax = 4_096

function remember(records: Records, put: SidePut, entry: Entry): void {
  if (put.bucket !== 'ticket') return
  const entries = known.get(records) ?? new Map<string, Entry>()
  known.set(records, entries.set(nameOf(put), entry))
  const oldest = entries.keys().next().value
  if (entries.size > knownMax && oldest !== undefined) entries.delete(oldest)
}

const nameOf = ({ bucket, key }: SidePut) => `${bucket}/${key}`

/** The server counts in whole seconds and forgets the value after them. */
const lifetime = (ttlMs: number | undefined) =>
  ttlMs === undefined ? undefined : { 'Nats-TTL': `${Math.max(1, Math.ceil(ttlMs / 1000))}s` }

function holds(value: unknown, fields: Record<string, unknown>): boolean {
  if (typeof value !== 'object' || value === null) return false
  return Object.entries(fields).every(
    ([name, wanted]) => JSON.stringify((value as Record<string, unknown>)[name]) === JSON.stringify(wanted),
  )
}
