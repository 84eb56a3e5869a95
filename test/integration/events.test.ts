/** GET /events on a real server: an actor host and two gateways as processes; readers that resume, filter, fall behind and lose their gateway. */
import { randomUUID } from 'node:crypto'
import * as assert from 'uvu/assert'
import { connectNats, type NatsConnection } from '../../services/nats/connect.ts'
import { createFeed } from '../../services/nats/feed.ts'
import { provision } from '../../services/nats/provision.ts'
import { openRecords } from '../../services/nats/records.ts'
import { eventually } from '../eventually.ts'
import { freePorts, startNats, type TestNats } from '../nats.ts'
import { suite } from '../suite.ts'
import { actorHost, type Gateway, gateway, killAll, type Process } from '../waitlist/processes.ts'

const test = suite('events of everything')
const processes: Process[] = []
let nats: TestNats
let nc: NatsConnection
let [a, b] = [] as unknown as [Gateway, Gateway]

test.before(async () => {
  nats = await startNats()
  nc = await connectNats({ servers: nats.urls, name: 'test', inboxOwner: 'admin' })
  await provision(nc)
  const ports = await freePorts(2)
  a = gateway(nats.url, 'a', ports[0]!)
  b = gateway(nats.url, 'b', ports[1]!)
  processes.push(actorHost(nats.url, 'one'), a, b)
  await Promise.all(processes.map(process => process.start()))
})
test.after(async () => {
  await killAll(processes)
  await nc?.close()
  await nats?.stop()
})

interface Heard {
  id: string
  event: string
  // biome-ignore lint/suspicious/noExplicitAny: what a test expects of an event says its type
  data: any
}

/** Reads the stream of a gateway; `heard` grows until `leave`, or until the gateway ends it. */
async function listen(via: Gateway, query = '', lastEventId?: string) {
  const leaving = new AbortController()
  const headers: Record<string, string> = lastEventId === undefined ? {} : { 'last-event-id': lastEventId }
  const response = await fetch(`${via.url}/events${query}`, { headers, signal: leaving.signal })
  assert.is(response.status, 200)
  const heard: Heard[] = []
  let ended = false
  const read = async () => {
    let rest = ''
    for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
      const blocks = (rest + chunk).split('\n\n')
      rest = blocks.pop() ?? ''
      for (const block of blocks) {
        const fields = Object.fromEntries(block.split('\n').map(line => line.split(/: (.*)/s).slice(0, 2)))
        if (fields.data) heard.push({ id: fields.id, event: fields.event, data: JSON.parse(fields.data) })
      }
    }
  }
  const over = read()
    .catch(() => {})
    .then(() => {
      ended = true
    })
  await eventually(() => heard.length > 0, { withinMs: 10_000, what: 'the first event' })
  return {
    heard,
    ended: () => ended,
    names: () =>
      heard.filter(({ event }) => event !== 'ready').map(({ event, data }) => `${event} ${data.event ?? ''}`.trim()),
    until: (found: (heard: Heard[]) => boolean, what: string) =>
      eventually(() => found(heard), { withinMs: 15_000, what: `${what}; heard ${JSON.stringify(heard)}` }),
    leave: async () => {
      leaving.abort()
      await over
    },
  }
}

async function registered(): Promise<string> {
  const uuid = randomUUID()
  const sysinfo = { UUID: uuid, Hostname: 'node', 'MiB of Memory': '1024', Setup: 'true' }
  assert.is((await a.ask('POST', `/servers/${uuid}/sysinfo`, { body: { sysinfo } })).status, 200)
  return uuid
}
const ticket = async (server: string, id = 'x') => {
  const { status } = await a.ask('POST', `/servers/${server}/tickets`, {
    body: { scope: 'vm', id, expires_at: '3000' },
  })
  assert.is(status, 202)
}
const counts = (heard: Heard[]) => heard.filter(({ event }) => event === 'waitlist').map(({ data }) => data.count)

test('what is committed through one gateway is heard at the other, filtered by server and kind', async () => {
  const mine = await registered()
  const everything = await listen(b)
  const ofMine = await listen(b, `?server=${mine}`)
  const tickets = await listen(b, `?server=${mine}&kind=waitlist`)
  const other = await registered()
  await ticket(mine)
  await ticket(other)
  await everything.until(heard => counts(heard).length === 2, 'both tickets')
  await ofMine.until(heard => counts(heard).length === 1, 'my ticket')
  assert.ok(everything.names().includes('cn register'))
  assert.equal(ofMine.names(), ['waitlist create'])
  assert.equal(tickets.names(), ['waitlist create'])
  const { data } = tickets.heard.at(-1)!
  assert.equal([data.kind, data.server_uuid, data.vm_uuid, data.count], ['waitlist', mine, 'x', 1])
  for (const reader of [everything, ofMine, tickets]) await reader.leave()
})

test('a reader that comes back at the other gateway hears what it missed, once, and goes on', async () => {
  const server = await registered()
  const before = await listen(a, `?server=${server}`)
  await ticket(server)
  await before.until(heard => counts(heard).length === 1, 'the first')
  await before.leave()
  for (let n = 0; n < 5; n++) await ticket(server)
  const after = await listen(b, `?server=${server}`, before.heard.at(-1)!.id)
  await ticket(server)
  await after.until(heard => counts(heard).includes(7), 'all')
  assert.equal(counts(after.heard), [2, 3, 4, 5, 6, 7])
  assert.not.ok(after.heard.some(({ event }) => event === 'gap'))
  await after.leave()
})

test('more than a record remembers is a gap that names the record, then what it remembers', async () => {
  const server = await registered()
  const before = await listen(a, `?server=${server}`)
  await ticket(server)
  await before.until(heard => counts(heard).length === 1, 'the first')
  await before.leave()
  for (let n = 0; n < 20; n++) await ticket(server)
  const after = await listen(b, `?server=${server}`, before.heard.at(-1)!.id)
  await after.until(heard => counts(heard).includes(21), 'the last')
  const gap = after.heard.find(({ event }) => event === 'gap')
  assert.equal([gap?.data.kind, gap?.data.server_uuid, gap?.data.before], ['waitlist', server, 6])
  assert.equal(
    counts(after.heard),
    Array.from({ length: 16 }, (_, at) => 6 + at),
  )
  await after.leave()
})

test('nobody misses anything while readers come and go under load, at either gateway', async () => {
  const server = await registered()
  const ids = ['p', 'q', 'r', 's']
  const seen = new Map<string, number[]>(ids.map(id => [id, []]))
  let place: string | undefined = (await listen(a)).heard[0]!.id
  let done = false
  const read = async () => {
    for (let turn = 0; ; turn++) {
      const last = done
      const reader = await listen(turn % 2 ? a : b, '?kind=waitlist', place)
      await reader.until(heard => heard.length > 1 || done, 'something')
      if (last) await reader.until(() => all(reader.heard), 'all')
      await reader.leave()
      take(reader.heard)
      place = reader.heard.at(-1)!.id
      if (last) return
    }
  }
  const take = (heard: Heard[]) => {
    for (const { event, data } of heard)
      if (event === 'waitlist' && data.server_uuid === server) seen.get(data.vm_uuid)?.push(data.count)
  }
  const all = (heard: Heard[]) =>
    ids.every(id => seen.get(id)?.includes(12) || heard.some(({ data }) => data.vm_uuid === id && data.count === 12))
  const reading = read()
  for (let n = 0; n < 12; n++) await Promise.all(ids.map(id => ticket(server, id)))
  done = true
  await reading
  for (const id of ids)
    assert.equal(
      [...new Set(seen.get(id))],
      Array.from({ length: 12 }, (_, at) => at + 1),
      id,
    )
})

test('an id of another history begins now and says that something may be missing', async () => {
  const reader = await listen(a, '', '999999999.999999999.0.0.0.0')
  assert.is(reader.heard[0]?.event, 'gap')
  await reader.leave()
})

test('a reader that finds its place while the last of the others leaves goes on hearing', async () => {
  const lingerMs = 100
  const feed = createFeed(nc, ['job'], () => {}, { lingerMs })
  const heard: unknown[] = []
  const reader = { told: ({ key }: { key: string }) => void heard.push(key), ended: () => {} }
  const first = await feed.read(undefined, { told: () => {}, ended: () => {} })
  const second = feed.read(undefined, reader)
  first.stop()
  await second
  await new Promise(resolve => setTimeout(resolve, 3 * lingerMs))
  const key = randomUUID()
  await openRecords(nc).create('job', key, { uuid: key })
  await eventually(() => heard.includes(key), { what: 'the change to be heard' })
  feed.close()
})

test('streams end at once when their gateway stops, and go on at another after it was killed', async () => {
  const server = await registered()
  const killed = await listen(b, `?server=${server}`)
  await b.kill('SIGKILL')
  await eventually(killed.ended, { withinMs: 5_000, what: 'the end of the stream' })
  await ticket(server)
  const onwards = await listen(a, `?server=${server}`, killed.heard.at(-1)!.id)
  await onwards.until(heard => counts(heard).includes(1), 'what happened meanwhile')
  const began = performance.now()
  await Promise.all([a.kill('SIGTERM'), eventually(onwards.ended, { withinMs: 5_000, what: 'the end of the stream' })])
  assert.ok(performance.now() - began < 4_000, 'the stop does not wait for readers')
})

test.run()
