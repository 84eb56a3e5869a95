/** What an operator sees of the waitlist: who holds what, who waits, and each change of a queue without a gap that is not told. */
import * as assert from 'uvu/assert'
import { BACKLOG_MAX_BYTES, EVENT_STREAM_TYPE, eventStream } from '../../gateway/event-stream.ts'
import { derivedIds, queueKey } from '../../gateway/ids.ts'
import { eventually } from '../eventually.ts'
import { fakeBackend, fakeGateway, SERVER, VM } from '../fake-backend.ts'
import { suite } from '../suite.ts'

const test = suite('waitlist')
const KEY = queueKey({ server_uuid: SERVER, scope: 'vm', id: VM })
const ticket = (n: number) => derivedIds(String(n), 'test').ticket(KEY)

function start() {
  const backend = fakeBackend()
  backend.put.server({})
  const gateway = fakeGateway(backend)
  const { waitlist } = backend
  const create = (n: number, more: Record<string, unknown> = {}) =>
    waitlist.command(KEY, 'create', {
      ticket_uuid: ticket(n),
      ...{ server_uuid: SERVER, scope: 'vm', id: VM },
      expires_at: '3000',
      ...more,
    })
  const release = (n: number) => waitlist.command(KEY, 'release', { ticket_uuid: ticket(n) })
  return { ...gateway, waitlist, create, release }
}

test('each queue is a line: holder, action, since when, until when, waiters in order, and whether the node is alive', async () => {
  const { ask, backend, create, waitlist } = start()
  create(1, { action: 'provision', reqid: 'r1' })
  create(2, { action: 'reboot' })
  create(3)
  waitlist.command(KEY, 'release', { ticket_uuid: ticket(1) })
  const since = new Date(waitlist.fleet.now).toISOString()
  backend.put.beat(SERVER, Date.parse('2026-01-01T00:00:00Z'))
  const { status, body } = await ask('GET', `/servers/${SERVER}/waitlist`)
  assert.is(status, 200)
  const [{ holder, waiters, ...line }] = body
  assert.equal(line, {
    queue_key: KEY,
    server_uuid: SERVER,
    scope: 'vm',
    id: VM,
    waiting: 1,
    node: { alive: true, status: 'running', last_heartbeat: '2026-01-01T00:00:00.000Z' },
  })
  assert.equal(
    [holder.uuid, holder.action, holder.active_since, holder.expires_at],
    [ticket(2), 'reboot', since, '3000'],
  )
  assert.equal(
    waiters.map(({ uuid }: { uuid: string }) => uuid),
    [ticket(3)],
  )

  backend.put.server({ status: 'unknown' })
  assert.is((await ask('GET', `/servers/${SERVER}/waitlist`)).body[0].node.alive, false)
  waitlist.command(KEY, 'delete', { ticket_uuids: [ticket(2), ticket(3)] })
  assert.equal((await ask('GET', `/servers/${SERVER}/waitlist`)).body, [], 'a queue nobody is in is not shown')
})

test('as text it is a table that no name can break', async () => {
  const { ask, create, waitlist } = start()
  create(1, { action: 'provi\nsion\u001b[2J' })
  create(2)
  const other = queueKey({ server_uuid: 'default', scope: 's', id: 'i' })
  waitlist.command(other, 'create', {
    ticket_uuid: derivedIds('o', '').ticket(other),
    server_uuid: 'default',
    scope: 's',
    id: 'i',
    expires_at: '3000',
  })
  const { headers, text } = await ask('GET', `/servers/${SERVER}/waitlist`, { headers: { accept: 'text/plain' } })
  assert.is(headers.get('content-type'), 'text/plain')
  const lines = text.trimEnd().split('\n')
  assert.is(lines.length, 3)
  assert.match(lines[0]!, /^SCOPE +ID +TICKET +ACTION +STATE +SINCE +EXPIRES +NODE$/)
  assert.match(lines[1]!, new RegExp(`^vm +${VM} +${ticket(1)} +provi\\?sion\\?\\[2J +active +\\S+Z +3000 +alive$`))
  assert.match(lines[2]!, new RegExp(`^ +${ticket(2)} +- +waiting, 1\\. +\\S+Z +3000$`))
})

/** Reads events until `enough` says so, then leaves. */
async function read(
  { app }: ReturnType<typeof start>,
  lastEventId: string | undefined,
  enough: (events: { id: string; event: string; data: unknown }[]) => boolean,
  meanwhile: () => void = () => {},
) {
  const headers = { accept: EVENT_STREAM_TYPE, ...(lastEventId ? { 'last-event-id': lastEventId } : {}) }
  const response = await app.request(`/servers/${SERVER}/waitlist/${KEY}/events`, { headers })
  assert.equal([response.status, response.headers.get('content-type')], [200, EVENT_STREAM_TYPE])
  const reader = response.body!.getReader()
  let text = ''
  const events = () =>
    [...text.matchAll(/id: (.*)\nevent: (.*)\ndata: (.*)\n\n/g)].map(([, id, event, data]) => ({
      id: id!,
      event: event!,
      data: JSON.parse(data!),
    }))
  const reading = (async () => {
    for (let { value, done } = await reader.read(); !done; { value, done } = await reader.read()) {
      text += Buffer.from(value!).toString()
      if (enough(events())) return
    }
  })()
  await eventually(() => text.includes('retry'))
  meanwhile()
  await reading
  await reader.cancel()
  return events()
}
const names = (events: { event: string }[]) => events.map(({ event }) => event)

test('a new watcher gets the state, then each transition with the state after it', async () => {
  const gateway = start()
  const { create, release, waitlist } = gateway
  create(1)
  const change = () => {
    create(2)
    release(1)
  }
  const events = await read(gateway, undefined, told => told.length >= 5, change)
  assert.equal(names(events), ['queue', 'create', 'queue', 'release', 'queue'])
  const states = events
    .filter(({ event }) => event === 'queue')
    .map(({ data }) => data as { holder: { uuid: string }; waiting: number })
  assert.equal(
    states.map(({ holder, waiting }) => [holder.uuid, waiting]),
    [
      [ticket(1), 0],
      [ticket(1), 1],
      [ticket(2), 0],
    ],
  )
  await eventually(() => waitlist.watching() === 0, { what: 'nothing left behind' })
})

test('a watcher that returns hears what it missed, wherever it stopped', async () => {
  const gateway = start()
  const { create, release } = gateway
  create(1)
  const [first] = await read(gateway, undefined, told => told.length >= 1)
  create(2)
  release(1)
  const missed = await read(gateway, first!.id, told => told.at(-1)?.event === 'queue')
  assert.equal(names(missed), ['create', 'release', 'queue'])
  assert.equal(names(await read(gateway, missed[0]!.id, told => told.at(-1)?.event === 'queue')), ['release', 'queue'])
  const none = await read(
    gateway,
    missed.at(-1)!.id,
    told => told.length >= 2,
    () => create(3),
  )
  assert.equal(names(none), ['create', 'queue'], 'nothing was missed')
})

test('what is lost is said: a gap of so many transitions, of an unknown number after a bare revision', async () => {
  const gateway = start()
  gateway.create(1)
  const [first] = await read(gateway, undefined, told => told.length >= 1)
  for (let n = 2; n < 22; n++) gateway.create(n)
  const events = await read(gateway, first!.id, told => told.at(-1)?.event === 'queue')
  assert.equal(names(events), ['gap', ...Array.from({ length: 16 }, () => 'create'), 'queue'])
  assert.equal(events[0]!.data, { lost: 4 })
  const bare = await read(gateway, '1', told => told.at(-1)?.event === 'queue')
  assert.equal(bare[0]!.data, { lost: null })
})

test('a queue that is not there, or of another server, is 404', async () => {
  const { ask, create, backend } = start()
  create(1)
  backend.put.server({ uuid: VM })
  for (const path of [
    `/servers/${SERVER}/waitlist/${'0'.repeat(15)}`,
    `/servers/${SERVER}/waitlist/x*`,
    `/servers/${VM}/waitlist/${KEY}`,
  ]) {
    assert.is((await ask('GET', `${path}/events`)).status, 404, path)
  }
})

test('a reader that takes nothing is cut off, and nothing is told to it any more', async () => {
  let told = 0
  let stopped = false
  let tell: (event: { id: string; event: string; data: unknown }) => void = () => {}
  const stream = eventStream(tellReader => {
    tell = tellReader
    return () => {
      stopped = true
    }
  })
  const data = 'x'.repeat(64 * 1024)
  for (; !stopped && told < 100; told++) tell({ id: String(told), event: 'queue', data })
  assert.ok(stopped && told * data.length <= 2 * BACKLOG_MAX_BYTES, `${told} events were kept`)
  let bytes = 0
  for await (const part of stream) bytes += part.length
  assert.ok(bytes <= told * (data.length + 100), 'what was kept can be read, then the stream ends')
})

test.run()
