/** An actor host with the real machines on a real server: registration, liveness, status events, reads, sync, statecharts. */
import { randomUUID } from 'node:crypto'
import * as assert from 'uvu/assert'
import type { TaskOffer } from '../../actors/contract/messages.ts'
import type { ActorRecord, Reply } from '../../actors/contract/record.ts'
import type { StatusEvent } from '../../actors/contract/server.ts'
import type { TaskRecord } from '../../actors/contract/task.ts'
import { type ActorHost, createActorHost } from '../../services/actor-host/host.ts'
import { key } from '../../services/nats/buckets.ts'
import { type Caller, createCaller } from '../../services/nats/caller.ts'
import { connectNats, type NatsConnection } from '../../services/nats/connect.ts'
import { publishHeartbeat } from '../../services/nats/heartbeats.ts'
import { decode, encode } from '../../services/nats/json.ts'
import { provision } from '../../services/nats/provision.ts'
import { openRecords, type Records } from '../../services/nats/records.ts'
import { request } from '../../services/nats/request.ts'
import { subject } from '../../services/nats/subjects.ts'
import { eventually } from '../eventually.ts'
import { startNats, type TestNats } from '../nats.ts'
import { suite } from '../suite.ts'

const test = suite('actor host')
const problems: string[] = []
const log = {
  info: () => {},
  warn: () => {},
  error: (fields: object, text: string) => void problems.push(`${text} ${JSON.stringify(fields)}`),
}
let nats: TestNats
let nc: NatsConnection
let hostNc: NatsConnection
let records: Records
let host: ActorHost
let call: Caller['call']

test.before(async () => {
  nats = await startNats()
  nc = await connectNats({ servers: nats.urls, name: 'test', inboxOwner: 'gateway' })
  hostNc = await connectNats({ servers: nats.urls, name: 'host', inboxOwner: 'host' })
  await provision(nc)
  records = openRecords(nc)
  call = createCaller(nc, 'tester').call
  host = createActorHost({
    nc: hostNc,
    hostId: 'one',
    log,
    fresh: { datacenter: 'east-1', boot_params: { smt_enabled: false } },
  })
  await host.start()
})
test.after(async () => {
  await host?.stop()
  await Promise.all([nc?.close(), hostNc?.close()])
  await nats?.stop()
  if (problems.length > 0) throw new Error(`the host logged errors: ${problems.join('\n')}`)
})

const state = async (kind: 'cn' | 'vm', id: string) => ((await records.get(kind, id))?.value as ActorRecord)?.state
const agentCall = (uuid: string, verb: string, payload: unknown) =>
  request(nc, subject.agentCall(uuid, verb), payload, { deadlineMs: 5_000 })

async function newServer(): Promise<string> {
  const uuid = randomUUID()
  const reply = await agentCall(uuid, 'sysinfo', { sysinfo: { UUID: uuid, Hostname: 'node', 'MiB of Memory': '8192' } })
  assert.equal(reply, { value: {} })
  return uuid
}

/** An agent that accepts every task and can be told what to answer. */
function listen(uuid: string, answer: (what: string, payload: unknown) => Reply | undefined) {
  const subscription = nc.subscribe(`agent.${uuid}.>`, {
    callback: (_error, message) => {
      const reply = answer(message.subject.split('.')[2] ?? '', decode(message.data))
      if (reply) message.respond(encode(reply))
    },
  })
  return () => subscription.unsubscribe()
}

test('a node that registers begins with what its host is configured for', async () => {
  const uuid = await newServer()
  const record = (await records.get('cn', uuid))?.value as ActorRecord
  const { datacenter, boot_params } = record.snapshot.context
  assert.equal([datacenter, boot_params], ['east-1', { smt_enabled: false }])
})

test('a sysinfo registers a node and is kept as it was sent', async () => {
  const uuid = await newServer()
  assert.is(await state('cn', uuid), 'running')
  const kept = (await records.get('inventory', key.sysinfo(uuid)))?.value as Record<string, unknown>
  assert.is(kept['Hostname'], 'node')
})

test('a task is offered until the agent takes it, and its end reaches the record and whoever waits', async () => {
  const uuid = await newServer()
  const task_id = randomUUID()
  const added = await call('cn', uuid, 'task_add', { task_id, task: 'nop', params: { sleep: 0 } })
  assert.equal(added, { value: { id: task_id } })
  const offers: unknown[] = []
  const stop = listen(uuid, (what, payload) => {
    if (what === 'task') offers.push(payload)
    return { value: { accepted: true } }
  })
  await eventually(() => offers.length > 0, { withinMs: 10_000, what: 'an offer' })
  assert.is((offers[0] as { id: string }).id, task_id)
  const at = Date.now()
  assert.equal(await agentCall(uuid, 'report', { id: task_id, status: 'accepted', at }), { value: { go: true } })
  assert.equal(await agentCall(uuid, 'report', { id: task_id, status: 'complete', at, result: {} }), {
    value: { go: false },
  })
  const record = (await records.get('task', task_id))?.value as TaskRecord
  assert.is(record.status, 'complete')
  stop()
})

test('what an agent refuses ends its task with the code of the refusal', async () => {
  const uuid = await newServer()
  const stop = listen(uuid, () => ({ error: { code: 'TaskNotSupported', message: 'what is that?' } }))
  const task_id = randomUUID()
  await call('cn', uuid, 'task_add', { task_id, task: 'nop', params: {} })
  const record = await eventually(
    async () => {
      const task = (await records.get('task', task_id))?.value as TaskRecord
      return task.status === 'failure' && task
    },
    { withinMs: 10_000 },
  )
  assert.is(record.error?.code, 'TaskNotSupported')
  stop()
})

test('on connect an agent is told everything that its node has open', async () => {
  const uuid = await newServer()
  assert.equal(await agentCall(uuid, 'sync', {}), { value: { tasks: [] } })
  const task_id = randomUUID()
  await call('cn', uuid, 'task_add', { task_id, task: 'nop', params: { sleep: 3 } })
  const synced = (await agentCall(uuid, 'sync', {})) as { value: { tasks: TaskOffer[] } }
  assert.equal(
    synced.value.tasks.map(task => [task.id, task.params]),
    [[task_id, { sleep: 3 }]],
  )
  // Before it has registered, and after its record is gone: it has to register.
  const unknown = await agentCall(randomUUID(), 'sync', {})
  assert.is('error' in unknown && unknown.error.code, 'ResourceNotFound')
})

test('a live read is passed to the agent; without one it is AgentNotConnected', async () => {
  const uuid = await newServer()
  const gone = await call('cn', uuid, 'read', { read: 'network_list', params: {} })
  assert.is('error' in gone && gone.error.code, 'AgentNotConnected')
  const asked: unknown[] = []
  const stop = listen(uuid, (_what, payload) => {
    asked.push(payload)
    return { value: { networks: [] } }
  })
  assert.equal(await call('cn', uuid, 'read', { read: 'network_list', params: {} }), { value: { networks: [] } })
  assert.equal(asked, [{ read: 'network_list', params: {} }])
  const wrong = await call('cn', uuid, 'read', { read: 'machine_load', params: {} })
  assert.is('error' in wrong && wrong.error.code, 'InvalidParameters')
  stop()
})

test('a reported VM that nobody ordered is discovered, and one that is gone from the next report is missing', async () => {
  const uuid = await newServer()
  const vm = randomUUID()
  const status = (vms: StatusEvent['vms'], aheadMs = 0): StatusEvent => ({
    vms,
    meminfo: { availrmem_bytes: 1 },
    timestamp: new Date(Date.now() + aheadMs).toISOString(),
  })
  const running = { [vm]: { uuid: vm, state: 'running', max_physical_memory: 256 } }
  assert.equal(await agentCall(uuid, 'status', status(running)), { value: {} })
  await eventually(async () => (await state('vm', vm)) === 'running')
  const stored = (await records.get('inventory', key.status(uuid)))?.value as StatusEvent
  assert.equal(Object.keys(stored.vms ?? {}), [vm])
  const { revision } = (await records.get('vm', vm)) ?? { revision: 0 }
  await agentCall(uuid, 'status', status(running))
  assert.is((await records.get('vm', vm))?.revision, revision, 'the same report again writes nothing')
  // A sample taken so shortly after the record changed could be older than it: only a later one counts.
  await eventually(
    async () => {
      await agentCall(uuid, 'status', status({}))
      return (await state('vm', vm)) === 'missing'
    },
    { withinMs: 8_000, everyMs: 250 },
  )
})

test('counters that move all the time are written once a minute, what changes at once', async () => {
  const uuid = await newServer()
  const report = (availrmem_bytes: number, vms: StatusEvent['vms'] = {}) =>
    call('cn', uuid, 'status', { status: { vms, meminfo: { availrmem_bytes } } })
  const memory = async () =>
    ((await records.get('inventory', key.status(uuid)))?.value as StatusEvent | undefined)?.meminfo?.availrmem_bytes
  await report(1)
  await report(2)
  assert.is(await memory(), 1)
  const vm = randomUUID()
  await report(3, { [vm]: { uuid: vm, state: 'stopped' } })
  assert.is(await memory(), 3)
})

test('a status event of a server that nobody registered is ResourceNotFound', async () => {
  const reply = await call('cn', randomUUID(), 'status', { status: { vms: {} } })
  assert.is('error' in reply && reply.error.code, 'ResourceNotFound')
})

test('a node that falls silent becomes unknown after its lifetime, and running with its next beat', async () => {
  const [beating, silent] = [await newServer(), await newServer()]
  const beat = setInterval(() => publishHeartbeat(nc, beating), 1_000)
  try {
    await eventually(async () => (await state('cn', silent)) === 'unknown', { withinMs: 20_000, everyMs: 200 })
    assert.is(await state('cn', beating), 'running')
    publishHeartbeat(nc, silent)
    await eventually(async () => (await state('cn', silent)) === 'running')
  } finally {
    clearInterval(beat)
  }
})

test('statecharts are served as they run', async () => {
  const reply = (await request(nc, subject.machines('vm'), undefined, { deadlineMs: 2_000 })) as {
    value: { id: string; mermaid: string }
  }
  assert.is(reply.value.id, 'vm')
  assert.match(reply.value.mermaid, 'stateDiagram-v2')
})

test.run()
