/** The waitlist on a real server: an actor host and two gateways as processes, tickets made through one and met through the other. */
import { randomUUID } from 'node:crypto'
import * as assert from 'uvu/assert'
import { OPEN_TICKETS_MAX } from '../../actors/contract/ticket.ts'
import { queueKey, queueOfTicket, randomIds } from '../../gateway/ids.ts'
import { createCaller } from '../../services/nats/caller.ts'
import { connectNats, type NatsConnection } from '../../services/nats/connect.ts'
import { encode } from '../../services/nats/json.ts'
import { provision } from '../../services/nats/provision.ts'
import { openRecords } from '../../services/nats/records.ts'
import { eventually } from '../eventually.ts'
import { freePorts, startNats, type TestNats } from '../nats.ts'
import { suite } from '../suite.ts'
import { actorHost, type Gateway, gateway, killAll, type Process } from '../waitlist/processes.ts'

const test = suite('waitlist, whole way')
const processes: Process[] = []
let nats: TestNats
let nc: NatsConnection
let host: Process
let [a, b] = [] as unknown as [Gateway, Gateway]
let server = ''

test.before(async () => {
  nats = await startNats()
  nc = await connectNats({ servers: nats.urls, name: 'test', inboxOwner: 'admin' })
  await provision(nc)
  const ports = await freePorts(2)
  host = actorHost(nats.url, 'one')
  a = gateway(nats.url, 'a', ports[0]!)
  b = gateway(nats.url, 'b', ports[1]!)
  processes.push(host, a, b)
  await Promise.all(processes.map(process => process.start()))
  server = await registered()
})
test.after(async () => {
  await killAll(processes)
  await nc?.close()
  await nats?.stop()
})

/** A server of its own for each test. */
async function registered(): Promise<string> {
  const uuid = randomUUID()
  const sysinfo = { UUID: uuid, Hostname: 'node', 'MiB of Memory': '1024', Setup: 'true' }
  assert.is((await a.ask('POST', `/servers/${uuid}/sysinfo`, { body: { sysinfo } })).status, 200)
  return uuid
}
const later = (ms: number) => new Date(Date.now() + ms).toISOString()
const create = (via: Gateway, more: Record<string, unknown> = {}, headers: Record<string, string> = {}, of = server) =>
  via.ask('POST', `/servers/${of}/tickets`, { body: { scope: 'vm', id: 'x', expires_at: '3000', ...more }, headers })
async function made(via: Gateway, more: Record<string, unknown> = {}): Promise<string> {
  const { status, body } = await create(via, more)
  assert.is(status, 202, JSON.stringify(body))
  return body.uuid
}
const statusOf = async (via: Gateway, uuid: string) => (await via.ask('GET', `/tickets/${uuid}`)).body.status
const release = (via: Gateway, uuid: string) => via.ask('PUT', `/tickets/${uuid}/release`)
const consumers = async () =>
  (await nc.request('$JS.API.STREAM.INFO.KV_waitlist')).json<{ state: { consumer_count: number } }>().state
    .consumer_count

test('a ticket made through one gateway is waited for, released and seen through the other', async () => {
  const id = randomUUID()
  const [first, second] = [await made(a, { id }), await made(b, { id })]
  assert.equal([await statusOf(b, first), await statusOf(a, second)], ['active', 'queued'])
  const [here, there] = [a.ask('GET', `/tickets/${second}/wait`), b.ask('GET', `/tickets/${second}/wait`)]
  assert.is((await release(b, first)).status, 204)
  assert.equal([(await here).status, (await there).status], [204, 204])
  assert.equal([await statusOf(a, first), await statusOf(b, second)], ['finished', 'active'])
})

test('every acknowledged ticket is in the list of the other gateway at once, and so is its release', async () => {
  const id = randomUUID()
  for (let round = 0; round < 20; round++) {
    const [via, other] = round % 2 ? [a, b] : [b, a]
    const uuid = await made(via, { id })
    const state = async () =>
      (await other.ask('GET', `/servers/${server}/tickets?order=DESC&limit=1`)).body.map(
        (ticket: { uuid: string; status: string }) => [ticket.uuid, ticket.status],
      )
    assert.equal(await state(), [[uuid, 'active']])
    await release(via, uuid)
    assert.equal(await state(), [[uuid, 'finished']])
  }
})

test('a create repeated through another gateway with its Idempotency-Key is the same ticket', async () => {
  const [id, headers] = [randomUUID(), { 'idempotency-key': randomUUID() }]
  const { body: first } = await create(a, { id }, headers)
  const { status, body } = await create(b, { id }, headers)
  assert.equal([status, body.uuid, body.token, body.queue.length], [202, first.uuid, first.token, 1])
  await release(a, first.uuid)
  assert.is((await create(b, { id }, headers)).body.uuid, first.uuid)
  assert.is(await statusOf(b, first.uuid), 'finished')
})

test('releases and deletes that are repeated or late are answered and free nobody else', async () => {
  const id = randomUUID()
  const [first, second, third] = [await made(a, { id }), await made(a, { id }), await made(a, { id })]
  const answers = await Promise.all([a, b, a, b].map(via => release(via, first)))
  assert.equal(
    answers.map(({ status }) => status),
    [204, 204, 204, 204],
  )
  assert.equal([await statusOf(a, second), await statusOf(a, third)], ['active', 'queued'])
  assert.is((await a.ask('DELETE', `/tickets/${second}`)).status, 204)
  assert.is((await b.ask('DELETE', `/tickets/${second}`)).status, 404)
  assert.is((await release(b, second)).status, 404)
  assert.is(await statusOf(b, third), 'active')
})

test('a ticket that has ended goes by itself after thirty days', async () => {
  const uuid = await made(a, { id: randomUUID() })
  await release(a, uuid)
  const { message } = (
    await nc.request('$JS.API.STREAM.MSG.GET.KV_ticket', encode({ last_by_subj: `$KV.ticket.${uuid}` }))
  ).json<{ message: { hdrs: string } }>()
  assert.match(Buffer.from(message.hdrs, 'base64').toString(), /Nats-TTL: ?2592000s/)
})

test('a wait tells expiry, release and deletion apart, through the other gateway', async () => {
  const id = randomUUID()
  await made(a, { id })
  const [expires, released, deleted] = [
    await made(a, { id, expires_at: later(1_500) }),
    await made(a, { id }),
    await made(a, { id }),
  ]
  const waits = [expires, released, deleted].map(uuid => b.ask('GET', `/tickets/${uuid}/wait`))
  await release(a, released)
  await a.ask('DELETE', `/tickets/${deleted}`)
  const [first, second, third] = await Promise.all(waits)
  assert.equal([first!.status, first!.body], [500, { code: 'InternalError', message: 'ticket has expired' }])
  assert.equal([second!.status, second!.body.code], [409, 'TicketFinished'])
  assert.equal([third!.status, third!.body.message], [404, `no such ticket ${deleted}`])
})

test('an expired holder frees its queue within two seconds', async () => {
  const id = randomUUID()
  await made(a, { id, expires_at: later(500) })
  const next = await made(b, { id })
  const began = performance.now()
  assert.is((await b.ask('GET', `/tickets/${next}/wait`)).status, 204)
  assert.ok(performance.now() - began < 2_500, `${performance.now() - began} ms`)
})

test('watchers of a queue go on at another gateway without missing a transition', async () => {
  const id = randomUUID()
  const first = await made(a, { id })
  const path = `/servers/${server}/waitlist/${queueOfTicket(first)}/events`
  const heard = async (via: Gateway, after: string | undefined, wanted: number, meanwhile: () => Promise<unknown>) => {
    const leaving = new AbortController()
    const headers: Record<string, string> = {
      accept: 'text/event-stream',
      ...(after ? { 'last-event-id': after } : {}),
    }
    const response = await fetch(`${via.url}${path}`, { headers, signal: leaving.signal })
    assert.is(response.headers.get('content-type'), 'text/event-stream')
    await meanwhile()
    const events: { id: string; event: string }[] = []
    let text = ''
    for await (const part of response.body!) {
      text += Buffer.from(part).toString()
      events.splice(
        0,
        events.length,
        ...[...text.matchAll(/id: (.*)\nevent: (.*)\n/g)].map(([, at, event]) => ({ id: at!, event: event! })),
      )
      if (events.filter(({ event }) => event === 'queue').length >= wanted) break
    }
    leaving.abort()
    return events
  }
  const began = await heard(a, undefined, 3, async () => {
    await made(a, { id })
    await release(b, first)
  })
  assert.equal(
    began.map(({ event }) => event),
    ['queue', 'create', 'queue', 'release', 'queue'],
  )
  for (let n = 0; n < 3; n++) await made(b, { id })
  const missed = await heard(b, began.at(-1)?.id, 1, async () => {})
  assert.equal(
    missed.map(({ event }) => event),
    ['create', 'create', 'create', 'queue'],
  )
})

test('waiters cost no consumer, and those that leave leave nothing', async () => {
  const id = randomUUID()
  const holder = await made(a, { id })
  const waiter = await made(a, { id })
  const before = await consumers()
  const leaving = new AbortController()
  const waits = Array.from({ length: 200 }, (_, n) =>
    (n % 2 ? a : b).ask('GET', `/tickets/${waiter}/wait`, { signal: leaving.signal }).catch(() => 'left'),
  )
  const stays = b.ask('GET', `/tickets/${waiter}/wait`)
  await eventually(async () => (await a.ask('GET', '/ping')).status === 200)
  assert.is(await consumers(), before)
  leaving.abort()
  assert.equal(new Set(await Promise.all(waits)), new Set(['left']))
  await release(a, holder)
  assert.is((await stays).status, 204)
  assert.is(await consumers(), before)
})

test(
  '1,100 tickets of a server go with one delete, those of another stay; the record stays small',
  async () => {
    const [mine, other] = [await registered(), await registered()]
    const kept = (await create(a, {}, {}, other)).body.uuid
    const ids = Array.from({ length: 1_100 }, (_, n) => n)
    let uuid = ''
    await Promise.all(
      Array.from({ length: 32 }, async (_, lane) => {
        for (const n of ids.filter(n => n % 32 === lane)) {
          const { status, body } = await create(n % 2 ? a : b, { id: n < 600 ? 'one' : String(n % 20) }, {}, mine)
          assert.is(status, 202)
          if (n < 600) uuid = body.uuid
        }
      }),
    )
    assert.is((await a.ask('GET', `/servers/${mine}/tickets?limit=1000&offset=500`)).body.length, 600)
    const waited = b.ask('GET', `/tickets/${uuid}/wait`)
    const began = performance.now()
    assert.is((await a.ask('DELETE', `/servers/${mine}/tickets?force=true`)).status, 204)
    console.log(`deleted 1,100 tickets in ${Math.round(performance.now() - began)} ms`)
    assert.equal((await b.ask('GET', `/servers/${mine}/tickets`)).body, [])
    assert.is((await waited).status, 404)
    assert.is(await statusOf(b, kept), 'active')
    const record = await openRecords(nc).get('waitlist', queueOfTicket(uuid)!)
    const bytes = encode(record?.value).length
    console.log(`the record of a queue after 600 tickets: ${bytes} bytes`)
    assert.ok(bytes < 32 * 1024, `${bytes} bytes`)
  },
  { limitMs: 90_000 },
)

test(
  'the 10,001st ticket of a queue is refused, and a full queue is read, waited for and freed like any other',
  async () => {
    const triple = { server_uuid: await registered(), scope: 'vm', id: randomUUID() }
    const key = queueKey(triple)
    const caller = createCaller(nc, `filler-${randomUUID()}`)
    const uuids: string[] = []
    const fill = async () => {
      while (uuids.length < OPEN_TICKETS_MAX) {
        const ticket_uuid = randomIds.ticket(key)
        uuids.push(ticket_uuid)
        const made = await caller.call('waitlist', key, 'create', { ticket_uuid, ...triple, expires_at: '3000' })
        assert.ok('value' in made, JSON.stringify(made))
      }
    }
    await Promise.all(Array.from({ length: 60 }, fill))
    const { status, body } = await create(a, { id: triple.id }, {}, triple.server_uuid)
    assert.equal([status, body.code], [409, 'QueueFull'])
    const bytes = encode((await openRecords(nc).get('waitlist', key))?.value).length
    console.log(`the record of a full queue: ${bytes} bytes`)
    const [line] = (await a.ask('GET', `/servers/${triple.server_uuid}/waitlist`)).body
    assert.equal([line.waiting, line.waiters.length], [OPEN_TICKETS_MAX - 1, 100])
    const next = line.waiters[0].uuid
    const waits = Array.from({ length: 20 }, (_, n) => (n % 2 ? a : b).ask('GET', `/tickets/${next}/wait`))
    const began = performance.now()
    assert.is((await release(a, line.holder.uuid)).status, 204)
    assert.equal([...new Set((await Promise.all(waits)).map(answer => answer.status))], [204])
    console.log(`release to 20 waiters of a full queue: ${Math.round(performance.now() - began)} ms`)
    assert.is((await create(b, { id: triple.id }, {}, triple.server_uuid)).body.queue.length, 1_000)
  },
  { limitMs: 120_000 },
)

test(
  'a wait survives the death of the host',
  async () => {
    const id = randomUUID()
    const [first, second] = [await made(a, { id }), await made(a, { id })]
    const waited = b.ask('GET', `/tickets/${second}/wait`)
    await host.kill()
    const released = release(a, first)
    await host.start()
    assert.is((await released).status, 204)
    assert.is((await waited).status, 204)
  },
  { limitMs: 60_000 },
)

test(
  'a holder that expired while every process was down has freed its queue when they are back',
  async () => {
    const id = randomUUID()
    const expires = Date.now() + 6_000
    const [first, second] = [await made(a, { id, expires_at: new Date(expires).toISOString() }), await made(b, { id })]
    await killAll(processes)
    await nats.kill()
    await eventually(() => Date.now() > expires + 500, { withinMs: 10_000 })
    await nats.restart()
    await Promise.all(processes.map(process => process.start()))
    assert.is((await a.ask('GET', `/tickets/${second}/wait`)).status, 204)
    assert.equal([await statusOf(b, first), await statusOf(b, second)], ['expired', 'active'])
  },
  { limitMs: 90_000 },
)

test.run()
