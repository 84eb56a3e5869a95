/** A waitlist queue: creation order, one holder, expiry by a stored timer, and answers to late and repeated calls. */
import fc from 'fast-check'
import * as assert from 'uvu/assert'
import { actorsWith } from '../../actors/actors.ts'
import { expiryOf, OPEN_TICKETS_MAX, type QueueContext } from '../../actors/contract/ticket.ts'
import { createDecide } from '../../services/runtime/decide.ts'
import { suite } from '../suite.ts'
import { type Fleet, makeFleet, SERVER } from './fleet.ts'

const test = suite('waitlist machine')
const KEY = 'a'.repeat(15)
const ticket = (n: number) => `aaaaaaaa-aaaa-8aaa-8000-${String(n).padStart(12, '0')}`
const inMs = (fleet: Fleet, ms: number) => new Date(fleet.now + ms).toISOString()

function create(fleet: Fleet, n: number, ms = 60_000, more: Record<string, unknown> = {}) {
  const params = { ticket_uuid: ticket(n), server_uuid: SERVER, scope: 'vm', id: 'x', expires_at: inMs(fleet, ms) }
  return fleet.command('waitlist', KEY, 'create', { ...params, ...more })
}
const release = (fleet: Fleet, n: number) => fleet.command('waitlist', KEY, 'release', { ticket_uuid: ticket(n) })
const remove = (fleet: Fleet, ...n: number[]) =>
  fleet.command('waitlist', KEY, 'delete', { ticket_uuids: n.map(ticket) })
const queue = (fleet: Fleet) =>
  fleet.records.get(`waitlist.${KEY}`)?.snapshot.context as unknown as QueueContext | undefined
const openOf = (fleet: Fleet) => queue(fleet)?.open.map(([uuid]) => Number(uuid.slice(-12))) ?? []
const statusOf = (fleet: Fleet, n: number) => fleet.tickets.get(ticket(n))?.status

test('tickets are served in creation order, one at a time', () => {
  const fleet = makeFleet()
  for (const n of [1, 2, 3]) create(fleet, n)
  assert.equal(openOf(fleet), [1, 2, 3])
  release(fleet, 1)
  assert.equal([openOf(fleet), statusOf(fleet, 1)], [[2, 3], 'finished'])
  remove(fleet, 2)
  assert.equal([openOf(fleet), statusOf(fleet, 2)], [[3], undefined])
})

test('an expired holder frees the queue by itself, and a queued ticket expires in its place', () => {
  const fleet = makeFleet()
  create(fleet, 1, 1_000)
  create(fleet, 2, 500)
  create(fleet, 3, 60_000)
  fleet.advance(600)
  assert.equal([openOf(fleet), statusOf(fleet, 2)], [[1, 3], 'expired'])
  fleet.advance(600)
  assert.equal([openOf(fleet), statusOf(fleet, 1)], [[3], 'expired'])
})

test('a ticket created past its expiry is accepted and expires at once', () => {
  const fleet = makeFleet()
  assert.equal(Object.hasOwn(create(fleet, 1, -5_000), 'value'), true)
  assert.equal(openOf(fleet), [1])
  fleet.advance(0)
  assert.equal([openOf(fleet), statusOf(fleet, 1)], [[], 'expired'])
})

test('a repeated release, and one of an unknown ticket, change nothing', () => {
  const fleet = makeFleet()
  create(fleet, 1)
  create(fleet, 2)
  release(fleet, 1)
  const stored = fleet.record('waitlist', KEY)
  for (const n of [1, 99]) assert.equal(release(fleet, n), { value: {} })
  assert.is(fleet.record('waitlist', KEY), stored)
})

test('the same ticket again is answered the same and takes no second place', () => {
  const fleet = makeFleet()
  create(fleet, 1)
  const first = create(fleet, 2)
  assert.equal(create(fleet, 2), first)
  assert.equal(openOf(fleet), [1, 2])
})

test('a key that belongs to another queue is refused', () => {
  const fleet = makeFleet()
  create(fleet, 1)
  const reply = create(fleet, 2, 1000, { id: 'y' })
  assert.is('error' in reply && reply.error.code, 'InvalidArgument')
})

test('the 10,001st open ticket is refused, and the record of a full queue still fits its bucket', () => {
  const fleet = makeFleet()
  create(fleet, 0)
  const record = fleet.record('waitlist', KEY)
  const context = record.snapshot.context as unknown as QueueContext
  const open = Array.from({ length: OPEN_TICKETS_MAX }, (_, n) => [ticket(n), fleet.now + 60_000, fleet.now + n])
  const full = { ...record, snapshot: { ...record.snapshot, context: { ...context, open } } }
  fleet.records.set(`waitlist.${KEY}`, full)
  const reply = create(fleet, OPEN_TICKETS_MAX)
  assert.is('error' in reply && reply.error.code, 'QueueFull')
  const bytes = JSON.stringify(full).length
  assert.ok(bytes < 1024 * 1024, `${bytes} bytes`)
})

test('what is kept for repeats stays small: a full queue with many senders fits its bucket', () => {
  const fleet = makeFleet()
  const senders = 4
  for (let n = 0; n < OPEN_TICKETS_MAX; n += 1) {
    if (n === 70) {
      const record = fleet.record('waitlist', KEY)
      const context = record.snapshot.context as unknown as QueueContext
      for (; n < OPEN_TICKETS_MAX - 70; n++) context.open.push([ticket(n), fleet.now + 60_000, fleet.now + n])
    }
    const params = { ticket_uuid: ticket(n), server_uuid: SERVER, scope: 'vm', id: 'x', expires_at: '3000' }
    const sender = `gateway-01234567-12345-abcdefgh-${n % senders}`
    const key = { value: String(n).padStart(255, 'k'), fingerprint: 'f'.repeat(64) }
    const reply = fleet.command('waitlist', KEY, 'create', params, { sender, sequence: n + 1, floor: 1, key })
    assert.equal('value' in reply && (reply.value as { ahead: number }).ahead, n)
  }
  const bytes = JSON.stringify(fleet.record('waitlist', KEY)).length
  assert.ok(bytes < 750_000, `${bytes} bytes; base64 of them must fit a message of 1 MB`)
})

test('the token and time of creation that count are the committed ones, in queue order', () => {
  const fleet = makeFleet()
  create(fleet, 1)
  fleet.now += 1_000
  // The body of ticket 3 was written, its commit was lost; meanwhile another host, whose clock is behind, took ticket 2.
  const lost = fleet.records.get(`waitlist.${KEY}`)!
  create(fleet, 3)
  fleet.records.set(`waitlist.${KEY}`, lost)
  const early = fleet.tickets.get(ticket(3))?.token as number
  fleet.now += 500
  create(fleet, 2)
  create(fleet, 3)
  const tokens = queue(fleet)!.open.map(([, , token]) => token)
  assert.ok(tokens[0]! < tokens[1]! && tokens[1]! < tokens[2]!)
  assert.ok(early < tokens[1]!)
  for (const n of [1, 2, 3]) release(fleet, n)
  const body = fleet.tickets.get(ticket(3))!
  assert.equal([body.token, body.created_at], [tokens[2], new Date(tokens[2]!).toISOString()])
})

test('a delete of a ticket that has ended leaves the record as it is', () => {
  const fleet = makeFleet()
  create(fleet, 1)
  create(fleet, 2)
  release(fleet, 1)
  const stored = fleet.record('waitlist', KEY)
  remove(fleet, 1)
  assert.is(fleet.record('waitlist', KEY), stored)
  assert.is(fleet.tickets.has(ticket(1)), false)
})

test('a late copy of a create that another gateway repeated does not open the ticket again', () => {
  const fleet = makeFleet()
  const derived = 'aaaaaaaa-aaaa-8aaa-a000-000000000001'
  const ask = () => create(fleet, 0, 60_000, { ticket_uuid: derived })
  const first = ask()
  fleet.command('waitlist', KEY, 'release', { ticket_uuid: derived })
  fleet.now += 30_000
  const token = 'value' in first && (first.value as { token: number }).token
  assert.equal(ask(), { value: { token, ahead: -1 } })
  create(fleet, 2)
  assert.equal(ask(), { value: { token, ahead: -1 } })
  assert.equal([openOf(fleet), fleet.tickets.get(derived)?.status], [[2], 'finished'])
  fleet.now += 60_000
  release(fleet, 2)
  assert.equal(queue(fleet)?.ended, [], 'what cannot come any more is forgotten')
})

test('a body goes as long after its end as the host is told', () => {
  const days = 24 * 3600_000
  for (const ticketKeptMs of [days, 7 * days]) {
    const decide = createDecide(actorsWith({ ticketKeptMs }))
    const command = (verb: string, params: Record<string, unknown>) =>
      ({ type: 'command', channel: 'cmd', verb, command: { params } }) as const
    const triple = { server_uuid: SERVER, scope: 'vm', id: 'x', expires_at: '3000' }
    const at = Date.UTC(2026, 0, 1)
    const made = decide('waitlist', KEY, undefined, command('create', { ticket_uuid: ticket(1), ...triple }), at)
    const { puts } = decide('waitlist', KEY, made.record, command('release', { ticket_uuid: ticket(1) }), at)
    assert.equal(
      puts.map(put => put.type === 'patch' && put.ttl_ms),
      [ticketKeptMs],
    )
  }
})

test('tokens grow within a queue, and past one that was forgotten', () => {
  const fleet = makeFleet()
  for (const n of [1, 2, 3]) create(fleet, n)
  const tokens = [1, 2, 3].map(n => fleet.tickets.get(ticket(n))?.token as number)
  assert.ok(tokens[0]! < tokens[1]! && tokens[1]! < tokens[2]!)
  remove(fleet, 1, 2, 3)
  fleet.advance(25 * 3600_000)
  assert.is(queue(fleet), undefined, 'idle queues go')
  create(fleet, 4)
  assert.ok((fleet.tickets.get(ticket(4))?.token as number) > tokens[2]!)
})

test('an expiry is read as callers send it: a zone, none, a date, a year; what is no date is refused', () => {
  const at = Date.UTC(2027, 0, 2, 3, 4, 5)
  for (const text of [
    '2027-01-02T03:04:05.000Z',
    '2027-01-02T03:04:05',
    '2027-01-02T04:04:05+01:00',
    '2027-01-02 03:04:05',
  ]) {
    assert.is(expiryOf(text), at, text)
  }
  assert.is(expiryOf('3000'), Date.UTC(3000, 0, 1))
  for (const text of ['', 'garbage', 'tomorrow', '2027-13-45']) assert.is(expiryOf(text), undefined, text)
  const fleet = makeFleet()
  const reply = create(fleet, 1, 0, { expires_at: 'garbage' })
  assert.equal('error' in reply && reply.error.errors?.map(({ field }) => field), ['expires_at'])
})

const step = fc.oneof(
  fc.record({ do: fc.constant('create' as const), ms: fc.integer({ min: -10, max: 3_000 }), twice: fc.boolean() }),
  fc.record({ do: fc.constant('release' as const), n: fc.nat(30), twice: fc.boolean() }),
  fc.record({ do: fc.constant('delete' as const), n: fc.nat(30) }),
  fc.record({ do: fc.constant('advance' as const), ms: fc.integer({ min: 0, max: 1_500 }) }),
  fc.record({ do: fc.constant('crash' as const) }),
  fc.record({ do: fc.constant('crash in create' as const), back: fc.integer({ min: 0, max: 50 }) }),
)

test('whatever happens: one holder, creation order, nobody stuck, and every end is recorded', () => {
  const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31))
  console.log(`seed ${seed} (repeat with SEED=${seed})`)
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80 }), steps => {
      const fleet = makeFleet()
      const deleted = new Set<number>()
      const holders: number[] = []
      const tokens = new Map<string, number>()
      let lastToken = 0
      let created = 0
      for (const next of steps) {
        fleet.now += 1
        if (next.do === 'create') {
          created += 1
          create(fleet, created, next.ms)
          if (next.twice) create(fleet, created, next.ms)
        } else if (next.do === 'release') {
          release(fleet, next.n)
          if (next.twice) release(fleet, next.n)
        } else if (next.do === 'delete') {
          remove(fleet, next.n)
          deleted.add(next.n)
        } else if (next.do === 'advance') {
          fleet.advance(next.ms)
        } else if (next.do === 'crash in create') {
          // The body was written, the commit was lost; the caller's repeat meets a host whose clock is behind.
          created += 1
          const lost = fleet.records.get(`waitlist.${KEY}`)
          create(fleet, created, 60_000)
          if (lost) fleet.records.set(`waitlist.${KEY}`, lost)
          else fleet.records.delete(`waitlist.${KEY}`)
          fleet.now -= next.back
          create(fleet, created, 60_000)
        } else {
          // The bodies of a release were written, but its commit was lost: the queue still says who holds it.
          const lost = fleet.records.get(`waitlist.${KEY}`)
          const holder = openOf(fleet)[0]
          if (lost && holder !== undefined) {
            release(fleet, holder)
            fleet.records.set(`waitlist.${KEY}`, lost)
          }
        }
        const open = openOf(fleet)
        assert.equal(
          open,
          [...new Set(open)].sort((a, b) => a - b),
          'creation order, no ticket twice',
        )
        for (const [uuid, , token] of queue(fleet)?.open ?? []) {
          const known = tokens.get(uuid)
          assert.ok(known === undefined ? token > lastToken : token === known, 'tokens only grow and stay')
          tokens.set(uuid, token)
          lastToken = Math.max(lastToken, token)
        }
        if (open[0] !== undefined && holders.at(-1) !== open[0]) holders.push(open[0])
        for (const [, expiry] of queue(fleet)?.open ?? []) {
          const timer = fleet.record('waitlist', KEY).timers['expiry']
          assert.ok(timer && timer.at <= expiry, 'a ticket that no timer frees')
        }
      }
      assert.equal(
        holders,
        [...holders].sort((a, b) => a - b),
        'active strictly in creation order',
      )
      fleet.advance(120_000)
      assert.equal(openOf(fleet), [])
      for (let n = 1; n <= created; n++) {
        if (!deleted.has(n)) assert.ok(['finished', 'expired'].includes(statusOf(fleet, n) ?? ''), `ticket ${n}`)
      }
    }),
    { seed, numRuns: 500 },
  )
})

test.run()
