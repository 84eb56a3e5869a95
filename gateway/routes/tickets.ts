/**
 * Waitlist tickets (cnapi-behaviour §4): a place in the queue of (server_uuid, scope, id), waited for, held, and released.
 * Every change goes through the queue's actor; what a ticket is now is told by gateway/tickets.ts.
 */
import * as v from 'valibot'
import { type FieldError, rejection } from '../../actors/contract/errors.ts'
import { EXTRA_MAX_BYTES, expiryOf, type TicketBody } from '../../actors/contract/ticket.ts'
import { UnavailableError } from '../../services/nats/records.ts'
import type { Backend } from '../backend.ts'
import { queueKey, queueOfTicket } from '../ids.ts'
import { type Answer, type AnyRow, type Incoming, row } from '../row.ts'
import { object, text, trimmed } from '../rules.ts'
import {
  deleteTicketsOf,
  findTicket,
  openTickets,
  placeOf,
  TICKET_WAIT_MS,
  Ticket,
  tells,
  ticketsOf,
} from '../tickets.ts'
import { waitMs } from './tasks.ts'

const listMax = 1_000
/** A scope, an id, an action: what a person would still read. */
const nameMax = 256
const bodyMaxBytes = 32 * 1024

const name = v.pipe(text, v.maxLength(nameMax, `must have at most ${nameMax} characters`))

const createParams = {
  scope: name,
  id: name,
  expires_at: v.pipe(text, v.maxLength(64, 'must have at most 64 characters')),
  action: v.optional(name),
  extra: v.optional(object),
}

/** CNAPI tells what is no number twice. */
const whole = (param: string, form: RegExp) =>
  v.pipe(
    v.union([v.string(), v.number()], 'value was not a number'),
    v.check(value => !Number.isNaN(Number(value)), 'value was not a number'),
    v.check(value => form.test(String(value)), `Invalid value for param '${param}'`),
    v.transform(Number),
  )

const noTicket = (id: unknown) => ({ error: rejection('ResourceNotFound', `ticket ${id} not found`) })

const get = {
  path: '/tickets/:ticket_uuid',
  gate: 'GM',
  strict: false,
  params: {},
  success: { status: 200, description: 'The ticket', body: Ticket },
  errors: ['ResourceNotFound'],
  handle: async ({ all }: Incoming, backend: Backend): Promise<Answer> => {
    const found = await findTicket(backend, all['ticket_uuid'])
    return found ? { status: 200, body: found.ticket } : noTicket(all['ticket_uuid'])
  },
} as const

const release = {
  path: '/tickets/:ticket_uuid/release',
  gate: 'GM',
  strict: false,
  params: {},
  success: { status: 204, description: 'It is not active and will not be; the next in its queue is' },
  errors: ['ResourceNotFound'],
  handle: async ({ all, key, reqId }: Incoming, backend: Backend): Promise<Answer> => {
    const found = await findTicket(backend, all['ticket_uuid'])
    if (!found) return noTicket(all['ticket_uuid'])
    const params = { ticket_uuid: found.ticket.uuid }
    const outcome = await backend.call('waitlist', found.queue, 'release', params, { key, reqId })
    return 'error' in outcome ? outcome : { status: 204 }
  },
} as const

export const ticketRows: AnyRow[] = [
  row({
    method: 'GET',
    path: '/servers/:server_uuid/tickets',
    name: 'ServerWaitlistList',
    summary:
      'Tickets of a server in every state, by creation; `attribute` and `order` (ASC or DESC) sort them otherwise.',
    gate: 'GS',
    strict: true,
    params: {
      limit: v.optional(whole('limit', /^[1-9][0-9]*$/)),
      offset: v.optional(whole('offset', /^(0|[1-9][0-9]*)$/)),
      attribute: v.optional(trimmed),
      order: v.optional(v.pipe(trimmed, v.regex(/^(asc|desc)$/i, "Invalid value for param 'order'"))),
    },
    invalidStatus: 500,
    success: { status: 200, description: 'Tickets', body: v.array(Ticket) },
    errors: ['InvalidArgument'],
    handle: async ({ server, params }, backend) => {
      const { limit = listMax, offset = 0, attribute = 'created_at', order = 'ASC' } = params
      if (limit > listMax) return { error: rejection('InvalidArgument', `limit must be less than ${listMax}`) }
      const all = await ticketsOf(backend, server.uuid)
      const descending = order.toUpperCase() === 'DESC'
      if (attribute === 'created_at') {
        if (descending) all.reverse()
        return { status: 200, body: all.slice(offset, offset + limit).map(({ ticket }) => ticket()) }
      }
      const sorted = all.map(({ ticket }) => ticket()).sort(by(attribute, descending ? -1 : 1))
      return { status: 200, body: sorted.slice(offset, offset + limit) }
    },
  }),
  row({
    method: 'POST',
    path: '/servers/:server_uuid/tickets',
    name: 'ServerWaitlistTicketCreate',
    summary:
      'A ticket at the end of its queue. `expires_at` is a date of any usual form; one that has passed is accepted and expires at once. `token` grows within a queue.',
    gate: 'GS',
    strict: false,
    params: createParams,
    check: ({ expires_at, extra }) => [...notDate(expires_at), ...tooLarge(extra)],
    maxBodyBytes: bodyMaxBytes,
    success: {
      status: 202,
      description: 'Its place is durable; `queue` holds the open tickets of the queue, the active one first',
      body: v.object({ uuid: v.string(), token: v.number(), queue: v.array(Ticket) }),
    },
    errors: ['QueueFull'],
    handle: create,
  }),
  row({
    method: 'DELETE',
    path: '/servers/:server_uuid/tickets',
    name: 'ServerWaitlistTicketsDeleteAll',
    summary: 'Deletes every ticket of a server, whatever its state. Needs `force=true`.',
    gate: 'GS',
    strict: false,
    params: { force: v.optional(v.unknown()) },
    success: { status: 204, description: 'All that were acknowledged before the request are gone' },
    errors: ['PreconditionFailed'],
    handle: async ({ server, params, reqId }, backend) => {
      if (params.force !== 'true') {
        return { error: rejection('PreconditionFailed', 'Will not delete all tickets without ?force=true') }
      }
      const refusal = await deleteTicketsOf(backend, server.uuid, reqId)
      return refusal ? { error: refusal } : { status: 204 }
    },
  }),
  row({ ...get, method: 'GET', name: 'ServerWaitlistGetTicket', summary: 'A ticket in any state.' }),
  row({ ...get, method: 'POST', name: 'ServerWaitlistGetTicketByPost', summary: 'The same, as the document has it.' }),
  row({
    method: 'GET',
    path: '/tickets/:ticket_uuid/wait',
    name: 'ServerWaitlistTicketsWait',
    summary:
      'Answers once the ticket is active, or will never be; after `timeout` seconds (default and at most 3600) 504.',
    gate: 'GM',
    strict: false,
    params: { timeout: v.optional(v.unknown()) },
    success: { status: 204, description: 'The ticket is active' },
    errors: ['ResourceNotFound', 'TicketFinished', 'RequestTimedOut'],
    handle: async ({ all, params, signal }, backend) => {
      const id = all['ticket_uuid']
      const found = await findTicket(backend, id)
      if (!found) return noSuchTicket(id)
      const { ticket, queue } = found
      if (ticket.status !== 'queued') return ended(ticket.status, `ticket ${id} is expired`)
      const settled = await backend.queues.until(queue, now => tells(now, ticket), {
        deadlineMs: waitMs(params.timeout, TICKET_WAIT_MS),
        signal: signal(),
      })
      if (!settled) return stillQueued
      if (placeOf(settled, ticket.uuid) === 0) return { status: 204 }
      const end = await findTicket(backend, id)
      return end ? ended(end.ticket.status, 'ticket has expired') : noSuchTicket(id)
    },
  }),
  row({
    method: 'DELETE',
    path: '/tickets/:ticket_uuid',
    name: 'ServerWaitlistDeleteTickets',
    summary: 'Deletes a ticket in any state; the next in its queue becomes active.',
    gate: 'GM',
    strict: false,
    params: {},
    success: { status: 204, description: 'It is gone' },
    errors: ['ResourceNotFound'],
    handle: async ({ all, key, reqId }, backend) => {
      const id = all['ticket_uuid']
      const found = await findTicket(backend, id)
      if (!found) return key && (await wasDeleted(backend, id)) ? { status: 204 } : noTicket(id)
      const params = { ticket_uuids: [found.ticket.uuid] }
      const outcome = await backend.call('waitlist', found.queue, 'delete', params, { key, reqId })
      return 'error' in outcome ? outcome : { status: 204 }
    },
  }),
  row({ ...release, method: 'PUT', name: 'ServerWaitlistTicketRelease', summary: 'Ends a ticket in any state.' }),
  row({
    ...release,
    method: 'GET',
    name: 'ServerWaitlistTicketReleaseByGet',
    summary: 'The same, as the document has it.',
  }),
]

const noSuchTicket = (id: unknown) => ({ error: rejection('ResourceNotFound', `no such ticket ${id}`) })
const stillQueued = { error: rejection('RequestTimedOut', 'The ticket is still queued; wait for it again') }

/** What a wait is told of a ticket that is not queued any more. */
function ended(status: Ticket['status'], expired: string): Answer {
  switch (status) {
    case 'active':
      return { status: 204 }
    case 'finished':
      return { error: rejection('TicketFinished') }
    case 'expired':
      return { error: rejection('InternalError', expired) }
    // Only a leader that lags behind tells this after the queue has told otherwise.
    case 'queued':
      return stillQueued
  }
}

const notDate = (expires_at: string): FieldError[] =>
  expiryOf(expires_at) === undefined
    ? [{ field: 'expires_at', code: 'Invalid', message: 'must be a date, such as 2026-01-31T12:00:00.000Z' }]
    : []

const tooLarge = (extra: unknown): FieldError[] =>
  Buffer.byteLength(JSON.stringify(extra ?? {})) > EXTRA_MAX_BYTES
    ? [{ field: 'extra', code: 'Invalid', message: `must have at most ${EXTRA_MAX_BYTES} bytes as JSON` }]
    : []

/** Tickets without the attribute come last; equal ones stay in order of creation. */
const by = (attribute: string, direction: 1 | -1) => (a: Ticket, b: Ticket) => {
  const [left, right] = [a, b].map(ticket => (Object.hasOwn(ticket, attribute) ? comparable(ticket, attribute) : null))
  if (left === right) return 0
  if (left == null) return 1
  if (right == null) return -1
  return left < right ? -direction : direction
}

function comparable(ticket: Ticket, attribute: string): string {
  const value = ticket[attribute as keyof Ticket]
  return typeof value === 'string' ? value : JSON.stringify(value)
}

type Create = Incoming<typeof createParams, 'GS'>

/** The ticket's id is derived from the Idempotency-Key, so a repeat meets the ticket even when its queue has forgotten the key. */
async function create(incoming: Create, backend: Backend): Promise<Answer> {
  const { server, params, all, ids, key, reqId } = incoming
  const { scope, id, expires_at, action, extra } = params
  const triple = { server_uuid: server.uuid, scope, id }
  const queue = queueKey(triple)
  const uuid = ids.ticket(queue)
  const own = {
    ...triple,
    expires_at,
    ...(action === undefined ? {} : { action }),
    ...(extra === undefined ? {} : { extra }),
    ...(typeof all['req_id'] === 'string' ? { reqid: all['req_id'].slice(0, nameMax) } : {}),
  }
  const before = key && (await backend.tickets.look(uuid))
  if (before?.body ? before.body.status !== 'queued' : before?.known) {
    const { body } = before as { body: TicketBody | undefined }
    if (body && !sameRequest(body, own)) return { error: rejection('IdempotencyKeyReused') }
    const now = await backend.queues.load(queue)
    const token = body?.token ?? 0
    return { status: 202, body: { uuid, token, queue: now ? await openTickets(backend, now.queue) : [] } }
  }
  const outcome = await backend.call('waitlist', queue, 'create', { ticket_uuid: uuid, ...own }, { key, reqId })
  if ('error' in outcome) return outcome
  const { token, ahead } = outcome.value
  const at = new Date(token).toISOString()
  const body: TicketBody = { uuid, ...own, extra: extra ?? {}, created_at: at, updated_at: at, status: 'queued', token }
  const shown = await queueOf(backend, queue, body)
  const alone = (): Ticket[] => (ahead < 0 ? [] : [{ ...body, status: ahead === 0 ? 'active' : 'queued' }])
  return { status: 202, body: { uuid, token, queue: shown ?? alone() } }
}

const sameRequest = (body: TicketBody, own: Partial<TicketBody>) =>
  body.expires_at === own.expires_at &&
  body.action === own.action &&
  JSON.stringify(body.extra) === JSON.stringify(own.extra ?? {})

/** The queue after a create; undefined when no leader can be asked: the ticket is durable, so its caller must hear of it. */
async function queueOf(backend: Backend, queue: string, own: TicketBody): Promise<Ticket[] | undefined> {
  try {
    const now = await backend.queues.load(queue)
    return now && (await openTickets(backend, now.queue, own))
  } catch (error) {
    if (error instanceof UnavailableError) return undefined
    throw error
  }
}

/** Was there a ticket of this id within the last day: the repeat of a keyed request may have deleted it. */
async function wasDeleted(backend: Backend, id: unknown): Promise<boolean> {
  const uuid = String(id).toLowerCase()
  return queueOfTicket(uuid) !== undefined && (await backend.tickets.look(uuid)).known
}
