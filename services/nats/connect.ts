/**
 * The one way a process connects to NATS: never gives up reconnecting, notices a dead link within 10 s,
 * and receives answers under an inbox prefix of its own, so that no other identity can read them.
 */
import { readFileSync } from 'node:fs'
import { connect, type NatsConnection, nkeyAuthenticator } from 'nats'
import { inboxPrefix } from './subjects.ts'

export type { Msg, NatsConnection, Subscription } from 'nats'

export interface ConnectOptions {
  /** URLs or host:port; any of them leads to the others. */
  servers: string[]
  /** Shown by `nats server report connections`. */
  name: string
  /** Identity whose inboxes this connection uses: `host`, `gateway`, `allocator`, `admin` or the uuid of an agent's server. */
  inboxOwner: string
  /** File with an nkey seed; absent: the server asks for none. */
  seedFile?: string
  /** Wait for the first connection however long it takes (agents), instead of failing within seconds. */
  wait?: boolean
}

/** Connects. Throws an Error that says which servers were tried. */
export async function connectNats({
  servers,
  name,
  inboxOwner,
  seedFile,
  wait,
}: ConnectOptions): Promise<NatsConnection> {
  const prefix = inboxPrefix(inboxOwner)
  try {
    const nc = await connect({
      servers,
      name,
      inboxPrefix: prefix,
      maxReconnectAttempts: -1,
      reconnectTimeWait: 250,
      reconnectJitter: 250,
      pingInterval: 5_000,
      maxPingOut: 2,
      timeout: 5_000,
      waitOnFirstConnect: wait ?? false,
      // A server whose configuration is being reloaded may refuse a known key for a moment.
      ignoreAuthErrorAbort: true,
      noAsyncTraces: true,
      ...(seedFile ? { authenticator: nkeyAuthenticator(seedOf(seedFile)) } : {}),
    })
    prefixes.set(nc, prefix)
    return nc
  } catch (cause) {
    throw new Error(`cannot connect to NATS at ${servers.join(', ')}: ${(cause as Error).message}`, { cause })
  }
}

/** The inbox prefix of a connection; the library keeps it to itself. */
export const inboxPrefixOf = (nc: NatsConnection): string => prefixes.get(nc) ?? '_INBOX'

/** Splits what NATS_URL holds: one or more addresses, comma separated. */
export const serversOf = (text: string): string[] =>
  text
    .split(',')
    .map(part => part.trim())
    .filter(Boolean)

const prefixes = new WeakMap<NatsConnection, string>()

function seedOf(file: string): Uint8Array {
  const text = readFileSync(file, 'utf8')
  const seed = /\bSU[A-Z2-7]{56}\b/.exec(text)?.[0]
  if (!seed) throw new Error(`${file} holds no nkey seed`)
  return Buffer.from(seed)
}
