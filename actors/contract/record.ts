/** The envelope around every actor's state: the JSON value in its bucket, readable from the top down (DESIGN §3). */
import * as v from 'valibot'
import { Rejection } from './errors.ts'

/** What a command was answered: exactly one of the two. */
export const Reply = v.union([v.object({ value: v.unknown() }), v.object({ error: Rejection })])
export type Reply = v.InferOutput<typeof Reply>

/** A pending effect: sent after the commit, again until acknowledged. */
export const OutboxEntry = v.object({
  /** `<kind>.<id>:<sequence>`: the same at every attempt. */
  id: v.string(),
  sequence: v.number(),
  effect: v.variant('type', [
    /** A command to another actor. */
    v.object({
      type: v.literal('send'),
      kind: v.string(),
      id: v.string(),
      verb: v.string(),
      params: v.record(v.string(), v.unknown()),
      req_id: v.optional(v.string()),
    }),
    /** A task offered to the agent of a server; its body is in bucket `task`. */
    v.object({ type: v.literal('offer'), server_uuid: v.string(), task_id: v.string() }),
    /** Word to the agent of a server that a task it works on has ended. */
    v.object({ type: v.literal('cancel'), server_uuid: v.string(), task_id: v.string() }),
  ]),
  /** The answer to the caller waits for this one. */
  before_reply: v.optional(v.boolean()),
})
export type OutboxEntry = v.InferOutput<typeof OutboxEntry>

/** A stored deadline: fires as an ordinary command `<name>@<at>`. */
export const Timer = v.object({ at: v.number(), event: v.looseObject({ type: v.string() }) })
export type Timer = v.InferOutput<typeof Timer>

/** A reply as stored. `after`: outbox sequences that must be acknowledged before it goes out. */
export const StoredReply = v.object({ reply: Reply, after: v.optional(v.array(v.number())) })
export type StoredReply = v.InferOutput<typeof StoredReply>

/** Replies kept for one sender: what it may still repeat, by sequence; entries below `floor` are gone. */
export const SenderReplies = v.object({ floor: v.number(), at: v.number(), replies: v.record(v.string(), StoredReply) })

/** A reply kept for a caller's Idempotency-Key. `fingerprint` tells another request with the same key. */
export const KeyedReply = v.object({ fingerprint: v.string(), at: v.number(), stored: StoredReply })

export const Recent = v.object({
  at: v.string(),
  event: v.string(),
  from: v.string(),
  to: v.string(),
  count: v.number(),
  /** Revision of the record that it came with; absent: the record's own. */
  revision: v.optional(v.number()),
})

export const ActorRecord = v.object({
  state: v.string(),
  status: v.string(),
  updated_at: v.string(),
  kind: v.string(),
  id: v.string(),
  /** Version of the kind's machine that wrote it (ACTORS). */
  version: v.number(),
  /** Transitions so far. */
  count: v.number(),
  /** Sequence of the last effect put into the outbox; of a new record, its owner's clock in ms. */
  sent: v.number(),
  snapshot: v.looseObject({ value: v.unknown(), context: v.looseObject({}), status: v.string() }),
  outbox: v.array(OutboxEntry),
  timers: v.record(v.string(), Timer),
  replies: v.record(v.string(), SenderReplies),
  keys: v.record(v.string(), KeyedReply),
  recent: v.array(Recent),
})
export type ActorRecord = v.InferOutput<typeof ActorRecord>

/** Bounds of the envelope (DESIGN §3). */
export const REPLIES_PER_SENDER_MAX = 64
export const KEYS_MAX = 32
export const KEY_AGE_MAX_MS = 24 * 3600_000
export const RECENT_MAX = 16
/** A sender that said nothing for this long will not repeat: ten times the deadline of a command. */
export const SENDER_AGE_MAX_MS = 150_000
/** Actors among the senders that are kept beyond that: everybody is silent while a site has no power. */
export const OLD_ACTORS_MAX = 8
/** Records of actors stay a day after their end, so what was heard of a sender this long ago may be of an earlier life of it. */
export const SENDER_LIFE_MS = 12 * 3600_000
