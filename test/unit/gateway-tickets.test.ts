/** Waitlist tickets over REST: what CNAPI's clients depend on (cnapi-behaviour §4.4), and a defined answer where the old service hung or died. */
import * as assert from 'uvu/assert'
import type { Queue } from '../../gateway/backend.ts'
import { queueKey, queueOfTicket, randomIds } from '../../gateway/ids.ts'
import { findTicket, tells } from '../../gateway/tickets.ts'
import { eventually } from '../eventually.ts'
import { fakeGateway, OTHER_SERVER, SERVER } from '../fake-backend.ts'
import { preparedBackend, TICKET } from '../gateway-samples.ts'
import { suite } from '../suite.ts'

const test = suite('tickets')

type Gateway = ReturnType<typeof start>
const start = () => {
  const gateway = fakeGateway(preparedBackend())
  gateway.backend.waitlist.command(queueOfTicket(TICKET)!, 'delete', { ticket_uuids: [TICKET] })
  return gateway
}
const base = { scope: 'vm', id: 'x', expires_at: '3000' }
const create = async ({ ask }: Gateway, more: Record<string, unknown> = {}, headers: Record<string, string> = {}) =>
  ask('POST', `/servers/${SERVER}/tickets`, { body: { ...base, ...more }, headers })
const made = async (gateway: Gateway, more: Record<string, unknown> = {}): Promise<string> =>
  (await create(gateway, more)).body.uuid
const statusOf = async ({ ask }: Gateway, uuid: string) => (await ask('GET', `/tickets/${uuid}`)).body.status
const inMs = (gateway: Gateway, ms: number) => new Date(gateway.backend.waitlist.fleet.now + ms).toISOString()
const uuids = (tickets: { uuid: string }[]) => tickets.map(({ uuid }) => uuid)

test('a create is answered 202 with the queue in creation order, the active ticket first, the new one included', async () => {
  const gateway = start()
  const first = await create(gateway, { action: 'provision', extra: { a: 1 }, req_id: 'r1' })
  assert.is(first.status, 202)
  const { created_at, updated_at, token, ...shown } = first.body.queue[0]
  assert.equal(shown, {
    ...base,
    uuid: first.body.uuid,
    server_uuid: SERVER,
    action: 'provision',
    extra: { a: 1 },
    status: 'active',
    reqid: 'r1',
  })
  assert.equal([created_at, updated_at, token], [new Date(token).toISOString(), created_at, first.body.token])
  const second = await create(gateway)
  assert.equal(uuids(second.body.queue), [first.body.uuid, second.body.uuid])
  assert.equal(
    second.body.queue.map(({ status }: { status: string }) => status),
    ['active', 'queued'],
  )
  assert.equal('action' in second.body.queue[1], false, 'what was not given is left out')
  assert.equal(second.body.queue[1].extra, {})
})

test('independent queues are independent: other scope, other id, other server, default', async () => {
  const gateway = start()
  gateway.backend.put.server({ uuid: OTHER_SERVER })
  for (const [path, more] of [
    [SERVER, {}],
    [SERVER, { scope: 'image' }],
    [SERVER, { id: 'y' }],
    [OTHER_SERVER, {}],
    ['default', {}],
  ] as const) {
    const { status, body } = await gateway.ask('POST', `/servers/${path}/tickets`, { body: { ...base, ...more } })
    assert.equal(
      [status, body.queue.length, body.queue[0].status],
      [202, 1, 'active'],
      `${path} ${JSON.stringify(more)}`,
    )
  }
})

test('the id of a ticket leads to its queue and is a UUIDv8', () => {
  const key = queueKey({ server_uuid: SERVER, scope: 'vm', id: 'x' })
  assert.match(key, /^[0-9a-f]{15}$/)
  const uuid = randomIds.ticket(key)
  assert.match(uuid, /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
  assert.is(queueOfTicket(uuid), key)
  assert.not.equal(
    queueKey({ server_uuid: SERVER, scope: 'vm,x', id: '' }),
    queueKey({ server_uuid: SERVER, scope: 'vm', id: 'x' }),
  )
})

test('missing and mistyped fields are 400 with one entry each, an expiry that is no date too', async () => {
  const gateway = start()
  const wrong = async (body: unknown) => {
    const answer = await gateway.ask('POST', `/servers/${SERVER}/tickets`, { body })
    assert.is(answer.status, 400, answer.text)
    assert.is(answer.body.code, 'InvalidParameters')
    return answer.body.errors.map(({ field, message }: { field: string; message: string }) => `${field}: ${message}`)
  }
  assert.equal(
    await wrong({}),
    ['scope', 'id', 'expires_at'].map(field => `${field}: value was not a string`),
  )
  assert.equal(await wrong({ ...base, scope: 1, action: null, extra: 'x' }), [
    'scope: value was not a string',
    'action: value was not a string',
    'extra: value is not an object. (was: [object String])',
  ])
  assert.equal(await wrong({ ...base, extra: [] }), ['extra: value is not an object. (was: [object Array])'])
  for (const expires_at of ['', 'garbage', 'tomorrow', '2027-13-45']) {
    assert.equal(await wrong({ ...base, expires_at }), ['expires_at: must be a date, such as 2026-01-31T12:00:00.000Z'])
  }
  assert.equal(await wrong({ ...base, scope: 's'.repeat(257) }), ['scope: must have at most 256 characters'])
})

test('extra may have 4 KiB as JSON and no more', async () => {
  const gateway = start()
  const extraOf = (bytes: number) => ({ a: 'x'.repeat(bytes - '{"a":""}'.length) })
  assert.is((await create(gateway, { extra: extraOf(4096) })).status, 202)
  const { status, body } = await create(gateway, { extra: extraOf(4097) })
  assert.equal([status, body.errors[0].field], [400, 'extra'])
})

test('expiries are accepted as clients send them and shown verbatim', async () => {
  const gateway = start()
  for (const expires_at of ['3000', '2050-10-10T00:00:00', '2050-10-10', '2050-10-10T00:00:00.000Z']) {
    const { status, body } = await create(gateway, { expires_at, id: expires_at })
    assert.equal([status, body.queue[0].expires_at], [202, expires_at])
  }
})

test('an expiry in the past is accepted; the ticket expires and the next is active', async () => {
  const gateway = start()
  const late = await made(gateway, { expires_at: '2015-10-10T00:00:00' })
  const next = await made(gateway)
  gateway.backend.waitlist.advance(0)
  assert.equal([await statusOf(gateway, late), await statusOf(gateway, next)], ['expired', 'active'])
})

/** Open tickets behind the one that is there, without their commands. */
function fill(gateway: Gateway, uuid: string, length: number): void {
  const record = gateway.backend.waitlist.fleet.record('waitlist', queueOfTicket(uuid)!)
  const context = record.snapshot.context as { open: [string, number, number][] }
  const [, expiry, token] = context.open[0]!
  const more = Array.from({ length: length - 1 }, (_, n) => [randomIds.ticket(queueOfTicket(uuid)!), expiry, token + n])
  context.open.push(...(more as [string, number, number][]))
}

test('a full queue is 409 QueueFull', async () => {
  const gateway = start()
  fill(gateway, await made(gateway), 10_000)
  const { status, body } = await create(gateway)
  assert.equal([status, body.code], [409, 'QueueFull'])
})

test('the queue in the answer has at most 1000 tickets, the new one among them', async () => {
  const gateway = start()
  fill(gateway, await made(gateway), 1_000)
  const { body } = await create(gateway)
  assert.is(body.queue.length, 1_000)
  assert.equal([body.queue[0].status, body.queue.at(-1).uuid], ['active', body.uuid])
})

test('with an Idempotency-Key a create is done once, also when its queue no longer knows the key', async () => {
  const gateway = start()
  const headers = { 'idempotency-key': 'k1' }
  const { body: first } = await create(gateway, {}, headers)
  const { status, body } = await create(gateway, {}, headers)
  assert.equal([status, body.uuid, body.queue.length], [202, first.uuid, 1])
  const other = await create(gateway, { action: 'other' }, headers)
  assert.equal([other.status, other.body.code], [422, 'IdempotencyKeyReused'])

  await gateway.ask('PUT', `/tickets/${first.uuid}/release`)
  gateway.backend.waitlist.fleet.records.clear()
  const late = await create(gateway, {}, headers)
  assert.equal([late.status, late.body.uuid, late.body.queue], [202, first.uuid, []])
  assert.is(await statusOf(gateway, first.uuid), 'finished', 'a ticket that has ended is not opened again')
  assert.is((await create(gateway, { action: 'other' }, headers)).status, 422)

  await gateway.ask('DELETE', `/tickets/${first.uuid}`)
  assert.is((await create(gateway, {}, headers)).status, 202)
  assert.is((await gateway.ask('GET', `/tickets/${first.uuid}`)).status, 404, 'nor one that was deleted')
})

test('release ends a ticket in any state with 204, by PUT and by GET, and never twice', async () => {
  const gateway = start()
  const [first, second, third] = [await made(gateway), await made(gateway), await made(gateway)]
  for (const [method, uuid] of [
    ['PUT', second],
    ['GET', first],
    ['PUT', first],
    ['PUT', first.toUpperCase()],
  ] as const) {
    const { status, text } = await gateway.ask(method, `/tickets/${uuid}/release`)
    assert.equal([status, text], [204, ''])
  }
  const states = await Promise.all([first, second, third].map(uuid => statusOf(gateway, uuid)))
  assert.equal(states, ['finished', 'finished', 'active'])
  const { updated_at } = (await gateway.ask('GET', `/tickets/${first}`)).body
  await gateway.ask('PUT', `/tickets/${first}/release`)
  assert.is((await gateway.ask('GET', `/tickets/${first}`)).body.updated_at, updated_at)
})

test('an expired ticket stays expired when it is released', async () => {
  const gateway = start()
  const uuid = await made(gateway, { expires_at: inMs(gateway, 100) })
  gateway.backend.waitlist.advance(200)
  assert.is((await gateway.ask('PUT', `/tickets/${uuid}/release`)).status, 204)
  assert.is(await statusOf(gateway, uuid), 'expired')
})

test('delete makes the next active, is 404 afterwards, and 204 again for the same Idempotency-Key', async () => {
  const gateway = start()
  const [first, second] = [await made(gateway), await made(gateway)]
  const headers = { 'idempotency-key': 'd1' }
  const remove = (more = {}) => gateway.ask('DELETE', `/tickets/${first}`, { headers: more })
  assert.is((await remove(headers)).status, 204)
  assert.is(await statusOf(gateway, second), 'active')
  const { status, body } = await remove()
  assert.equal([status, body], [404, { code: 'ResourceNotFound', message: `ticket ${first} not found` }])
  assert.is((await remove(headers)).status, 204)
})

test('ids that are no tickets are 404 in the words of each endpoint', async () => {
  const { ask } = start()
  for (const id of ['nonsense', SERVER, randomIds.ticket('0'.repeat(15)), 'a.b', '*']) {
    const shown = decodeURIComponent(id)
    for (const [method, path, message] of [
      ['GET', '', `ticket ${shown} not found`],
      ['POST', '', `ticket ${shown} not found`],
      ['DELETE', '', `ticket ${shown} not found`],
      ['PUT', '/release', `ticket ${shown} not found`],
      ['GET', '/wait', `no such ticket ${shown}`],
    ] as const) {
      const { status, body } = await ask(method, `/tickets/${id}${path}`)
      assert.equal([status, body.code, body.message], [404, 'ResourceNotFound', message], `${method} ${id}${path}`)
    }
  }
})

test('a body without a place in its queue was never acknowledged: 404, in no list, and deleted with the rest', async () => {
  const gateway = start()
  const key = queueKey({ server_uuid: SERVER, scope: 'vm', id: 'x' })
  const uuid = randomIds.ticket(key)
  const body = { ...base, uuid, server_uuid: SERVER, extra: {}, created_at: '2026-01-01T00:00:00.000Z' }
  const { tickets } = gateway.backend.waitlist.fleet
  tickets.set(uuid, { ...body, updated_at: body.created_at, status: 'queued', token: 1 })
  assert.is((await gateway.ask('GET', `/tickets/${uuid}`)).status, 404)
  assert.equal((await gateway.ask('GET', `/servers/${SERVER}/tickets`)).body, [])
  assert.is((await gateway.ask('DELETE', `/servers/${SERVER}/tickets?force=true`)).status, 204)
  assert.is(tickets.has(uuid), false)
})

test('a ticket acknowledged between the two reads is found', async () => {
  const gateway = start()
  const key = queueKey({ server_uuid: SERVER, scope: 'vm', id: 'x' })
  const uuid = randomIds.ticket(key)
  const { waitlist } = gateway.backend
  waitlist.meanwhile = () => {
    waitlist.meanwhile = undefined
    waitlist.command(key, 'create', { ticket_uuid: uuid, server_uuid: SERVER, ...base })
  }
  assert.is(await statusOf(gateway, uuid), 'active')
})

test('the body counts only for a ticket that is not open: a release that was never committed released nothing', async () => {
  const gateway = start()
  const uuid = await made(gateway)
  const { tickets } = gateway.backend.waitlist.fleet
  tickets.set(uuid, { ...tickets.get(uuid)!, status: 'finished' })
  assert.is(await statusOf(gateway, uuid), 'active')
  tickets.delete(uuid)
  const { body } = await gateway.ask('GET', `/tickets/${uuid}`)
  assert.equal([body.status, body.scope, body.id], ['active', 'vm', 'x'], 'also without its body')
})

test('the list has every state by creation; limit, offset, attribute and order are honoured', async () => {
  const gateway = start()
  const all = [
    await made(gateway, { id: 'c' }),
    await made(gateway, { id: 'b' }),
    await made(gateway, { id: 'a', action: 'z' }),
  ]
  await gateway.ask('PUT', `/tickets/${all[1]}/release`)
  const list = async (query = '') => {
    const { status, body } = await gateway.ask('GET', `/servers/${SERVER}/tickets${query}`)
    assert.is(status, 200)
    return body.map(({ uuid }: { uuid: string }) => all.indexOf(uuid))
  }
  const { body } = await gateway.ask('GET', `/servers/${SERVER}/tickets`)
  assert.equal(
    body.map(({ status }: { status: string }) => status),
    ['active', 'finished', 'active'],
  )
  assert.equal(await list(), [0, 1, 2])
  assert.equal(await list('?limit=2'), [0, 1])
  assert.equal(await list('?offset=1&limit=1'), [1])
  assert.equal(await list('?limit=1000&offset=0'), [0, 1, 2])
  assert.equal(await list('?order=DESC'), [2, 1, 0])
  assert.equal(await list('?attribute=id'), [2, 1, 0])
  assert.equal(await list('?attribute=id&order=desc'), [0, 1, 2])
  assert.equal(await list('?attribute=action'), [2, 0, 1], 'tickets without the attribute come last')
  assert.equal(await list('?attribute=toString'), [0, 1, 2])
})

test('bad list parameters are 500 InvalidParameters, too large a limit 409, unknown ones 409', async () => {
  const { ask } = start()
  const list = (query: string) => ask('GET', `/servers/${SERVER}/tickets?${query}`)
  for (const query of ['limit=0', 'limit=-1', 'limit=2.5', 'limit=', 'offset=-1', 'order=upwards', 'attribute=%20id']) {
    const { status, body } = await list(query)
    assert.equal([status, body.code, body.errors.length], [500, 'InvalidParameters', 1], query)
  }
  assert.is((await list('limit=many')).body.errors.length, 2)
  const { status, body } = await list('limit=1001')
  assert.equal([status, body], [409, { code: 'InvalidArgument', message: 'limit must be less than 1000' }])
  assert.is((await list('bogus=1')).body.message, 'bogus is not an explicitly defined parameter')
  assert.is((await ask('GET', `/servers/${OTHER_SERVER}/tickets?limit=0`)).status, 404)
  assert.is((await ask('GET', '/servers/nonsense/tickets')).status, 409)
})

test('delete all needs the string true, and leaves nothing in any state', async () => {
  const gateway = start()
  for (let n = 0; n < 600; n++) await made(gateway, { id: String(n % 3) })
  const [{ body }] = [await gateway.ask('GET', `/servers/${SERVER}/tickets?limit=5`)]
  await gateway.ask('PUT', `/tickets/${body[0].uuid}/release`)
  const remove = (query = '', sent?: unknown) =>
    gateway.ask('DELETE', `/servers/${SERVER}/tickets${query}`, { body: sent })
  for (const [query, sent] of [
    ['', undefined],
    ['?force=TRUE', undefined],
    ['?force=1', undefined],
    ['', { force: true }],
  ] as const) {
    const refused = await remove(query, sent)
    assert.equal(
      [refused.status, refused.body],
      [412, { code: 'PreconditionFailed', message: 'Will not delete all tickets without ?force=true' }],
    )
  }
  assert.is((await remove('', { force: 'true' })).status, 204)
  assert.equal((await gateway.ask('GET', `/servers/${SERVER}/tickets`)).body, [])
  assert.is(gateway.backend.waitlist.fleet.tickets.size, 0)
})

test('wait is 204 at once for an active ticket and when its turn comes', async () => {
  const gateway = start()
  const [first, second] = [await made(gateway), await made(gateway)]
  const { status, text } = await gateway.ask('GET', `/tickets/${first}/wait`)
  assert.equal([status, text], [204, ''])
  const waited = gateway.ask('GET', `/tickets/${second}/wait`)
  await eventually(() => gateway.backend.waitlist.waiting() === 1)
  await gateway.ask('PUT', `/tickets/${first}/release`)
  assert.is((await waited).status, 204)
})

test('a state of the queue from before the ticket was created does not end its wait', async () => {
  const gateway = start()
  const holder = await made(gateway)
  const record = gateway.backend.waitlist.fleet.record('waitlist', queueOfTicket(holder)!)
  const past = { ...(record.snapshot.context as unknown as Queue), count: record.count, recent: record.recent }
  const uuid = await made(gateway)
  const { ticket } = (await findTicket(gateway.backend, uuid))!
  assert.is(tells(past, ticket), false)
  await gateway.ask('PUT', `/tickets/${uuid}/release`)
  const now = (await gateway.backend.queues.load(queueOfTicket(uuid)!))!.queue
  assert.is(tells(now, ticket), true)
})

const ends = {
  'that expires is 500 with the text clients match': {
    end: async ({ backend }: Gateway) => backend.waitlist.advance(2_000),
    status: 500,
    body: () => ({ code: 'InternalError', message: 'ticket has expired' }),
  },
  'that is released is 409': {
    end: async ({ ask }: Gateway, uuid: string) => ask('PUT', `/tickets/${uuid}/release`),
    status: 409,
    body: () => ({ code: 'TicketFinished', message: 'The ticket is finished' }),
  },
  'that is deleted is 404': {
    end: async ({ ask }: Gateway, uuid: string) => ask('DELETE', `/tickets/${uuid}`),
    status: 404,
    body: (uuid: string) => ({ code: 'ResourceNotFound', message: `no such ticket ${uuid}` }),
  },
  'that goes with all others is 404': {
    end: async ({ ask }: Gateway) => ask('DELETE', `/servers/${SERVER}/tickets?force=true`),
    status: 404,
    body: (uuid: string) => ({ code: 'ResourceNotFound', message: `no such ticket ${uuid}` }),
  },
}
for (const [claim, { end, status, body }] of Object.entries(ends)) {
  test(`a wait for a ticket ${claim}`, async () => {
    const gateway = start()
    await made(gateway)
    const uuid = await made(gateway, { expires_at: inMs(gateway, 1_000) })
    const waited = gateway.ask('GET', `/tickets/${uuid}/wait`)
    await eventually(() => gateway.backend.waitlist.waiting() === 1)
    await end(gateway, uuid)
    const answer = await waited
    assert.equal([answer.status, answer.body], [status, body(uuid)])
  })
}

test('a wait for a ticket that has ended answers at once', async () => {
  const gateway = start()
  const [expired, finished] = [await made(gateway, { expires_at: '2015' }), await made(gateway)]
  gateway.backend.waitlist.advance(0)
  await gateway.ask('PUT', `/tickets/${finished}/release`)
  const first = await gateway.ask('GET', `/tickets/${expired}/wait`)
  assert.equal([first.status, first.body], [500, { code: 'InternalError', message: `ticket ${expired} is expired` }])
  const second = await gateway.ask('GET', `/tickets/${finished}/wait`)
  assert.equal([second.status, second.body.code], [409, 'TicketFinished'])
})

test('a wait ends: 504 at its deadline, and at once when its caller leaves', async () => {
  const gateway = start()
  await made(gateway)
  const uuid = await made(gateway)
  const late = await gateway.ask('GET', `/tickets/${uuid}/wait?timeout=1`)
  assert.equal([late.status, late.body.code], [504, 'RequestTimedOut'])
  const leaving = new AbortController()
  const waited = gateway.ask('GET', `/tickets/${uuid}/wait`, { signal: leaving.signal })
  await eventually(() => gateway.backend.waitlist.waiting() === 1)
  leaving.abort()
  await waited
  assert.is(gateway.backend.waitlist.waiting(), 0)
})

test.run()
