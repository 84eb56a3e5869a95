/** The runtime on a real server, one host in this process: what a command, an effect, a deadline and a wrong address do. */
import * as assert from 'uvu/assert'
import type { ActorRecord } from '../../actors/contract/record.ts'
import { connectNats, type NatsConnection } from '../../services/nats/connect.ts'
import { decode, encode } from '../../services/nats/json.ts'
import { provision } from '../../services/nats/provision.ts'
import { openRecords, type Records } from '../../services/nats/records.ts'
import { request } from '../../services/nats/request.ts'
import { partitionOf } from '../../services/nats/subjects.ts'
import { createDecide } from '../../services/runtime/decide.ts'
import { createRuntime, type Runtime } from '../../services/runtime/runtime.ts'
import { COUNTERS } from '../counters/kinds.ts'
import { type AnyCall, callerOf } from '../counters/load.ts'
import { eventually } from '../eventually.ts'
import { startNats, type TestNats } from '../nats.ts'
import { suite } from '../suite.ts'

const test = suite('runtime')
const log = { info: () => {}, warn: () => {}, error: (fields: object, text: string) => console.error(text, fields) }
let nats: TestNats
let nc: NatsConnection
let hostNc: NatsConnection
let records: Records
let runtime: Runtime
let call: AnyCall

test.before(async () => {
  nats = await startNats()
  nc = await connectNats({ servers: nats.urls, name: 'test', inboxOwner: 'gateway' })
  hostNc = await connectNats({ servers: nats.urls, name: 'host', inboxOwner: 'host' })
  await provision(nc)
  records = openRecords(nc)
  call = callerOf(nc, 'tester')
  runtime = createRuntime({ nc: hostNc, hostId: 'one', kinds: ['cn', 'vm'], decide: createDecide(COUNTERS), log })
  await runtime.start()
})
test.after(async () => {
  await runtime?.stop()
  await Promise.all([nc?.close(), hostNc?.close()])
  await nats?.stop()
})

const stored = async (kind: 'vm' | 'cn', id: string) => (await records.get(kind, id))?.value as ActorRecord
const total = async (kind: 'vm' | 'cn', id: string) => (await stored(kind, id)).snapshot.context['total']

test('a command is answered when its record is stored, readable from the top down', async () => {
  assert.equal(await call('vm', 'a', 'add', { n: 2 }), { value: { total: 2 } })
  const record = await stored('vm', 'a')
  assert.equal(Object.keys(record).slice(0, 3), ['state', 'status', 'updated_at'])
  assert.is(record.snapshot.context['total'], 2)
})

test('the same command delivered twice is applied once and answered alike', async () => {
  const command = { sender: 'twice', sequence: 1, floor: 1, params: { n: 1 } }
  const first = await request(nc, 'vm.b.cmd.add', command, { deadlineMs: 5_000 })
  const second = await request(nc, 'vm.b.cmd.add', command, { deadlineMs: 5_000 })
  assert.equal(second, first)
  assert.is(await total('vm', 'b'), 1)
})

test('a repeat that arrives after its sender moved on changes nothing', async () => {
  const send = (sequence: number, floor: number) =>
    request(nc, 'vm.b2.cmd.add', { sender: 'late', sequence, floor, params: { n: 1 } }, { deadlineMs: 5_000 })
  await send(1, 1)
  await send(2, 2)
  await send(1, 1)
  assert.is(await total('vm', 'b2'), 2)
})

test('many commands that queue up share few writes', async () => {
  const before = runtime.stats().commits
  const replies = await Promise.all(Array.from({ length: 64 }, () => call('vm', 'hot', 'add', { n: 1 })))
  assert.ok(replies.every(reply => 'value' in reply))
  assert.is(await total('vm', 'hot'), 64)
  const writes = runtime.stats().commits - before
  assert.ok(writes <= 16, `${writes} writes for 64 commands`)
})

test('a reply marked so waits until the other actor has committed', async () => {
  assert.equal(await call('vm', 'c', 'transfer', { to: 'l', n: 5 }), { value: { total: 5 } })
  assert.is(await total('cn', 'l'), 5)
})

test('acknowledged effects leave the record with the next commit, or by themselves after some seconds', async () => {
  await call('vm', 'd', 'transfer', { to: 'l2', n: 1 })
  assert.is((await stored('vm', 'd')).outbox.length, 1)
  await call('vm', 'd', 'add', { n: 1 })
  assert.is((await stored('vm', 'd')).outbox.length, 0)
  await call('vm', 'e', 'transfer', { to: 'l2', n: 1 })
  await eventually(async () => (await stored('vm', 'e')).outbox.length === 0, { withinMs: 8_000 })
  assert.is(await total('cn', 'l2'), 2)
})

test('an effect that its receiver refuses becomes the answer, for repeats too, and its machine hears of it', async () => {
  const command = { sender: 'refused', sequence: 1, floor: 1, params: { to: 'l3', n: 101 } }
  const first = await request(nc, 'vm.f.cmd.transfer', command, { deadlineMs: 5_000 })
  assert.is('error' in first && first.error.code, 'InvalidArgument')
  assert.equal(await request(nc, 'vm.f.cmd.transfer', command, { deadlineMs: 5_000 }), first)
  assert.is(await total('vm', 'f'), 100)
})

test('a deadline fires once and leaves the record', async () => {
  await call('vm', 'g', 'later', { name: 'tea', ms: 200 })
  await eventually(async () => (await stored('vm', 'g')).snapshot.context['rung'] === 1)
  assert.equal((await stored('vm', 'g')).timers, {})
})

test('a body is there before the record that speaks of it, and again is no harm', async () => {
  await call('vm', 'h', 'body', { key: 'body-1' })
  await call('vm', 'h', 'body', { key: 'body-1' })
  assert.equal((await records.get('task', 'body-1'))?.value, { status: 'active' })
  assert.is(await total('vm', 'h'), 2)
})

test('a record that another writer changed is read again before the next commit', async () => {
  await call('vm', 'i', 'add', { n: 1 })
  const entry = await records.get('vm', 'i')
  assert.ok(entry)
  const value = structuredClone(entry.value) as ActorRecord
  value.snapshot.context['total'] = 40
  await records.update('vm', 'i', value, entry.revision)
  assert.equal(await call('vm', 'i', 'add', { n: 2 }), { value: { total: 42 } })
})

test('every committed transition is told on evt', async () => {
  const heard: { event: string; id: string }[] = []
  const subscription = nc.subscribe('evt.vm.j', {
    callback: (_error, message) => void heard.push(decode(message.data) as { event: string; id: string }),
  })
  await nc.flush()
  await call('vm', 'j', 'add', { n: 1 })
  await eventually(() => heard.length === 1)
  assert.is(heard[0]?.event, 'add')
  subscription.unsubscribe()
})

test('a message on the partition of another id is refused', async () => {
  const wrong = (partitionOf('k') + 1) % 64
  const answer = await nc.request(`p.${wrong}.vm.k.cmd.add`, encode({ sender: 's', sequence: 1, params: { n: 1 } }))
  assert.is((decode(answer.data) as { error: { code: string } }).error.code, 'InvalidArgument')
  assert.is(await records.get('vm', 'k'), undefined)
})

test('a person needs neither a number nor a payload', async () => {
  await call('vm', 'm', 'add', { n: 7 })
  const answer = await nc.request('vm.m.cmd.get', '')
  assert.is((decode(answer.data) as { value: ActorRecord }).value.snapshot.context['total'], 7)
  const bad = await nc.request('vm.m.cmd.add', '{')
  assert.is((decode(bad.data) as { error: { code: string } }).error.code, 'InvalidContent')
})

test('a command that changes nothing writes nothing', async () => {
  await call('vm', 'n', 'add', { n: 1 })
  const { revision } = (await records.get('vm', 'n')) ?? { revision: 0 }
  await call('vm', 'n', 'get', {})
  const unknown = await call('vm', 'n', 'fly', {})
  assert.is('error' in unknown && unknown.error.code, 'ResourceNotFound')
  assert.is((await records.get('vm', 'n'))?.revision, revision)
})

test.run()
