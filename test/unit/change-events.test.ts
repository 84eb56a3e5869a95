/** Changes as events: what a record's last transitions tell, what they cannot, who wants what, and readers that do not keep up. */
import { once } from 'node:events'
import type { Server } from 'node:http'
import { connect } from 'node:net'
import { serve } from '@hono/node-server'
import * as assert from 'uvu/assert'
import {
  createEvents,
  type EventBucket,
  type EventFilter,
  idOf,
  type Place,
  parseId,
} from '../../gateway/change-events.ts'
import { BACKLOG_MAX_BYTES, eventStream } from '../../gateway/event-stream.ts'
import { READERS_MAX } from '../../gateway/routes/events.ts'
import type { FeedChange, Reader } from '../../services/nats/feed.ts'
import { eventually } from '../eventually.ts'
import { fakeBackend, fakeGateway, OTHER_SERVER, SERVER, TASK, VM } from '../fake-backend.ts'
import { suite } from '../suite.ts'

const test = suite('changes as events')

const nowhere = (): Place => ({ cn: 0, vm: 0, host: 0, waitlist: 0, task: 0, job: 0 })

/** A record with transitions `from` to `to`, which came with these revisions; the last with the record's own. */
function record(context: Record<string, unknown>, from: number, to: number, revisions: number[] = []) {
  const recent = Array.from({ length: to - from + 1 }, (_, at) => ({
    at: '2026-01-01T00:00:00.000Z',
    event: `e${from + at}`,
    from: 'a',
    to: 'b',
    count: from + at,
    ...(revisions[at] === undefined ? {} : { revision: revisions[at] }),
  }))
  return { state: 'b', status: 'b', snapshot: { context }, recent }
}
const vmOf = (server: string) => ({ uuid: VM, server_uuid: server })
const change = (bucket: EventBucket, revision: number, value: unknown, key = VM): FeedChange<EventBucket> => ({
  bucket,
  key,
  value,
  revision,
})
// biome-ignore lint/suspicious/noExplicitAny: events of every kind
const namesOf = (events: { event: string; data: any }[]) =>
  events.map(({ event, data }) => (event === 'gap' ? `gap before ${data.before}` : `${event} ${data.event}`))

test('a place survives its way through an id, and other texts are no place', () => {
  const place = { cn: 1, vm: 22, host: 0, waitlist: 4, task: 5, job: 6 }
  assert.is(idOf(place), '1.22.0.4.5.6')
  assert.equal(parseId('1.22.0.4.5.6'), place)
  for (const id of [
    '',
    '1',
    '1.2.3.4',
    '1.2.3.4.5.x',
    '1.2.3.4.5.-5',
    '1.2.3.4.5.6.7',
    '1.2.3.4.5.1e3',
    ' 1.2.3.4.5.6',
  ])
    assert.is(parseId(id), undefined, id)
})

test('a reader who is up to date hears each transition once, and nothing of writes without one', () => {
  const events = createEvents({ ...nowhere(), vm: 7 }, {})
  const told = [
    events(change('vm', 8, record(vmOf(SERVER), 1, 1))),
    // Its effects were acknowledged: the same transitions, now with their revision.
    events(change('vm', 9, record(vmOf(SERVER), 1, 1, [8]))),
    events(change('vm', 12, record(vmOf(SERVER), 1, 3, [8]))),
  ]
  assert.equal(told.map(namesOf), [['vm e1'], [], ['vm e2', 'vm e3']])
  const [first, last] = told[2] ?? []
  assert.equal(last?.data, {
    ...{ kind: 'vm', id: VM, server_uuid: SERVER, vm_uuid: VM, at: '2026-01-01T00:00:00.000Z', event: 'e3' },
    ...{ from: 'a', to: 'b', count: 3, revision: 12, state: 'b', status: 'b' },
  })
  assert.equal([first?.id, last?.id], ['0.9.0.0.0.0', '0.12.0.0.0.0'], 'who stops within a change hears it again')
})

test('what was missed is told from the last transitions, and a gap where they do not reach back', () => {
  const sixteen = Array.from({ length: 15 }, (_, at) => 20 + at)
  const missed = (seen: number) =>
    namesOf(createEvents({ ...nowhere(), vm: seen }, {})(change('vm', 40, record(vmOf(SERVER), 5, 20, sixteen))))
  assert.equal(missed(33), ['vm e19', 'vm e20'])
  assert.equal(
    missed(20),
    Array.from({ length: 15 }, (_, at) => `vm e${6 + at}`),
  )
  assert.equal(missed(19).slice(0, 2), ['gap before 5', 'vm e5'])
  assert.is(missed(3).length, 17)
})

test('a record that is younger than the reader\u2019s place has no gap', () => {
  const events = createEvents({ ...nowhere(), vm: 3 }, {})
  assert.equal(namesOf(events(change('vm', 9, record(vmOf(SERVER), 1, 2, [5])))), ['vm e1', 'vm e2'])
})

test('tasks are told when they end, and forgotten records by name', () => {
  const events = createEvents(nowhere(), {})
  const task = { task: 'nop', server_uuid: SERVER, vm_uuid: null, status: 'active' }
  assert.equal(events(change('task', 1, task, TASK)), [])
  const [ended] = events(change('task', 2, { ...task, status: 'failure' }, TASK))
  assert.equal(ended?.data, {
    ...{ kind: 'task', id: TASK, server_uuid: SERVER, vm_uuid: null, event: 'ended' },
    ...{ task: 'nop', status: 'failure', revision: 2 },
  })
  assert.equal(namesOf(events(change('vm', 3, undefined))), ['vm forgotten'])
})

test('a job is told at each step and at its end', () => {
  const events = createEvents(nowhere(), {})
  const job = { server_uuid: SERVER, name: 'server-reboot', execution: 'running', chain_results: [{ name: 'drain' }] }
  const [step] = events(change('job', 1, job, TASK))
  const [end] = events(change('job', 2, { ...job, execution: 'succeeded' }, TASK))
  const of = { kind: 'job', id: TASK, server_uuid: SERVER, vm_uuid: null, name: 'server-reboot', step: 'drain' }
  assert.equal(step?.data, { ...of, event: 'step', execution: 'running', revision: 1 })
  assert.equal(end?.data, { ...of, event: 'ended', execution: 'succeeded', revision: 2 })
})

test('filters by kind, server, VM and host must all hold, and what is not wanted moves the place all the same', () => {
  const changes = [
    change('cn', 1, record({}, 1, 1), SERVER),
    change('cn', 2, record({}, 1, 1), OTHER_SERVER),
    change('vm', 3, record(vmOf(SERVER), 1, 1)),
    change('host', 4, record({ hostname: 'Web1.example.com', server_uuid: SERVER, vm_uuid: VM }, 1, 1), 'h'),
    change('waitlist', 5, record({ server_uuid: SERVER, scope: 'vm', id: VM }, 1, 1), 'q'),
    change('task', 6, { task: 'nop', server_uuid: OTHER_SERVER, vm_uuid: VM, status: 'complete' }, TASK),
    change('job', 7, { server_uuid: SERVER, name: 'server-reboot', execution: 'running', chain_results: [] }, TASK),
  ]
  const told = (filter: EventFilter) => {
    const place = nowhere()
    const kinds = changes.flatMap(createEvents(place, filter)).map(({ event }) => event)
    assert.is(idOf(place), '2.3.4.5.6.7')
    return kinds.join(' ')
  }
  assert.is(told({}), 'cn cn vm host waitlist task job')
  assert.is(told({ server: SERVER }), 'cn vm host waitlist job')
  assert.is(told({ vm: VM }), 'vm host waitlist task')
  assert.is(told({ vm: VM, server: OTHER_SERVER }), 'task')
  assert.is(told({ kinds: new Set(['cn', 'task']) }), 'cn cn task')
  assert.is(told({ host: 'web1.example.com' }), 'host')
  assert.is(told({ host: 'other', kinds: new Set(['vm']) }), '')
})

test('a reader who takes nothing is cut with a word when a bounded number of bytes wait for it', async () => {
  let told = 0
  let stopped = false
  const data = { filler: 'x'.repeat(1_000) }
  const stream = eventStream(tell => {
    for (; told < 100_000 && !stopped; told++) tell({ id: String(told), event: 'vm', data })
    return () => {
      stopped = true
    }
  })
  const text = await new Response(stream).text()
  assert.ok(text.length > BACKLOG_MAX_BYTES && text.length < BACKLOG_MAX_BYTES + 4_000, String(text.length))
  assert.match(text, /event: slow\ndata: .*Last-Event-ID.*\n\n$/)
})

/** A gateway on a port with a backend whose changes the test tells. */
async function listening() {
  const backend = fakeBackend()
  const readers = new Set<Reader<EventBucket>>()
  backend.events.read = async (from, reader) => {
    readers.add(reader)
    return { from: from ?? nowhere(), unknown: [], stop: () => readers.delete(reader) }
  }
  const { app } = fakeGateway(backend)
  const server = serve({ fetch: app.fetch, port: 0, hostname: '127.0.0.1' }) as Server
  await once(server, 'listening')
  const address = server.address() as { port: number }
  const close = () => {
    server.close()
    server.closeAllConnections()
  }
  return { readers, port: address.port, close }
}

test('over HTTP too, a reader that stops reading is given up and costs no memory', async () => {
  const { readers, port, close } = await listening()
  const socket = connect(port, '127.0.0.1')
  try {
    socket.write('GET /events HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n\r\n')
    await once(socket, 'readable')
    await eventually(() => readers.size === 1, { withinMs: 5_000, what: 'the reader' })
    let revision = 0
    const context = { ...vmOf(SERVER) }
    const one = record(context, 1, 1)
    one.recent[0]!.event = 'x'.repeat(1_000)
    while (readers.size > 0 && revision < 60_000) {
      for (let n = 0; n < 200; n++) for (const { told } of readers) told(change('vm', ++revision, one))
      await new Promise(setImmediate)
    }
    assert.is(readers.size, 0)
    assert.ok(revision < 30_000, `cut after ${revision} KiB`)
  } finally {
    socket.destroy()
    close()
  }
})

test('a reader that leaves is forgotten, and one whose gateway stops reads the end of its stream', async () => {
  const { readers, port, close } = await listening()
  try {
    const leaving = new AbortController()
    const url = `http://127.0.0.1:${port}/events`
    const left = await fetch(url, { signal: leaving.signal })
    assert.is(left.headers.get('content-type'), 'text/event-stream')
    const staying = await fetch(url)
    assert.is(readers.size, 2)
    leaving.abort()
    await eventually(() => readers.size === 1, { withinMs: 5_000, what: 'the reader to be forgotten' })
    for (const { told, ended } of readers) {
      told(change('vm', 9, record(vmOf(SERVER), 1, 1)))
      ended()
    }
    const text = await staying.text()
    assert.match(text, 'id: 0.0.0.0.0.0\nevent: ready\n')
    assert.match(text, 'id: 0.9.0.0.0.0\nevent: vm\n')
  } finally {
    close()
  }
})

test('one reader too many is sent elsewhere', async () => {
  const { ask, backend } = fakeGateway()
  backend.events.readers = () => READERS_MAX
  const { status, body, headers } = await ask('GET', '/events')
  assert.equal([status, body.code, headers.get('retry-after')], [503, 'ServiceUnavailableError', '1'])
})

test('a Last-Event-ID that is none begins now and says so', async () => {
  const { ask } = fakeGateway()
  const answer = await ask('GET', '/events', { headers: { 'last-event-id': 'yesterday' } })
  assert.match(answer.text, 'retry: 1000')
  const first = await ask('GET', '/events?bogus=1')
  assert.is(first.status, 409)
  for (const query of ['kind=vm,nothing', 'server=x', 'vm=1', 'kind=', 'host='])
    assert.is((await ask('GET', `/events?${query}`)).status, 400, query)
})

test.run()
