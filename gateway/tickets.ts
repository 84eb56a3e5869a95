/**
 * What a ticket is now. Open tickets are what their queue's record says: the first is active, the others are queued; a body counts
 * only for a ticket that is not in it. A body that says `queued` without a place in its queue was never acknowledged: there is no such
 * ticket (cnapi-behaviour §4).
 */
import * as v from 'valibot'
import type { Rejection } from '../actors/contract/errors.ts'
import { TicketBody } from '../actors/contract/ticket.ts'
import type { Backend, Queue } from './backend.ts'
import { queueOfTicket } from './ids.ts'

/** A ticket as callers see it. `token` grows within a queue: what the ticket guards refuses a holder whose token is lower than one it has seen. */
export const Ticket = v.object({
  ...TicketBody.entries,
  status: v.picklist(['queued', 'active', 'finished', 'expired']),
})
export type Ticket = v.InferOutput<typeof Ticket>

/** Default and longest wait for a ticket; its caller asks again after that. */
export const TICKET_WAIT_MS = 3_600_000
/** Tickets deleted by one command, and commands under way at once, when all of a server's go. */
const deletedAtOnce = 100
const commandsAtOnce = 32
/** Most tickets in the `queue` of a create's answer (the old service's page). */
export const QUEUE_SHOWN_MAX = 1_000

/**
 * The ticket of an id that a caller gave, by the leaders' records; undefined for what is none. A leader that was deposed may answer
 * from the past for a moment, so nothing is called unknown at the first look.
 */
export async function findTicket(
  backend: Backend,
  id: unknown,
): Promise<{ ticket: Ticket; queue: string } | undefined> {
  const uuid = String(id).toLowerCase()
  const queue = queueOfTicket(uuid)
  if (!queue) return undefined
  for (const pauseMs of looksAfterMs) {
    if (pauseMs > 0) await new Promise(resolve => setTimeout(resolve, pauseMs))
    const found = await backend.queues.load(queue)
    const place = found ? placeOf(found.queue, uuid) : -1
    const { body } = await backend.tickets.look(uuid)
    if (found && place >= 0) return { ticket: openTicket(found.queue, place, body), queue }
    if (body && body.status !== 'queued') return { ticket: { ...body }, queue }
  }
  return undefined
}

const looksAfterMs = [0, 50, 150]

/**
 * Does this state of its queue tell a queued ticket anything: that it is active, or open no more. A state from before the ticket's creation,
 * which a deposed leader may show, does not.
 */
export function tells(queue: Queue, { uuid, token }: Ticket): boolean {
  const place = placeOf(queue, uuid)
  return place === 0 || (place < 0 && queue.token >= token)
}

/** Place of an open ticket in its queue; -1 when it is not open. The first is looked at first: most who ask wait for it. */
export function placeOf(queue: Queue, uuid: string): number {
  if (queue.open[0]?.[0] === uuid) return 0
  let places = known.get(queue.open)
  if (!places) {
    places = new Map(queue.open.map(([other], place) => [other, place]))
    known.set(queue.open, places)
  }
  return places.get(uuid) ?? -1
}
const known = new WeakMap<Queue['open'], Map<string, number>>()

/** An open ticket. Without a body (its deletion was begun and never committed) it shows what the queue knows. */
export function openTicket(queue: Queue, place: number, body: TicketBody | undefined): Ticket {
  const [uuid, expiry, token] = queue.open[place]!
  const { server_uuid, scope, id, active_since } = queue
  const createdAt = iso(token)
  return {
    ...(body ?? { uuid, server_uuid, scope, id, extra: {}, expires_at: iso(expiry) }),
    created_at: createdAt,
    updated_at: place === 0 ? iso(Math.max(active_since ?? token, token)) : createdAt,
    status: place === 0 ? 'active' : 'queued',
    token,
  }
}

/** The open tickets of a queue in creation order, at most QUEUE_SHOWN_MAX of them, the named one always among them. */
export async function openTickets(backend: Backend, queue: Queue, own?: TicketBody): Promise<Ticket[]> {
  const places = queue.open.slice(0, QUEUE_SHOWN_MAX).map((_, place) => place)
  const ownPlace = own ? placeOf(queue, own.uuid) : -1
  if (ownPlace >= places.length) places.splice(-1, 1, ownPlace)
  return Promise.all(
    places.map(async place => {
      const uuid = queue.open[place]![0]
      const seen = uuid === own?.uuid ? own : backend.tickets.get(uuid)
      return openTicket(queue, place, seen ?? (await backend.tickets.look(uuid)).body)
    }),
  )
}

/** A ticket of a list, put together only when it is shown. */
export interface Listed {
  uuid: string
  createdAt: number
  ticket(): Ticket
}

/** Every ticket of a server that was acknowledged before the call, in order of creation. */
export async function ticketsOf(backend: Backend, serverUuid: string): Promise<Listed[]> {
  await backend.queues.barrier()
  // Kept as they are now: bodies of what leaves a queue later may not have arrived when the next barrier is through.
  const queues = backend.queues.of(serverUuid)
  await backend.tickets.barrier()
  const open = queues.flatMap(queue =>
    queue.open.map(([uuid, , token], place) => ({
      uuid,
      createdAt: token,
      ticket: () => openTicket(queue, place, backend.tickets.get(uuid)),
    })),
  )
  const isOpen = new Set(open.map(({ uuid }) => uuid))
  const ended = [...backend.tickets.of(serverUuid)]
    .filter(stored => stored.ended && !isOpen.has(stored.uuid))
    .map(({ uuid, createdAt, body }) => ({ uuid, createdAt, ticket: (): Ticket => ({ ...body() }) }))
  return [...open, ...ended].sort((a, b) => a.createdAt - b.createdAt || (a.uuid < b.uuid ? -1 : 1))
}

/**
 * Deletes every ticket of a server that was acknowledged before the call, and bodies of those that never were; returns the first refusal,
 * after which it may be asked again.
 */
export async function deleteTicketsOf(
  backend: Backend,
  serverUuid: string,
  reqId: string,
): Promise<Rejection | undefined> {
  const listed = await ticketsOf(backend, serverUuid)
  const byQueue = new Map<string, Set<string>>()
  for (const { uuid } of [...listed, ...backend.tickets.of(serverUuid)]) {
    const queue = queueOfTicket(uuid)
    if (!queue) continue
    const uuids = byQueue.get(queue)
    if (uuids) uuids.add(uuid)
    else byQueue.set(queue, new Set([uuid]))
  }
  const queues = [...byQueue].map(([queue, uuids]) => ({ queue, uuids: [...uuids] }))
  let refusal: Rejection | undefined
  // One command after the other to one queue, so that each has its full time.
  const worker = async () => {
    for (let next = queues.shift(); next && !refusal; next = queues.shift()) {
      const { queue, uuids } = next
      for (let at = 0; at < uuids.length && !refusal; at += deletedAtOnce) {
        const ticket_uuids = uuids.slice(at, at + deletedAtOnce)
        const outcome = await backend.call('waitlist', queue, 'delete', { ticket_uuids }, { reqId })
        if ('error' in outcome) refusal = outcome.error
      }
    }
  }
  await Promise.all(Array.from({ length: commandsAtOnce }, worker))
  return refusal
}

const iso = (at: number) => new Date(at).toISOString()
