/**
 * Refuses a NATS server that Muster cannot live on: older ones ignore what they do not know instead of refusing it,
 * and without the mappings every command would go nowhere.
 */

import type { Msg, MsgCallback } from 'nats'
import { api, JetStreamRefusal, UnavailableError } from './api.ts'
import type { NatsConnection } from './connect.ts'
import { KINDS, MAPPINGS, parseArrival, subject } from './subjects.ts'

/** Oldest server with everything that is used: key TTLs, strict consumers, sync always for clusters. */
export const minimumServer = [2, 12] as const

export interface CheckOptions {
  /** `commands`: only the mappings that a host may publish to. */
  mappings?: 'all' | 'commands'
}

/** Throws an Error of one line that says what to install or to add. */
export async function checkServer(nc: NatsConnection, { mappings = 'all' }: CheckOptions = {}): Promise<void> {
  checkVersion(nc.info?.version ?? '0')
  await checkJetStream(nc)
  await checkMappings(nc, mappings)
}

function checkVersion(version: string): void {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  const [leastMajor, leastMinor] = minimumServer
  if (major > leastMajor || (major === leastMajor && minor >= leastMinor)) return
  throw new Error(
    `nats-server ${version} is too old: it ignores key lifetimes and other settings that Muster needs. Install ${minimumServer.join('.')} or newer (scripts/nats-server.ts fetches one).`,
  )
}

/** A cluster that has just started says for some seconds that it has no leader. */
async function checkJetStream(nc: NatsConnection): Promise<void> {
  const end = performance.now() + (nc.info?.cluster ? 20_000 : 2_000)
  for (;;) {
    try {
      await api(nc, 'INFO', undefined, 2_000)
      return
    } catch (error) {
      if (error instanceof JetStreamRefusal && error.code === notEnabledForAccount) throw withoutJetStream(error)
      if (!(error instanceof UnavailableError || error instanceof JetStreamRefusal)) throw error
      if (performance.now() > end) throw withoutJetStream(error)
      await new Promise(resolve => setTimeout(resolve, 200))
    }
  }
}

const notEnabledForAccount = 10039

const withoutJetStream = (cause: Error) =>
  new Error(
    `JetStream is off on this nats-server or for this account (${cause.message}). Start the server with nats.conf, or add a block "jetstream { store_dir: ..., sync_interval: always }".`,
    { cause },
  )

async function checkMappings(nc: NatsConnection, which: 'all' | 'commands'): Promise<void> {
  const id = `probe-${Math.random().toString(36).slice(2)}`
  const probes = KINDS.map(kind => ({ row: `${kind}.*.cmd.*`, text: subject.command(kind, id, 'probe') }))
  if (which === 'all') {
    probes.push(
      { row: 'cn.*.agent.*', text: subject.agentCall(id, 'probe') },
      { row: 'hb.*', text: subject.heartbeat(id) },
    )
  }
  const arrived = new Set<string>()
  const callback: MsgCallback<Msg> = (error, message) => {
    if (!error && parseArrival(message.subject)) arrived.add(unmapped(message.subject))
  }
  const heard = [`p.*.*.${id}.>`, `p.*.*.${id}`].map(text => nc.subscribe(text, { callback }))
  try {
    await nc.flush()
    for (const { text } of probes) nc.publish(text)
    const end = performance.now() + 2_000
    while (arrived.size < probes.length && performance.now() < end) {
      await nc.flush()
      if (arrived.size < probes.length) await new Promise(resolve => setTimeout(resolve, 20))
    }
  } finally {
    for (const subscription of heard) subscription.unsubscribe()
  }
  const missing = probes.filter(({ text }) => !arrived.has(text)).map(({ row }) => `"${row}": "${MAPPINGS[row]}"`)
  if (missing.length > 0) {
    throw new Error(
      `the account's mappings in the NATS configuration lack ${missing.join(', ')}. Add them as in nats.conf and reload the server.`,
    )
  }
}

/** What was published, of what arrived on `p.<n>.…`. */
const unmapped = (text: string) => text.split('.').slice(2).join('.')
