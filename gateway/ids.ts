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
}

export const randomIds: IdSource = {
  vm: () => randomUUID(),
  task: () => randomUUID(),
  mac: () => macOf(randomBytes(3)),
}

/** Ids of a request that carries an Idempotency-Key. `operation` is its method and path. */
export function derivedIds(key: string, operation: string): IdSource {
  return {
    vm: () => uuidOf(digest('vm', key)),
    task: () => uuidOf(digest('task', key, operation)),
    mac: index => macOf(digest('mac', key, String(index))),
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

function macOf(bytes: Buffer): string {
  return ['52', '54', '00', ...[0, 1, 2].map(at => bytes.subarray(at, at + 1).toString('hex'))].join(':')
}
