/** Calls of the JetStream API, with its errors told apart by what a caller can do about them. */
import { JetStreamApiCodes, JetStreamApiError } from '@nats-io/jetstream'
import { ask } from './ask.ts'
import type { NatsConnection } from './connect.ts'
import { decode, encode } from './json.ts'

/** The revision was not the expected one: somebody else wrote in between. Re-read and decide again. */
export class ConflictError extends Error {
  override name = 'ConflictError'
}

/** No answer: the write may have happened or not, and may still happen. Re-read. */
export class UnknownOutcomeError extends Error {
  override name = 'UnknownOutcomeError'
}

/** A read got no answer: no leader at the moment, or no connection. Try again. */
export class UnavailableError extends Error {
  override name = 'UnavailableError'
}

/** What is stored is no JSON: somebody else wrote it. Reading again does not help. */
export class DamagedError extends Error {
  override name = 'DamagedError'
}

/** JetStream refused for another reason. */
export class JetStreamRefusal extends Error {
  override name = 'JetStreamRefusal'
  readonly code: number
  constructor(message: string, code: number) {
    super(message)
    this.code = code
  }
}

export interface ApiError {
  code: number
  err_code: number
  description: string
}

/** Codes of the server that decide what happens next. 10071 and, from clusters under contention, 10164 both mean a conflict. */
export const codes = {
  wrongRevision: [JetStreamApiCodes.StreamWrongLastSequence, JetStreamApiCodes.StreamWrongLastSequenceUnknown],
  /** A cluster without a leader for the moment, or its asker met a server that no longer leads. */
  away: [10008, 10009],
  noMessage: JetStreamApiCodes.NoMessageFound,
  /** JSStreamMessageExceedsMaximumErr. */
  tooLarge: 10054,
  noStream: JetStreamApiCodes.StreamNotFound,
  noConsumer: JetStreamApiCodes.ConsumerNotFound,
} as const

/** Work of the library's manager, its errors told apart like ours. */
export async function managed<T>(what: string, work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (cause) {
    const { message } = cause as Error
    if (cause instanceof JetStreamApiError) throw new JetStreamRefusal(`${what}: ${message}`, cause.code)
    throw new UnavailableError(`${what}: ${message}`, { cause })
  }
}

/** One request to `$JS.API.<call>`. Throws JetStreamRefusal, or UnavailableError when nobody answers. */
export async function api<T>(nc: NatsConnection, call: string, body?: unknown, timeoutMs = 5_000): Promise<T> {
  const message = await ask(nc, `$JS.API.${call}`, encode(body), { timeoutMs }).catch(cause => {
    throw new UnavailableError(`${call}: ${(cause as Error).message}`, { cause })
  })
  const answer = decode(message.data) as { error?: ApiError } & T
  if (!answer.error) return answer
  const { err_code, description } = answer.error
  if ((codes.away as readonly number[]).includes(err_code)) throw new UnavailableError(`${call}: ${description}`)
  throw new JetStreamRefusal(`${call}: ${description}`, err_code)
}
