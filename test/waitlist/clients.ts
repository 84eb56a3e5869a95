/**
 * Clients that contend for queues the way jobs do: take a ticket, wait, hold, release. Each checks at its turn that nobody else holds the
 * queue and that its fencing token is higher than every holder's before; every request is repeated until it is answered.
 */
import { randomUUID } from 'node:crypto'
import type { Answered, Gateway } from './processes.ts'

/** How a client treats its ticket. `abandon`: never releases; `leave`: releases before its turn; `remove`: deletes instead of releasing. */
export type Habit = 'release' | 'remove' | 'leave' | 'abandon'

export interface TicketLog {
  uuid: string
  queue: number
  habit: Habit
  token: number
  expiresAt: number
  /** When the client first asked for the end of its ticket, and when that was acknowledged, ms since the epoch. */
  endAsked?: number
  endAcknowledged?: number
}

export interface Clients {
  violations: string[]
  tickets: TicketLog[]
  /** ms of each acknowledged create and release, and from a holder's release to the next one's answer. */
  took: { create: number[]; release: number[]; handOver: number[] }
  /** Requests that failed and were repeated. */
  repeats: number
  /** Resolves when every client has come to the end of its last ticket. */
  done: Promise<void>
}

export interface ClientsOptions {
  gateways: Gateway[]
  serverUuid: string
  queues: number
  clients: number
  forMs: number
  random: () => number
}

const keptMs = 600_000
const requestLimitMs = 10_000
const waitSeconds = 8

export function startClients({ gateways, serverUuid, queues, clients, forMs, random }: ClientsOptions): Clients {
  const end = Date.now() + forMs
  const holders = new Map<number, TicketLog>()
  const freed = new Map<number, number>()
  const state: Clients = {
    violations: [],
    tickets: [],
    took: { create: [], release: [], handOver: [] },
    repeats: 0,
    done: Promise.resolve(),
  }
  const violated = (text: string) => void state.violations.push(`${new Date().toISOString()} ${text}`)

  /** Asks one gateway after the other until there is an answer that is none of a fault. */
  const ask = async (
    method: string,
    path: string,
    body?: unknown,
    headers: Record<string, string> = {},
  ): Promise<Answered> => {
    let turn = Math.floor(random() * gateways.length)
    for (let attempt = 0; ; attempt++) {
      const signal = AbortSignal.timeout(requestLimitMs)
      const answer = await gateways[turn++ % gateways.length]!.ask(method, path, { body, headers, signal }).catch(
        () => undefined,
      )
      if (answer && answer.status !== 503) return answer
      state.repeats += 1
      await new Promise(resolve => setTimeout(resolve, Math.min(1_000, 50 * 2 ** attempt)))
    }
  }

  /** Somebody was told that the queue is theirs. */
  const hold = (ticket: TicketLog) => {
    const now = Date.now()
    // An answer that was on its way while the ticket expired says nothing about now.
    if (now >= ticket.expiresAt) return
    const before = holders.get(ticket.queue)
    const held = before && before.endAsked === undefined && now < before.expiresAt
    if (held) violated(`queue ${ticket.queue}: ${ticket.uuid} is active while ${before.uuid} holds`)
    if (before && before.token >= ticket.token)
      violated(`queue ${ticket.queue}: token ${ticket.token} after ${before.token}`)
    holders.set(ticket.queue, ticket)
    const at = freed.get(ticket.queue)
    if (at !== undefined) state.took.handOver.push(now - at)
    freed.delete(ticket.queue)
  }

  const finish = async (ticket: TicketLog) => {
    const holds = holders.get(ticket.queue) === ticket
    ticket.endAsked = Date.now()
    if (holds) freed.set(ticket.queue, ticket.endAsked)
    const remove = ticket.habit === 'remove'
    const { status } = await ask(
      ...((remove ? ['DELETE', `/tickets/${ticket.uuid}`] : ['PUT', `/tickets/${ticket.uuid}/release`]) as [
        string,
        string,
      ]),
    )
    // A delete that was repeated may find that it has been done.
    if (status !== 204 && !(remove && status === 404)) violated(`${ticket.uuid}: its end was answered ${status}`)
    ticket.endAcknowledged = Date.now()
    state.took.release.push(ticket.endAcknowledged - ticket.endAsked)
  }

  const cycle = async (client: number) => {
    const queue = Math.floor(random() * queues)
    const chance = random()
    const habit: Habit = chance < 0.8 ? 'release' : chance < 0.87 ? 'remove' : chance < 0.94 ? 'leave' : 'abandon'
    const expiresAt = Date.now() + (habit === 'abandon' ? 1_500 + Math.floor(random() * 1_500) : keptMs)
    const body = {
      scope: 'queue',
      id: String(queue),
      expires_at: new Date(expiresAt).toISOString(),
      action: `${client} ${habit}`,
    }
    const asked = Date.now()
    const made = await ask('POST', `/servers/${serverUuid}/tickets`, body, { 'idempotency-key': randomUUID() })
    if (made.status !== 202) return violated(`a create was answered ${made.status} ${JSON.stringify(made.body)}`)
    state.took.create.push(Date.now() - asked)
    const ticket: TicketLog = { uuid: made.body.uuid, queue, habit, token: made.body.token, expiresAt }
    state.tickets.push(ticket)
    if (habit === 'leave') return finish(ticket)
    for (;;) {
      const { status, body: answer } = await ask('GET', `/tickets/${ticket.uuid}/wait?timeout=${waitSeconds}`)
      if (status === 204) break
      if (status === 504) continue
      if (habit === 'abandon' && status === 500 && answer.message.includes('expired')) return
      violated(`${ticket.uuid} (${habit}): a wait was answered ${status} ${JSON.stringify(answer)}`)
      return finish(ticket)
    }
    hold(ticket)
    await new Promise(resolve => setTimeout(resolve, random() * 40))
    if (habit !== 'abandon') await finish(ticket)
  }

  const run = async (client: number) => {
    while (Date.now() < end) await cycle(client)
  }
  state.done = Promise.all(Array.from({ length: clients }, (_, client) => run(client))).then(() => {})
  return state
}
