/** Waitlist tickets: what callers ask for, the body that stays readable, and the queue's own record (cnapi-behaviour §4). */
import * as v from 'valibot'
import { Uuid } from './ids.ts'

/** Most bytes of `extra` as JSON, and most open tickets of one queue. */
export const EXTRA_MAX_BYTES = 4096
export const OPEN_TICKETS_MAX = 10_000
/** How long a finished or expired ticket stays readable where the host's settings say nothing else, ms. */
export const TICKET_KEPT_MS = 30 * 24 * 3600_000

/**
 * How long and of how many tickets a queue remembers that they have ended, where a create may come again: a frozen gateway may still send
 * one that was repeated through another, for as long as a command lives (COMMAND_DEADLINE_MS on its way, as long again in a host).
 */
export const ENDED_KEPT_MS = 60_000
export const ENDED_MAX = 256

/** Was the id derived from an Idempotency-Key: then its variant digit is a or b, of a random one 8 or 9. */
export const isDerived = (ticketUuid: string): boolean => 'ab'.includes(ticketUuid.charAt(19))

/**
 * An expiry as callers send it: ISO 8601, with or without a zone (then UTC), a date, or a year such as `3000`.
 * Kept verbatim; `expiryOf` is what counts.
 */
export const ExpiresAt = v.pipe(
  v.string('value was not a string'),
  v.maxLength(64, 'must have at most 64 characters'),
  v.check(text => expiryOf(text) !== undefined, 'must be a date, such as 2026-01-31T12:00:00.000Z'),
)

/** The time of an expiry in ms since the epoch; undefined for what is no date. A time without a zone is UTC. */
export function expiryOf(text: string): number | undefined {
  const [, local] = /^(\d{4,6}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)$/.exec(text) ?? []
  const at = Date.parse(local ? `${local.replace(' ', 'T')}Z` : text)
  return Number.isFinite(at) ? at : undefined
}

/** What a queue is about: `server_uuid` is a server's or `default`. */
export const QueueTriple = v.object({
  server_uuid: v.union([Uuid, v.literal('default')]),
  scope: v.pipe(v.string('value was not a string'), v.maxLength(256, 'must have at most 256 characters')),
  id: v.pipe(v.string('value was not a string'), v.maxLength(256, 'must have at most 256 characters')),
})
export type QueueTriple = v.InferOutput<typeof QueueTriple>

/**
 * A ticket's body in bucket `ticket`. Open states are in the queue's record alone: a body says `queued` from its creation to its end,
 * then `finished` or `expired`. `token` grows within a queue, so that what a ticket guards can refuse a late holder. While the ticket is
 * open, its token and time of creation are the ones of the queue's record: the body was written before that was durable.
 */
export const TicketBody = v.object({
  uuid: v.string(),
  server_uuid: v.string(),
  scope: v.string(),
  id: v.string(),
  action: v.optional(v.string()),
  extra: v.record(v.string(), v.unknown()),
  expires_at: v.string(),
  created_at: v.string(),
  updated_at: v.string(),
  status: v.picklist(['queued', 'finished', 'expired']),
  reqid: v.optional(v.string()),
  token: v.number(),
})
export type TicketBody = v.InferOutput<typeof TicketBody>

/**
 * Context of a queue's machine. `open`: tickets in creation order, [uuid, expiry in ms, token]; the first is the active one. A token is the
 * time of creation in ms, moved on where two tickets would share it or the clock went back.
 */
export const QueueContext = v.object({
  key: v.string(),
  server_uuid: v.string(),
  scope: v.string(),
  id: v.string(),
  open: v.array(v.tuple([v.string(), v.number(), v.number()])),
  /** When the first of `open` became active, ms. */
  active_since: v.nullable(v.number()),
  /** The token given last. */
  token: v.number(),
  /** Tickets with derived ids that have ended lately: [uuid, when in ms, token]. */
  ended: v.array(v.tuple([v.string(), v.number(), v.number()])),
  /** When the last ticket left, ms. */
  idle_since: v.nullable(v.number()),
})
export type QueueContext = v.InferOutput<typeof QueueContext>
