/**
 * Effects: what a machine's decision asks for, as data. Machines attach them to transitions with `effect(name, make)`; nothing here is
 * ever executed inside a machine. The runtime performs `create`, `put` and `patch` before the commit, the rest after it.
 */
import type { Rejection } from './contract/errors.ts'

export type Effect =
  /** Answers the command that caused the transition. */
  | { type: 'reply'; value: unknown }
  | { type: 'reject'; rejection: Rejection }
  /** A command to another actor, through the outbox. */
  | {
      type: 'send'
      kind: 'cn' | 'vm' | 'host' | 'waitlist'
      id: string
      verb: string
      params: Record<string, unknown>
      req_id?: string | undefined
      before_reply?: boolean
    }
  /** Offers a task to the agent of a server until it is accepted, or withdraws the offer. */
  | { type: 'offer'; server_uuid: string; task_id: string }
  | { type: 'withdraw'; task_id: string }
  /** Tells the agent of a server to stop working on a task that has ended meanwhile. */
  | { type: 'cancel'; server_uuid: string; task_id: string }
  /** Bodies beside the record, each safe to repeat. */
  | { type: 'create' | 'put'; bucket: BodyBucket; key: string; value: unknown }
  | { type: 'delete'; bucket: 'ticket' | 'inventory'; key: string }
  /** Merges fields while others still have the given values; `ttl_ms`: how long the body then stays. */
  | {
      type: 'patch'
      bucket: BodyBucket
      key: string
      while: Record<string, unknown>
      patch: Record<string, unknown>
      ttl_ms?: number
    }
  /** Deadlines that belong to a thing inside the record; those of a state are the machine's own `after`. */
  | { type: 'set_timer'; name: string; at: number; event: { type: string } & Record<string, unknown> }
  | { type: 'cancel_timer'; name: string }

export type BodyBucket = 'task' | 'inventory' | 'ticket' | 'job'

/** An action of a machine whose params are its effects, worked out from context and event at that point of the transition. */
export function effect<C, E, N extends string>(
  type: N,
  make: (context: C, event: E) => Effect[],
): { type: N; params: (args: { context: C; event: E }) => { effects: Effect[] } } {
  return { type, params: ({ context, event }) => ({ effects: make(context, event) }) }
}

/** Every event carries the owner's clock (ms since the epoch) and the request that caused it. */
export interface Stamp {
  at: number
  req_id?: string | undefined
}

/** An effect sent earlier was refused by its receiver; fed back to the machine that sent it. */
export type Refused = Stamp & {
  type: 'refused'
  verb: string
  params: Record<string, unknown>
  rejection: Rejection
}

export const iso = (at: number): string => new Date(at).toISOString()
