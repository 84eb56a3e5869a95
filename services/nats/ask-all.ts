/** One question, and the answers of everybody who hears it. */
import type { Reply } from '../../actors/contract/record.ts'
import type { NatsConnection } from './connect.ts'
import { encode } from './json.ts'
import { parseReply } from './request.ts'

export interface AskAllOptions {
  /** Longest wait for all answers, ms. */
  maxMs: number
  /** Longest wait for one more after the last, ms; absent: until `maxMs`. */
  lullMs?: number
}

/** Answers as they come; whoever has heard enough stops reading. Ends early, never by an error, when nobody listens or the connection is away. */
export async function* askAll(
  nc: NatsConnection,
  subject: string,
  payload: unknown,
  { maxMs, lullMs }: AskAllOptions,
): AsyncGenerator<Reply> {
  const until = lullMs === undefined ? { strategy: 'timer' as const } : { strategy: 'stall' as const, stall: lullMs }
  try {
    for await (const { data } of await nc.requestMany(subject, encode(payload), { ...until, maxWait: maxMs })) {
      if (data.length > 0) yield parseReply(data)
    }
  } catch {
    // What was heard so far is told.
  }
}
