/**
 * What each identity may publish and subscribe to, derived from the subject and bucket tables.
 * The server checks rights after its mapping, so commands appear here as `p.*.…`; a wildcard stands for a whole token, so buckets are listed.
 */
import { allKeys, BUCKETS, type Bucket, streamOf } from './buckets.ts'
import { ALLOCATOR_CALLS, inboxPrefix, KINDS, pattern, subject } from './subjects.ts'

/** Who connects: `admin` provisions and is for people; an agent is known by the uuid of its server. */
export type Identity = 'admin' | 'host' | 'gateway' | 'allocator' | { agent: string }

/** Lists of subjects; `responses`: may answer what it was asked, once, within that time. */
export interface Rights {
  publish: string[]
  subscribe: string[]
  responses?: { max: number; expires: string }
}

/** The rights of an identity; undefined for admin, who may do everything in Muster's account (and nothing outside it). */
export function rightsOf(identity: Identity): Rights | undefined {
  if (typeof identity === 'object') return agent(identity.agent)
  return identity === 'admin' ? undefined : processes[identity]()
}

/** First tokens of an identity's inboxes, for `inboxPrefix` of its connections: others can neither read nor guess them. */
export function inboxOf(identity: Identity): string {
  return inboxPrefix(typeof identity === 'object' ? identity.agent : identity)
}

/** An identity as an entry of `users` in the server's configuration. */
export function userEntry(identity: Identity, publicKey: string): string {
  const rights = rightsOf(identity)
  if (!rights) return `{ nkey: ${publicKey} }`
  const list = (subjects: string[]) => `{ allow: [${subjects.map(text => JSON.stringify(text)).join(', ')}] }`
  const { responses } = rights
  const lines = [
    `publish: ${list(rights.publish)}`,
    `subscribe: ${list(rights.subscribe)}`,
    ...(responses ? [`allow_responses: { max: ${responses.max}, expires: ${JSON.stringify(responses.expires)} }`] : []),
  ]
  return `{ nkey: ${publicKey}, permissions: {\n    ${lines.join('\n    ')}\n  } }`
}

const buckets = Object.keys(BUCKETS) as Bucket[]
const records = buckets.filter(bucket => bucket !== 'lease')
const ownInbox = (owner: string) => `${inboxPrefix(owner)}.>`
const microApi = '$SRV.>'

const processes = {
  /** Owns actors: writes every bucket, commands other actors, offers tasks, answers whoever asked. */
  host: (): Rights => ({
    publish: [
      ...buckets.flatMap(bucket => [allKeys(bucket), ...reading(bucket)]),
      ...KINDS.map(pattern.commands),
      pattern.agents(),
      pattern.events(),
      jetStreamInfo,
      // An answer may come minutes after its request (a wait), long after allow_responses would have forgotten it.
      '_INBOX.>',
    ],
    subscribe: [pattern.partitions(), pattern.machines(), subject.metrics(), microApi, ownInbox('host')],
  }),
  /** Asks and reads: writes no bucket. What node agents send over HTTP it passes on as commands and heartbeats, never in an agent's name. */
  gateway: (): Rights => ({
    publish: [
      ...KINDS.map(pattern.commands),
      ...KINDS.map(subject.machines),
      subject.metrics(),
      ...ALLOCATOR_CALLS.map(subject.allocator),
      pattern.heartbeats(),
      ...records.flatMap(reading),
      jetStreamInfo,
    ],
    subscribe: [pattern.heartbeats(), pattern.events(), microApi, ownInbox('gateway')],
    responses: { max: 1, expires: '1m' },
  }),
  /** Keeps the fleet in memory and tries a claim at the node it has chosen. */
  allocator: (): Rights => ({
    publish: [pattern.commands('cn'), ...records.flatMap(reading), jetStreamInfo],
    subscribe: [
      ...ALLOCATOR_CALLS.map(subject.allocator),
      subject.metrics(),
      pattern.heartbeats(),
      microApi,
      ownInbox('allocator'),
    ],
    responses: { max: 1, expires: '1m' },
  }),
}

/** One node: its own heartbeat and calls, its own offers. No JetStream, so one stolen key shows one node. */
function agent(uuid: string): Rights {
  return {
    publish: [pattern.agentHeartbeat(uuid), pattern.agentCalls(uuid)],
    subscribe: [pattern.agent(uuid), ownInbox(uuid)],
    responses: { max: 1, expires: '2m' },
  }
}

const jetStreamInfo = '$JS.API.INFO'

/** All that reading one bucket takes: leader and direct gets, and consumers of its own for views. */
function reading(bucket: Bucket): string[] {
  const stream = streamOf(bucket)
  const calls = ['STREAM.INFO', 'STREAM.MSG.GET', 'DIRECT.GET'].map(call => `$JS.API.${call}.${stream}`)
  const consumers = ['INFO', 'MSG.NEXT', 'DELETE'].map(call => `$JS.API.CONSUMER.${call}.${stream}.*`)
  const creating = `$JS.API.CONSUMER.CREATE.${stream}.>`
  return [
    ...calls,
    `$JS.API.DIRECT.GET.${stream}.>`,
    creating,
    ...consumers,
    `$JS.ACK.${stream}.>`,
    `$JS.FC.${stream}.>`,
  ]
}
