/**
 * The waitlist as an operator sees it, beyond CNAPI: each queue of a server with who holds it, for what, since and until when, who waits,
 * and whether the holder's node is alive; and one queue watched as it changes.
 */
import * as v from 'valibot'
import { rejection } from '../../actors/contract/errors.ts'
import { TEXT_TYPE } from '../accept.ts'
import type { Backend, Queue, QueueChange, Server } from '../backend.ts'
import { EVENT_STREAM_TYPE, eventStream } from '../event-stream.ts'
import { createTeller, parsePosition } from '../queue-events.ts'
import { type AnyRow, row } from '../row.ts'
import { openTicket, type Ticket } from '../tickets.ts'

/** Most waiters of one queue that are shown; `waiting` counts all of them. */
export const WAITERS_SHOWN_MAX = 100

const Waiter = v.object({
  uuid: v.string(),
  action: v.optional(v.string()),
  reqid: v.optional(v.string()),
  token: v.number(),
  created_at: v.string(),
  expires_at: v.string(),
})
const Line = v.object({
  queue_key: v.string(),
  server_uuid: v.string(),
  scope: v.string(),
  id: v.string(),
  /** Who has the queue now, and since when. */
  holder: v.nullable(v.object({ ...Waiter.entries, active_since: v.string() })),
  waiting: v.number(),
  waiters: v.array(Waiter),
  /** The node of these tickets; null for `default`, which is none. */
  node: v.nullable(v.object({ alive: v.boolean(), status: v.string(), last_heartbeat: v.nullable(v.string()) })),
})
type Line = v.InferOutput<typeof Line>

export const waitlistRows: AnyRow[] = [
  row({
    method: 'GET',
    path: '/servers/:server_uuid/waitlist',
    name: 'ServerWaitlistShow',
    summary: 'Queues of a server that are in use, the one held longest first; as text/plain a table.',
    gate: 'GS',
    strict: true,
    params: {},
    success: { status: 200, description: 'Queues', body: v.array(Line) },
    errors: [],
    handle: async ({ server, accepted }, backend) => {
      await Promise.all([backend.servers.barrier(), backend.queues.barrier()])
      const queues = backend.queues.of(server.uuid).filter(({ open }) => open.length > 0)
      await backend.tickets.barrier()
      const lines = queues
        .sort((a, b) => (a.active_since ?? 0) - (b.active_since ?? 0))
        .map(queue => lineOf(queue, server, backend))
      if (accepted === TEXT_TYPE) return { status: 200, body: table(lines), type: TEXT_TYPE }
      return { status: 200, body: lines }
    },
  }),
  row({
    method: 'GET',
    path: '/servers/:server_uuid/waitlist/:queue_key/events',
    name: 'ServerWaitlistEvents',
    summary:
      'Server-sent events of one queue: each transition, then `queue` with the state after it. Goes on after Last-Event-ID; `gap` tells what is lost.',
    gate: 'GS',
    strict: true,
    params: {},
    success: { status: 200, description: 'A stream of events (text/event-stream)', body: v.string() },
    errors: ['ResourceNotFound'],
    types: [EVENT_STREAM_TYPE],
    handle: async ({ server, all, lastEventId, signal }, backend) => {
      const key = String(all['queue_key']).toLowerCase()
      // Changes that arrive while the record is read are told after it.
      const early: QueueChange[] = []
      let told = (change: QueueChange) => void early.push(change)
      const stop = backend.queues.watch(key, change => told(change))
      const now = /^[0-9a-f]{15}$/.test(key)
        ? await backend.queues.load(key).catch(error => {
            stop()
            throw error
          })
        : undefined
      if (now?.queue.server_uuid !== server.uuid) {
        stop()
        return { error: rejection('ResourceNotFound', `no queue ${key} of server ${server.uuid}`) }
      }
      signal().addEventListener('abort', stop, { once: true })
      const events = createTeller(parsePosition(lastEventId), queue => lineOf(queue, server, backend))
      const stream = eventStream(tell => {
        told = change => {
          for (const event of events(change)) tell(event)
        }
        for (const change of [now, ...early]) told(change)
        return stop
      })
      return { status: 200, stream, type: EVENT_STREAM_TYPE, headers: { 'cache-control': 'no-store' } }
    },
  }),
]

function lineOf(queue: Queue, server: Server, backend: Backend): Line {
  const tickets = queue.open
    .slice(0, WAITERS_SHOWN_MAX + 1)
    .map(([uuid], place) => openTicket(queue, place, backend.tickets.get(uuid)))
  const [holder, ...waiters] = tickets
  const { key, server_uuid, scope, id } = queue
  return {
    queue_key: key,
    server_uuid,
    scope,
    id,
    holder: holder ? { ...brief(holder), active_since: holder.updated_at } : null,
    waiting: Math.max(0, queue.open.length - 1),
    waiters: waiters.map(brief),
    node: server.uuid === 'default' ? null : nodeOf(backend.servers.get(server.uuid) ?? server, backend),
  }
}

function nodeOf({ uuid, status }: Server, backend: Backend): NonNullable<Line['node']> {
  const heardAt = backend.lastHeartbeat(uuid)
  const last_heartbeat = heardAt === undefined ? null : new Date(heardAt).toISOString()
  return { alive: status === 'running', status, last_heartbeat }
}

const brief = ({ uuid, action, reqid, token, created_at, expires_at }: Ticket) => ({
  uuid,
  ...(action === undefined ? {} : { action }),
  ...(reqid === undefined ? {} : { reqid }),
  token,
  created_at,
  expires_at,
})

/** A line for each holder and, below it, each waiter in order. */
function table(lines: Line[]): string {
  const header = ['SCOPE', 'ID', 'TICKET', 'ACTION', 'STATE', 'SINCE', 'EXPIRES', 'NODE']
  const rows = lines.flatMap(({ scope, id, holder, waiters, waiting, node }) => [
    ...(holder
      ? [
          [
            scope,
            id,
            holder.uuid,
            holder.action ?? '-',
            'active',
            holder.active_since,
            holder.expires_at,
            nodeText(node),
          ],
        ]
      : []),
    ...waiters.map((waiter, at) => [
      ...['', '', waiter.uuid, waiter.action ?? '-', `waiting, ${at + 1}.`],
      ...[waiter.created_at, waiter.expires_at, ''],
    ]),
    ...(waiting > waiters.length ? [['', '', `and ${waiting - waiters.length} more`, '', '', '', '', '']] : []),
  ])
  const cells = [header, ...rows].map(line => line.map(plain))
  const widths = header.map((_, at) => Math.max(...cells.map(line => line[at]!.length)))
  const text = cells.map(line => line.map((cell, at) => cell.padEnd(widths[at]!)).join('  '))
  return `${text.map(line => line.trimEnd()).join('\n')}\n`
}

const nodeText = (node: Line['node']) => (node ? (node.alive ? 'alive' : `${node.status}: not heard from`) : '-')

/** Names come from callers; a terminal acts on control characters. */
const plain = (text: string) => text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '?')
