/**
 * The whole history of every queue, as it was committed, and what must hold of it: nobody enters but at the end, nobody leaves without a
 * reason, nobody comes back, tokens only grow. The bucket keeps one revision a key; for a test it is told to keep them all.
 */
import type { NatsConnection } from '../../services/nats/connect.ts'
import { decode, encode } from '../../services/nats/json.ts'
import type { TicketLog } from './clients.ts'

type Open = [uuid: string, expiry: number, token: number]

export interface History {
  revisions: number
  queues: number
  /** Every ticket that was ever open. */
  seen: Set<string>
  /** Still open at the end. */
  open: string[]
  violations: string[]
}

const stream = 'KV_waitlist'

export async function keepHistory(nc: NatsConnection): Promise<void> {
  const ask = async (call: string, body?: unknown) =>
    (await nc.request(`$JS.API.${call}.${stream}`, encode(body), { timeout: 5_000 })).json<{
      config: object
      error?: object
    }>()
  const { config } = await ask('STREAM.INFO')
  const { error } = await ask('STREAM.UPDATE', { ...config, max_msgs_per_subject: -1 })
  if (error) throw new Error(JSON.stringify(error))
}

/** Clocks of hosts and of the store differ by what one machine's processes see late. */
const slackMs = 50

export async function readHistory(nc: NatsConnection, tickets: TicketLog[]): Promise<History> {
  const logs = new Map(tickets.map(ticket => [ticket.uuid, ticket]))
  const open = new Map<string, Open[]>()
  const counts = new Map<string, number>()
  const history: History = { revisions: 0, queues: 0, seen: new Set(), open: [], violations: [] }
  const violated = (text: string) => void history.violations.push(text)
  for await (const { key, at, record } of messages(nc)) {
    history.revisions += 1
    const where = `${key} revision ${history.revisions}`
    const before = open.get(key) ?? []
    const now = (record?.snapshot.context.open ?? []) as Open[]
    const count = record?.count ?? 0
    if (record && count < (counts.get(key) ?? 0)) violated(`${where}: ${count} transitions after ${counts.get(key)}`)
    counts.set(key, count)

    const stays = new Set(now.map(([uuid]) => uuid))
    const survivors = before.filter(([uuid]) => stays.has(uuid))
    const order = now.slice(0, survivors.length)
    if (JSON.stringify(order) !== JSON.stringify(survivors))
      violated(`${where}: those who stayed are not in their places`)
    let last = Math.max(0, ...before.map(([, , token]) => token))
    for (const [uuid, , token] of now.slice(survivors.length)) {
      if (history.seen.has(uuid)) violated(`${where}: ${uuid} came back`)
      if (token <= last) violated(`${where}: token ${token} after ${last}`)
      last = token
      history.seen.add(uuid)
    }
    for (const [uuid, expiry] of before) {
      if (stays.has(uuid)) continue
      const asked = logs.get(uuid)?.endAsked
      const reason = expiry <= at + slackMs || (asked !== undefined && asked <= at + slackMs)
      if (!reason) violated(`${where}: ${uuid} left without a reason`)
    }
    open.set(key, now)
  }
  history.queues = open.size
  history.open = [...open.values()].flat().map(([uuid]) => uuid)
  for (const { uuid, habit } of tickets) {
    // A create that was held up past its ticket's expiry enters and leaves with one commit.
    if (!history.seen.has(uuid) && habit !== 'abandon') violated(`${uuid} was acknowledged and never in its queue`)
  }
  for (const { uuid, endAcknowledged } of tickets) {
    if (endAcknowledged !== undefined && history.open.includes(uuid)) violated(`${uuid} was ended and is open`)
  }
  return history
}

interface Stored {
  key: string
  /** When the server stored it, ms since the epoch. */
  at: number
  record: { count: number; snapshot: { context: { open: unknown } } } | undefined
}

const atOnce = 64

/** Every message of the stream, in order; a sequence that is not there was deleted by nobody, so it is an error. */
async function* messages(nc: NatsConnection): AsyncGenerator<Stored> {
  const info = (await nc.request(`$JS.API.STREAM.INFO.${stream}`)).json<{
    state: { first_seq: number; last_seq: number }
  }>()
  const { first_seq, last_seq } = info.state
  for (let from = first_seq; from <= last_seq; from += atOnce) {
    const sequences = Array.from({ length: Math.min(atOnce, last_seq - from + 1) }, (_, n) => from + n)
    const read = sequences.map(async seq => {
      const answer = (await nc.request(`$JS.API.STREAM.MSG.GET.${stream}`, encode({ seq }), { timeout: 5_000 })).json<{
        message?: { subject: string; data?: string; time: string }
        error?: object
      }>()
      if (!answer.message) throw new Error(`revision ${seq} cannot be read: ${JSON.stringify(answer.error)}`)
      const { subject, data = '', time } = answer.message
      const record = decode(Buffer.from(data, 'base64')) as Stored['record']
      return { key: subject.slice('$KV.waitlist.'.length), at: Date.parse(time), record }
    })
    for (const stored of await Promise.all(read)) yield stored
  }
}
