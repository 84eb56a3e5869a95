/**
 * Where the ids of a request come from: random ones, or ones derived from the caller's Idempotency-Key, so that a repeat through
 * any gateway leads to the same actor and the same task.
 */
import { createHash, randomBytes, randomUUID } from 'node:crypto'

export interface IdSource {
  /** Id of a VM to be made. Derived from the key alone: the same key for another server meets the same actor, which refuses. */
  vm(): string
  /** Id of a task. Derived from key, method and path: one key used for two operations never names one task twice. */
  task(): string
  /** Address of the nth NIC, under QEMU's prefix 52:54:00. */
  mac(index: number): string
  /** Id of a ticket, which leads to its queue. */
  ticket(queue: string): string
}

export const randomIds: IdSource = {
  vm: () => randomUUID(),
  task: () => randomUUID(),
  mac: () => macOf(randomBytes(3)),
  ticket: queue => ticketUuid(queue, randomBytes(8), 0x80),
}

/** Ids of a request that carries an Idempotency-Key. `operation` is its method and path. */
export function derivedIds(key: string, operation: string): IdSource {
  return {
    vm: () => uuidOf(digest('vm', key)),
    task: () => uuidOf(digest('task', key, operation)),
    mac: index => macOf(digest('mac', key, String(index))),
    ticket: queue => ticketUuid(queue, digest('ticket', key, operation, queue), 0xa0),
  }
}

/** What tells a repeat from another request under the same key. */
export function fingerprint(method: string, path: string, body: string): string {
  return digest('request', method, path, body).toString('hex')
}

/** Key of a hostname's actor (DESIGN §6): 32 hex digits of the SHA-256 of the name in lower case. */
export function hostKey(hostname: string): string {
  return createHash('sha256').update(hostname.toLowerCase()).digest('hex').slice(0, 32)
}

/** Key of a waitlist queue (DESIGN §6): the first 60 bits of the SHA-256 of its three names, as 15 hex digits. */
export function queueKey({ server_uuid, scope, id }: { server_uuid: string; scope: string; id: string }): string {
  return digest(server_uuid, scope, id).toString('hex').slice(0, 15)
}

/** The queue that a ticket is of; undefined for what is no ticket's id. */
export function queueOfTicket(uuid: string): string | undefined {
  const form = /^([0-9a-f]{8})-([0-9a-f]{4})-8([0-9a-f]{3})-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/
  return form.exec(uuid)?.slice(1).join('')
}

function digest(...parts: string[]): Buffer {
  return createHash('sha256').update(JSON.stringify(parts)).digest()
}

/** A UUIDv8 (RFC 9562: bits of the maker's choice) of the first 16 bytes. */
function uuidOf(bytes: Buffer): string {
  const own = Buffer.from(bytes.subarray(0, 16))
  own[6] = (own[6]! & 0x0f) | 0x80
  own[8] = (own[8]! & 0x3f) | 0x80
  const hex = own.toString('hex')
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`
}

/** A UUIDv8 whose own bits are the 60 of the queue's key, one that tells derived ids (`isDerived`), and 61 of `bytes`. */
function ticketUuid(queue: string, bytes: Buffer, variant: 0x80 | 0xa0): string {
  const own = Buffer.from(bytes.subarray(0, 8))
  own[0] = (own[0]! & 0x1f) | variant
  const hex = own.toString('hex')
  return `${queue.slice(0, 8)}-${queue.slice(8, 12)}-8${queue.slice(12)}-${hex.slice(0, 4)}-${hex.slice(4)}`
}

function macOf(bytes: Buffer): string {
  return ['52', '54', '00', ...[0, 1, 2].map(at => bytes.subarray(at, at + 1).toString('hex'))].join(':')
}
