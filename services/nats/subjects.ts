/**
 * Every NATS subject of Muster, built and parsed here and nowhere else.
 *
 * Commands are addressed without a partition (`vm.<id>.cmd.start`); the server's account mapping puts them on
 * `p.<n>.vm.<id>.cmd.start`, so that a person with the CLI needs no partition number. Rights are checked after the mapping.
 */

/** Actor kinds: the first token of a command's subject and the name of the kind's bucket. */
export const KINDS = ['cn', 'vm', 'host', 'waitlist'] as const
export type Kind = (typeof KINDS)[number]

/** Number of partitions that the actor hosts divide among them; fixed for the life of a cluster. */
export const PARTITIONS = 64

const partitioned = `p.{{partition(${PARTITIONS},1)}}`

/** Account mappings that nats.conf must hold: source subject -> destination. A start-up probe tries them. */
export const MAPPINGS: Readonly<Record<string, string>> = {
  ...Object.fromEntries(
    KINDS.map(kind => [`${kind}.*.cmd.*`, `${partitioned}.${kind}.{{wildcard(1)}}.cmd.{{wildcard(2)}}`]),
  ),
  'cn.*.agent.*': `${partitioned}.cn.{{wildcard(1)}}.agent.{{wildcard(2)}}`,
  'hb.*': `${partitioned}.hb.{{wildcard(1)}}`,
}

/** What allocators answer. */
export const ALLOCATOR_CALLS = ['choose', 'capacity', 'decision', 'fleet'] as const
export type AllocatorCall = (typeof ALLOCATOR_CALLS)[number]

/** What an agent is told or asked on `agent.<uuid>.<what>`. */
export const AGENT_HEARS = ['task', 'cancel', 'read'] as const
export type AgentHears = (typeof AGENT_HEARS)[number]

/** Builders of subjects that are published or requested. `id`s are one token each. */
export const subject = {
  /** A command to an actor; answered by the owner of its partition. */
  command: (kind: Kind, id: string, verb: string) => `${kind}.${token(id)}.cmd.${verb}`,
  /** A call of a node's agent to its compute node actor: `report`, `sync`, `sysinfo`, `status`. */
  agentCall: (serverUuid: string, verb: string) => `cn.${token(serverUuid)}.agent.${verb}`,
  /** A liveness beat of a compute node. */
  heartbeat: (serverUuid: string) => `hb.${token(serverUuid)}`,
  /** What an agent listens to: `task` (an offer), `cancel` (one that has ended) or `read` (a live read). */
  agent: (serverUuid: string, what: AgentHears) => `agent.${token(serverUuid)}.${what}`,
  /** A hint for people and gateways that an actor's record changed. */
  event: (kind: Kind, id: string) => `evt.${kind}.${token(id)}`,
  /** The statechart of a kind, answered by any actor host. */
  machines: (kind: Kind) => `machines.${kind}`,
  /** Asks every actor host and allocator for its metrics. */
  metrics: () => 'metrics.ask',
  /** The choice of a server and what belongs to it, answered by any allocator. */
  allocator: (call: AllocatorCall) => `alloc.${call}`,
}

/** Patterns to subscribe to. */
export const pattern = {
  partition: (partition: number) => `p.${partition}.>`,
  heartbeats: () => 'p.*.hb.*',
  commands: (kind: Kind) => `p.*.${kind}.*.cmd.*`,
  agentCalls: (serverUuid: string) => `p.*.cn.${token(serverUuid)}.agent.*`,
  agentHeartbeat: (serverUuid: string) => `p.*.hb.${token(serverUuid)}`,
  agent: (serverUuid: string) => `agent.${token(serverUuid)}.>`,
  agents: () => 'agent.>',
  events: () => 'evt.>',
  machines: () => 'machines.*',
  /** Answers to requests of one identity: each has an inbox prefix of its own, so that none can read another's. */
  inbox: (owner: string) => `_INBOX.${token(owner)}.>`,
  partitions: () => 'p.>',
}

/** Inbox prefix of an identity, as the client library wants it. */
export const inboxPrefix = (owner: string) => `_INBOX.${token(owner)}`

/** What arrived on a partitioned subject. */
export type Arrival =
  | { partition: number; kind: Kind; id: string; channel: 'cmd' | 'agent'; verb: string }
  | { partition: number; kind: 'hb'; id: string }

/** Parses `p.<n>.…`; undefined for anything that is not one of ours, or whose partition is not that of its id. */
export function parseArrival(text: string): Arrival | undefined {
  const [p, n, kind, id, channel, verb, ...rest] = text.split('.')
  if (p !== 'p' || !n || !kind || !id || rest.length > 0) return undefined
  const partition = Number(n)
  if (partition !== partitionOf(id)) return undefined
  if (kind === 'hb' && channel === undefined) return { partition, kind, id }
  if (!isKind(kind) || !verb || (channel !== 'cmd' && channel !== 'agent')) return undefined
  if (channel === 'agent' && kind !== 'cn') return undefined
  return { partition, kind, id, channel, verb }
}

/** The kind asked for on `machines.<kind>`. */
export function parseMachines(text: string): Kind | undefined {
  const kind = text.split('.')[1]
  return kind && isKind(kind) ? kind : undefined
}

/** What an agent was sent: the last token of `agent.<uuid>.<what>`. */
export function parseAgent(text: string): AgentHears | undefined {
  const what = text.split('.')[2]
  return AGENT_HEARS.find(name => name === what)
}

/** The partition of an id, as nats-server's `partition(64,1)` computes it: FNV-1a (32 bit) modulo the count. */
export function partitionOf(id: string): number {
  let hash = 0x811c9dc5
  // Ids are ASCII (see token), so characters are bytes; this runs several times for every message.
  for (let at = 0; at < id.length; at++) hash = Math.imul(hash ^ id.charCodeAt(at), 0x01000193)
  return (hash >>> 0) % PARTITIONS
}

export function isKind(text: string): text is Kind {
  return (KINDS as readonly string[]).includes(text)
}

/** Ids become one token of a subject and one of a key; anything else is a bug of the caller. */
export function token(id: string): string {
  if (!/^[A-Za-z0-9_-]+$/.test(id)) throw new TypeError(`not a subject token: ${JSON.stringify(id)}`)
  return id
}
