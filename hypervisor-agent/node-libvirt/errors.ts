/**
 * What can go wrong, in two kinds: libvirt refused or failed (`LibvirtError`, with its own code and domain), or the
 * call never got an answer (`ConnectionError`), in which case `sent` says whether it may still have taken effect.
 */
import { ERROR_CODES, ERROR_DOMAINS } from './codes.ts'

export type ErrorCodeName = keyof typeof ERROR_CODES
export type ErrorDomainName = keyof typeof ERROR_DOMAINS

const codeNames = new Map<number, ErrorCodeName>(
  Object.entries(ERROR_CODES).map(([name, code]) => [code, name as ErrorCodeName]),
)
const domainNames = new Map<number, ErrorDomainName>(
  Object.entries(ERROR_DOMAINS).map(([name, domain]) => [domain, name as ErrorDomainName]),
)

/** libvirt's answer to a call that did not work. */
export class LibvirtError extends Error {
  override name = 'LibvirtError'
  /** virErrorNumber; compare with `ERROR_CODES`. */
  readonly code: number
  /** The code's name, or UNKNOWN when this table is older than the server. */
  readonly codeName: ErrorCodeName | 'UNKNOWN'
  /** virErrorDomain: which part of libvirt said so. */
  readonly domain: number
  readonly domainName: ErrorDomainName | 'UNKNOWN'
  /** 1 warning, 2 error. */
  readonly level: number
  /** The procedure that was called. */
  readonly procedure: string

  constructor(error: { code: number; domain: number; level: number; message: string | null }, procedure: string) {
    super(error.message ?? `libvirt error ${error.code}`)
    this.code = error.code
    this.codeName = codeNames.get(error.code) ?? 'UNKNOWN'
    this.domain = error.domain
    this.domainName = domainNames.get(error.domain) ?? 'UNKNOWN'
    this.level = error.level
    this.procedure = procedure
  }
}

/** Why a call has no answer. */
export type ConnectionErrorReason =
  /** No socket, refused, or no permission. */
  | 'unreachable'
  /** The connection broke, or keepalive found it dead. */
  | 'lost'
  /** `close()` was called. */
  | 'closed'
  /** The call's deadline passed. */
  | 'deadline'
  /** Too many calls wait already. */
  | 'queue_full'
  /** The server said something this client does not understand. */
  | 'protocol'

/** The call got no answer. When `sent` is true it may have taken effect all the same. */
export class ConnectionError extends Error {
  override name = 'ConnectionError'
  readonly reason: ConnectionErrorReason
  readonly sent: boolean
  readonly procedure: string | undefined
  /** After a deadline: resolves when the server has answered after all or the connection has ended, and the slot is free. */
  declare readonly released: Promise<void>

  constructor(
    reason: ConnectionErrorReason,
    message: string,
    { sent = false, procedure, cause, released }: ConnectionErrorDetails = {},
  ) {
    super(message, cause === undefined ? undefined : { cause })
    this.reason = reason
    this.sent = sent
    this.procedure = procedure
    // Not shown when the error is printed: it says nothing to a reader.
    Object.defineProperty(this, 'released', { value: released ?? Promise.resolve(), enumerable: false })
  }
}

interface ConnectionErrorDetails {
  sent?: boolean
  procedure?: string
  cause?: unknown
  released?: Promise<void>
}

/** Whether `error` is libvirt's answer with one of these codes. */
export function isLibvirtError(error: unknown, ...names: ErrorCodeName[]): error is LibvirtError {
  return error instanceof LibvirtError && (names.length === 0 || names.includes(error.codeName as ErrorCodeName))
}
