/**
 * A request that outlives lost messages and changing owners: the same payload again and again until somebody answers
 * or its deadline has passed. An answer to an earlier attempt counts too.
 */

import { rejection } from '../../actors/contract/errors.ts'
import { COMMAND_ATTEMPT_MS } from '../../actors/contract/messages.ts'
import type { Reply } from '../../actors/contract/record.ts'
import { ask, NoRespondersError } from './ask.ts'
import type { NatsConnection } from './connect.ts'
import { decode, encode } from './json.ts'

export interface RequestOptions {
  /** Overall time, ms. */
  deadlineMs: number
  /** Time after which the payload is sent once more, ms. */
  attemptMs?: number
  /** Give up when nobody has been listening for this long, ms. */
  absentMs?: number
  signal?: AbortSignal
}

/** Asks until answered. Never throws for what the network does: past the deadline it is `{error: ServiceUnavailableError}`. */
export function request(
  nc: NatsConnection,
  subject: string,
  payload: unknown,
  options: RequestOptions,
): Promise<Reply> {
  const { deadlineMs, attemptMs = COMMAND_ATTEMPT_MS, absentMs = deadlineMs, signal } = options
  const bytes = encode(payload)
  const begun = performance.now()
  const end = begun + deadlineMs
  return new Promise(resolve => {
    let next: NodeJS.Timeout | undefined
    let pause = firstPauseMs
    let done = false
    const finish = (reply: Reply) => {
      if (done) return
      done = true
      clearTimeout(next)
      clearTimeout(last)
      signal?.removeEventListener('abort', aborted)
      resolve(reply)
    }
    const aborted = () => finish({ error: rejection('ServiceUnavailableError', 'The request was given up') })
    const attempt = () => {
      if (done) return
      const left = end - performance.now()
      if (left <= 0) return
      clearTimeout(next)
      // Each attempt may be answered until the deadline; only the wait before the next one is short.
      next = setTimeout(attempt, attemptMs)
      ask(nc, subject, bytes, { timeoutMs: Math.max(1, left) }).then(
        message => finish(parseReply(message.data)),
        error => {
          if (done || !(error instanceof NoRespondersError)) return
          if (performance.now() - begun > absentMs) return finish({ error: rejection('ServiceUnavailableError') })
          clearTimeout(next)
          next = setTimeout(attempt, pause * (0.5 + Math.random()))
          pause = Math.min(pause * 2, maxPauseMs)
        },
      )
    }
    const last = setTimeout(() => finish({ error: rejection('ServiceUnavailableError') }), deadlineMs)
    if (signal?.aborted) return aborted()
    signal?.addEventListener('abort', aborted, { once: true })
    attempt()
  })
}

/** Reads an answer; what is not one of ours becomes an InternalError. */
export function parseReply(data: Uint8Array): Reply {
  try {
    const reply = decode(data)
    if (typeof reply === 'object' && reply !== null && ('value' in reply || 'error' in reply)) return reply as Reply
  } catch {}
  return { error: rejection('InternalError', 'The answer is not a reply of Muster') }
}

const firstPauseMs = 20
const maxPauseMs = 500
