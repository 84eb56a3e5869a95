/**
 * The machine of a waitlist queue: tickets of one (server_uuid, scope, id), served strictly in creation order.
 *
 *   idle --create--> busy --release, delete, expire: the last ticket left--> idle --24 h--> forgotten
 *
 * The first open ticket is the active one, by definition: two cannot be active, and none can be skipped. Expiry is one stored timer, set to
 * the earliest expiry of any open ticket. Surprising: a queued ticket expires too; a release of a ticket that is not open changes nothing
 * and is answered well; the bodies' own status counts only for tickets that are not in this record.
 */
import { setup } from 'xstate'
import { rejection } from '../contract/errors.ts'
import {
  ENDED_KEPT_MS,
  ENDED_MAX,
  expiryOf,
  isDerived,
  OPEN_TICKETS_MAX,
  type QueueContext,
  TICKET_KEPT_MS,
  type TicketBody,
} from '../contract/ticket.ts'
import type { VerbParams } from '../contract/verbs.ts'
import { type Effect, effect, iso, type Refused, type Stamp } from '../effects.ts'

type Of<V extends 'create' | 'release' | 'delete'> = Stamp & { type: V } & VerbParams<'waitlist', V>
export type QueueEvent = Of<'create'> | Of<'release'> | Of<'delete'> | (Stamp & { type: 'expiry' }) | Refused
interface Args {
  context: QueueContext
  event: QueueEvent
}

/** A queue without tickets stays as long as callers may repeat a create by its Idempotency-Key. */
const IDLE_KEPT_MS = 24 * 3600_000

const states = setup({
  types: { context: {} as QueueContext, events: {} as QueueEvent, input: {} as { id: string } },
  actions: { addTicket: noted, endTickets: noted, deleteTickets: noted, refuse: noted, done: noted, watch: noted },
  guards: {
    isOther: ({ context, event }) =>
      event.type === 'create' && context.server_uuid !== '' && !sameTriple(context, event),
    isOpen: ({ context, event }) =>
      event.type === 'create' && context.open.some(([uuid]) => uuid === event.ticket_uuid),
    hasEnded: ({ context, event }) => event.type === 'create' && endedBefore(context, event) !== undefined,
    isFull: ({ context }) => context.open.length >= OPEN_TICKETS_MAX,
    leaves: ({ context, event }) => leaving(context, event).size > 0,
    empties: ({ context, event }) => leaving(context, event).size === context.open.length && context.open.length > 0,
  },
  delays: { idleKept: IDLE_KEPT_MS },
})

const join = states.assign(({ context, event }: Args) => {
  if (event.type !== 'create') return {}
  const token = nextToken(context, event.at)
  const entry: QueueContext['open'][number] = [event.ticket_uuid, expiryOf(event.expires_at) ?? event.at, token]
  return {
    server_uuid: event.server_uuid,
    scope: event.scope,
    id: event.id,
    open: [...context.open, entry],
    active_since: context.active_since ?? event.at,
    token,
    idle_since: null,
  }
})

const leave = states.assign(({ context, event }: Args) => {
  const gone = leaving(context, event)
  const open = context.open.filter(([uuid]) => !gone.has(uuid))
  const sameHolder = open[0]?.[0] === context.open[0]?.[0]
  const again = context.open.flatMap(([uuid, , token]) =>
    gone.has(uuid) && isDerived(uuid) ? [[uuid, event.at, token] as [string, number, number]] : [],
  )
  return {
    open,
    ended: [...context.ended.filter(([, at]) => event.at - at < ENDED_KEPT_MS), ...again].slice(-ENDED_MAX),
    active_since: open.length === 0 ? null : sameHolder ? context.active_since : event.at,
    idle_since: open.length === 0 ? event.at : null,
  }
})

const refuse = (code: 'QueueFull' | 'InvalidArgument', text?: string) => ({
  actions: [effect('refuse', (): Effect[] => [{ type: 'reject', rejection: rejection(code, text) }])],
})
const mismatch = { guard: 'isOther' as const, ...refuse('InvalidArgument', 'the queue key is of another queue') }
const again = { guard: 'isOpen' as const, actions: [effect('done', answerPlace)] }
const late = { guard: 'hasEnded' as const, actions: [effect('done', answerEnded)] }
const full = { guard: 'isFull' as const, ...refuse('QueueFull') }
const watch = effect('watch', watchExpiry)
const settled = effect('done', done)
const create = {
  target: 'busy',
  actions: [effect('addTicket', addTicket), join, effect('done', answerPlace), watch],
}
const leaves = <A>(actions: A) => [
  { guard: 'empties' as const, target: 'idle', actions },
  { guard: 'leaves' as const, actions },
]
const deleteBodies = effect('deleteTickets', deleteTickets)

/** The machine whose finished and expired tickets stay readable for that long, ms. */
export const makeWaitlistMachine = (ticketKeptMs: number) => {
  const ended = effect('endTickets', (context: QueueContext, event: QueueEvent) =>
    endTickets(context, event, ticketKeptMs),
  )
  return states.createMachine({
    id: 'waitlist',
    options: { maxIterations: 1000 },
    context: ({ input }) => ({
      key: input?.id ?? '',
      server_uuid: '',
      scope: '',
      id: '',
      open: [],
      active_since: null,
      token: 0,
      ended: [],
      idle_since: null,
    }),
    initial: 'idle',
    states: {
      idle: {
        after: { idleKept: 'forgotten' },
        on: {
          create: [mismatch, late, create],
          release: { actions: [settled] },
          delete: { actions: [deleteBodies, settled] },
        },
      },
      busy: {
        on: {
          create: [mismatch, again, late, full, create],
          release: [...leaves([ended, leave, settled, watch]), { actions: [settled] }],
          expiry: [...leaves([ended, leave, watch]), { actions: [watch] }],
          delete: [...leaves([deleteBodies, leave, settled, watch]), { actions: [deleteBodies, settled] }],
        },
      },
      forgotten: { type: 'final' },
    },
  })
}

export const waitlistMachine = makeWaitlistMachine(TICKET_KEPT_MS)

/** Tickets that this event takes out of the queue. */
function leaving(context: QueueContext, event: QueueEvent): Set<string> {
  const open = (uuids: string[]) => {
    const named = new Set(uuids)
    return new Set(context.open.flatMap(([uuid]) => (named.has(uuid) ? [uuid] : [])))
  }
  switch (event.type) {
    case 'release':
      return open([event.ticket_uuid])
    case 'delete':
      return open(event.ticket_uuids)
    case 'expiry':
      return new Set(context.open.filter(([, expiry]) => expiry <= event.at).map(([uuid]) => uuid))
    default:
      return new Set()
  }
}

/** A create that was repeated elsewhere and carried out there may still arrive: its ticket is not opened again. */
const endedBefore = ({ ended }: QueueContext, event: Of<'create'>) =>
  ended.find(([uuid, at]) => uuid === event.ticket_uuid && event.at - at < ENDED_KEPT_MS)

/** Grows within a queue, and past a queue that was forgotten, since the clock has gone on. */
const nextToken = (context: QueueContext, at: number): number => Math.max(context.token + 1, at)

const sameTriple = (context: QueueContext, event: Of<'create'>): boolean =>
  context.server_uuid === event.server_uuid && context.scope === event.scope && context.id === event.id

// Effects.

function addTicket(context: QueueContext, event: QueueEvent): Effect[] {
  if (event.type !== 'create') return []
  const token = nextToken(context, event.at)
  const body: TicketBody = {
    uuid: event.ticket_uuid,
    server_uuid: event.server_uuid,
    scope: event.scope,
    id: event.id,
    ...(event.action === undefined ? {} : { action: event.action }),
    extra: event.extra ?? {},
    expires_at: event.expires_at,
    created_at: iso(token),
    updated_at: iso(token),
    status: 'queued',
    ...(event.reqid === undefined ? {} : { reqid: event.reqid }),
    token,
  }
  return [{ type: 'create', bucket: 'ticket', key: event.ticket_uuid, value: body }]
}

function endTickets(context: QueueContext, event: QueueEvent, ttl_ms: number): Effect[] {
  const status = event.type === 'expiry' ? 'expired' : 'finished'
  const gone = leaving(context, event)
  return context.open.flatMap(([key, , token]): Effect[] => {
    if (!gone.has(key)) return []
    // The body may stem from a decision that was never committed, with another token than the one that counts.
    const patch = { status, created_at: iso(token), updated_at: iso(event.at), token }
    return [{ type: 'patch', bucket: 'ticket', key, while: { status: 'queued' }, patch, ttl_ms }]
  })
}

function deleteTickets(_context: QueueContext, event: QueueEvent): Effect[] {
  if (event.type !== 'delete') return []
  return event.ticket_uuids.map(key => ({ type: 'delete', bucket: 'ticket', key }))
}

/** The timer at the earliest expiry of any open ticket. */
function watchExpiry(context: QueueContext): Effect[] {
  const earliest = context.open.reduce((least, [, expiry]) => Math.min(least, expiry), Number.POSITIVE_INFINITY)
  if (!Number.isFinite(earliest)) return [{ type: 'cancel_timer', name: 'expiry' }]
  return [{ type: 'set_timer', name: 'expiry', at: earliest, event: { type: 'expiry' } }]
}

/** Where the ticket of this create stands. */
function answerPlace(context: QueueContext, event: QueueEvent): Effect[] {
  if (event.type !== 'create') return []
  const ahead = context.open.findIndex(([uuid]) => uuid === event.ticket_uuid)
  return [{ type: 'reply', value: { token: context.open[ahead]?.[2] ?? context.token, ahead } }]
}

function answerEnded(context: QueueContext, event: QueueEvent): Effect[] {
  const ended = event.type === 'create' ? endedBefore(context, event) : undefined
  return [{ type: 'reply', value: { token: ended?.[2] ?? context.token, ahead: -1 } }]
}

function done(): Effect[] {
  return [{ type: 'reply', value: {} }]
}

function noted(_: unknown, _params: { effects: Effect[] }): void {}
