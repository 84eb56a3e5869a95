/**
 * Values in buckets: leader reads (a follower's answer may be old) and compare-and-set writes.
 * An acknowledged write is on disk on a majority of the servers.
 */
import { headers } from 'nats'
import { type ApiError, api, ConflictError, codes, DamagedError, JetStreamRefusal, UnknownOutcomeError } from './api.ts'
import { ask } from './ask.ts'
import { BUCKETS, type Bucket, DELETION, keySubject, type MortalBucket, streamOf } from './buckets.ts'
import type { NatsConnection } from './connect.ts'
import { decode, encode } from './json.ts'

export { ConflictError, DamagedError, JetStreamRefusal, UnavailableError, UnknownOutcomeError } from './api.ts'

export interface Entry {
  value: unknown
  /** Number to give to `update`: the sequence in the bucket's stream. */
  revision: number
}

/** Headers written beside a value, for those who read headers only. */
export type EntryHeaders = Record<string, string>

export interface Records {
  /** The value now, by the leader. */
  get(bucket: Bucket, key: string): Promise<Entry | undefined>
  /** Like get, but tells the revision also where there is no value (0: there never was one). */
  look(bucket: Bucket, key: string): Promise<{ value: unknown | undefined; revision: number }>
  /** Writes the first value. ConflictError when there is one. */
  create(bucket: Bucket, key: string, value: unknown, head?: EntryHeaders): Promise<number>
  /** Writes if the revision is still this one. ConflictError otherwise. */
  update(bucket: Bucket, key: string, value: unknown, revision: number, head?: EntryHeaders): Promise<number>
  /** Writes whatever is there. */
  put(bucket: Bucket, key: string, value: unknown, head?: EntryHeaders): Promise<number>
  /** Deletes whatever is there. */
  delete(bucket: MortalBucket, key: string): Promise<void>
}

/** Every write returns the new revision, or throws ConflictError, UnknownOutcomeError or JetStreamRefusal; a read, UnavailableError or DamagedError. */
export function openRecords(nc: NatsConnection, { writeTimeoutMs = 2_000, readTimeoutMs = 2_000 } = {}): Records {
  const write = (bucket: Bucket, key: string, bytes: Uint8Array, expected: number | undefined, head?: EntryHeaders) =>
    publish(nc, { bucket, key, bytes, expected, head, timeoutMs: writeTimeoutMs })

  const look: Records['look'] = async (bucket, key) => {
    const body = { last_by_subj: keySubject(bucket, key) }
    const found = await api<StoredMessage>(nc, `STREAM.MSG.GET.${streamOf(bucket)}`, body, readTimeoutMs).catch(
      error => {
        if (error instanceof JetStreamRefusal && error.code === codes.noMessage) return undefined
        throw error
      },
    )
    if (!found) return { value: undefined, revision: 0 }
    const { seq, data, hdrs } = found.message
    const gone = hdrs !== undefined && isGone(Buffer.from(hdrs, 'base64').toString('latin1'))
    if (gone) return { value: undefined, revision: seq }
    try {
      return { value: decode(Buffer.from(data ?? '', 'base64')), revision: seq }
    } catch (cause) {
      throw new DamagedError(`${bucket}/${key} is not JSON: ${(cause as Error).message}`, { cause })
    }
  }

  return {
    look,
    get: async (bucket, key) => {
      const { value, revision } = await look(bucket, key)
      return value === undefined ? undefined : { value, revision }
    },
    create: async (bucket, key, value, head) => {
      const bytes = encode(value)
      try {
        return await write(bucket, key, bytes, 0, head)
      } catch (error) {
        if (!(error instanceof ConflictError)) throw error
        // The mark of a deletion counts as a revision too.
        const there = await look(bucket, key)
        if (there.value !== undefined || there.revision === 0) throw error
        return await write(bucket, key, bytes, there.revision, head)
      }
    },
    update: (bucket, key, value, revision, head) => write(bucket, key, encode(value), revision, head),
    put: (bucket, key, value, head) => write(bucket, key, encode(value), undefined, head),
    delete: async (bucket, key) => {
      await write(bucket, key, encode(undefined), undefined, DELETION)
    },
  }
}

interface StoredMessage {
  message: { seq: number; data?: string; hdrs?: string }
}

export interface Publication {
  bucket: Bucket
  key: string
  bytes: Uint8Array
  /** Revision that must still be there; 0: none ever was; undefined: any. */
  expected: number | undefined
  head?: EntryHeaders | undefined
  timeoutMs: number
}

/** One write into a bucket's stream; returns the revision. */
export async function publish(nc: NatsConnection, publication: Publication): Promise<number> {
  const { bucket, key, bytes, expected, head, timeoutMs } = publication
  // Beyond what a message may have, the client would refuse it in words of its own, which are not known to mean that nothing was written.
  const { maxValueBytes } = BUCKETS[bucket]
  if (bytes.length > maxValueBytes) {
    const size = `${bytes.length} bytes are more than the ${maxValueBytes} of a value`
    throw new JetStreamRefusal(`writing ${bucket}/${key}: ${size}`, codes.tooLarge)
  }
  const lines = headers()
  if (expected !== undefined) lines.set('Nats-Expected-Last-Subject-Sequence', String(expected))
  for (const [name, text] of Object.entries(head ?? {})) lines.set(name, text)
  const message = await ask(nc, keySubject(bucket, key), bytes, { timeoutMs, headers: lines }).catch(cause => {
    throw new UnknownOutcomeError(`writing ${bucket}/${key}: ${(cause as Error).message}`, { cause })
  })
  const answer = decode(message.data) as { seq?: number; error?: ApiError }
  if (answer.error) {
    const { err_code, description } = answer.error
    if ((codes.wrongRevision as readonly number[]).includes(err_code))
      throw new ConflictError(`${bucket}/${key}: ${description}`)
    if ((codes.away as readonly number[]).includes(err_code))
      throw new UnknownOutcomeError(`writing ${bucket}/${key}: ${description}`)
    throw new JetStreamRefusal(`writing ${bucket}/${key}: ${description}`, err_code)
  }
  return answer.seq ?? 0
}

/** Whether the headers of a stored message say that the key was deleted or has expired. */
export const isGone = (head: string): boolean => /KV-Operation: *(DEL|PURGE)|Nats-Marker-Reason:/.test(head)
