/**
 * Sends commands to actors as one sender: numbers them, so that a repeat is recognised wherever it arrives, and tells each
 * actor the lowest number it may still hear again. An actor keeps at most 64 replies of a sender, so no more are in flight to one.
 */
import type { Rejection } from '../../actors/contract/errors.ts'
import { COMMAND_DEADLINE_MS, type Command } from '../../actors/contract/messages.ts'
import { REPLIES_PER_SENDER_MAX } from '../../actors/contract/record.ts'
import type { VerbKind, VerbOf, VerbParams, VerbValue } from '../../actors/contract/verbs.ts'
import type { NatsConnection } from './connect.ts'
import { type RequestOptions, request } from './request.ts'
import { subject } from './subjects.ts'

export interface CallOptions {
  /** A caller's Idempotency-Key with the digest of its request. */
  key?: { value: string; fingerprint: string }
  reqId?: string
  /** Overall time, ms; default 15 s. */
  deadlineMs?: number
  /** Time after which the command is sent once more, ms; default 1 s. */
  attemptMs?: number
  signal?: AbortSignal
}

export interface Caller {
  /** Has a command carried out once, however often it is sent. The error is the actor's, or ServiceUnavailableError past the deadline. */
  call<K extends VerbKind, V extends VerbOf<K>>(
    kind: K,
    id: string,
    verb: V,
    params: VerbParams<K, V>,
    options?: CallOptions,
  ): Promise<{ value: VerbValue<K, V> } | { error: Rejection }>
}

/** `sender` names this process run: never the same for two lives of a process. */
export function createCaller(nc: NatsConnection, sender: string): Caller {
  const lanes = new Map<string, Lane>()
  let sequence = 0
  return {
    call: async (kind, id, verb, params, options = {}) => {
      const name = `${kind}.${id}`
      const lane = lanes.get(name) ?? { users: 0, window: [], open: new Set(), waiting: [] }
      lanes.set(name, lane)
      lane.users += 1
      while (lane.window.length >= REPLIES_PER_SENDER_MAX) {
        await new Promise<void>(resolve => lane.waiting.push(resolve))
      }
      sequence += 1
      const own = sequence
      lane.window.push(own)
      lane.open.add(own)
      const command: Command = {
        sender,
        sequence: own,
        floor: lane.window[0] ?? own,
        ...(options.key ? { key: options.key } : {}),
        ...(options.reqId ? { req_id: options.reqId } : {}),
        params: params as Record<string, unknown>,
      }
      const { deadlineMs = COMMAND_DEADLINE_MS, attemptMs, signal } = options
      const limits: RequestOptions = { deadlineMs, ...(attemptMs ? { attemptMs } : {}), ...(signal ? { signal } : {}) }
      try {
        return (await request(nc, subject.command(kind, id, verb), command, limits)) as never
      } finally {
        lane.open.delete(own)
        while (lane.window[0] !== undefined && !lane.open.has(lane.window[0])) lane.window.shift()
        for (let free = REPLIES_PER_SENDER_MAX - lane.window.length; free > 0; free--) lane.waiting.shift()?.()
        lane.users -= 1
        if (lane.users === 0) lanes.delete(name)
      }
    },
  }
}

/** What is under way to one actor. */
interface Lane {
  /** Calls that hold on to it. */
  users: number
  /** Sequences from the lowest unanswered one on, answered or not. */
  window: number[]
  open: Set<number>
  waiting: (() => void)[]
}
