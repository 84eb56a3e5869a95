/** What a compute node decides: registration, liveness, and the life of its tasks. */
import * as assert from 'uvu/assert'
import { OPEN_TASKS_MAX, type ServerContext } from '../../actors/contract/server.ts'
import { suite } from '../suite.ts'
import { complete, type Fleet, makeFleet, registered, SERVER, taskId } from './fleet.ts'

const test = suite('compute node machine')
const contextOf = (fleet: Fleet) => fleet.record('cn', SERVER).snapshot.context as unknown as ServerContext
const nop = (fleet: Fleet, n: number, more = {}) =>
  fleet.command('cn', SERVER, 'task_add', { task_id: taskId(n), task: 'nop', params: {}, ...more })

function registeredFleet(): Fleet {
  const fleet = makeFleet()
  registered(fleet)
  return fleet
}

test('a sysinfo creates a server whose fields follow the document', () => {
  const fleet = makeFleet()
  const sysinfo = {
    UUID: SERVER,
    Hostname: 'node1',
    'MiB of Memory': '49139',
    'Boot Time': '1700000000',
    'Live Image': '6.1.0',
    Setup: 'true',
    'Boot Parameters': { headnode: 'true' },
    'SDC Agents': [{ name: 'muster-agent', version: '0.1.0' }],
  }
  fleet.command('cn', SERVER, 'register', { sysinfo })
  const context = contextOf(fleet)
  assert.equal(
    [context.hostname, context.ram, context.setup, context.headnode, context.reservation_ratio, context.reserved],
    ['node1', 49139, true, true, 0.15, false],
  )
  assert.is(context.last_boot, '2023-11-14T22:13:20.000Z')
  assert.equal(context.agents, [{ name: 'muster-agent', version: '0.1.0' }])
  assert.is(fleet.record('cn', SERVER).status, 'running')
})

test('a later sysinfo changes neither hostname nor creation, and one without Setup means not set up', () => {
  const fleet = registeredFleet()
  const { created } = contextOf(fleet)
  fleet.now += 60_000
  fleet.command('cn', SERVER, 'register', { sysinfo: { UUID: SERVER, Hostname: 'renamed' } })
  const context = contextOf(fleet)
  assert.equal([context.hostname, context.created, context.setup], ['node1', created, false])
})

test('silence makes it unknown and touches no task; a beat makes it running again', () => {
  const fleet = registeredFleet()
  nop(fleet, 1)
  fleet.command('cn', SERVER, 'silent')
  assert.is(fleet.record('cn', SERVER).status, 'unknown')
  assert.is(fleet.tasks.get(taskId(1))?.status, 'active')
  fleet.command('cn', SERVER, 'heard')
  assert.is(fleet.record('cn', SERVER).status, 'running')
})

test('a beat of a running node and silence of an unknown one write nothing', () => {
  const fleet = registeredFleet()
  const before = fleet.record('cn', SERVER)
  fleet.command('cn', SERVER, 'heard')
  assert.is(fleet.record('cn', SERVER), before)
})

test('a node that never registered refuses tasks and beats, and leaves no record', () => {
  const fleet = makeFleet()
  for (const reply of [nop(fleet, 1), fleet.command('cn', SERVER, 'heard')]) {
    assert.is('error' in reply && reply.error.code, 'ResourceNotFound')
  }
  assert.is(fleet.records.size, 0)
})

test('a task ends once: with the history CNAPI shows, and later reports change nothing', () => {
  const fleet = registeredFleet()
  nop(fleet, 1)
  fleet.settle()
  fleet.agent(SERVER, { id: taskId(1), status: 'accepted' })
  fleet.agent(SERVER, { id: taskId(1), status: 'active', progress: 40, step: 'sleep' })
  assert.equal([fleet.tasks.get(taskId(1))?.progress, fleet.tasks.get(taskId(1))?.step], [40, 'sleep'])
  complete(fleet, taskId(1), { slept: true })
  const ended = fleet.tasks.get(taskId(1))
  assert.equal(
    ended?.history?.map(({ name, event }) => [name, event]),
    [['finish', { slept: true }]],
  )
  assert.equal(fleet.agent(SERVER, { id: taskId(1), status: 'failure' }), { value: { go: false } })
  assert.equal(fleet.tasks.get(taskId(1)), ended)
  assert.equal(contextOf(fleet).open, {})
})

test('a failed task has error and finish in its history', () => {
  const fleet = registeredFleet()
  nop(fleet, 1)
  fleet.settle()
  fleet.agent(SERVER, { id: taskId(1), status: 'accepted' })
  fleet.agent(SERVER, { id: taskId(1), status: 'failure', error: { code: 'TaskFailed', message: 'no' } })
  const { status, history } = fleet.tasks.get(taskId(1)) ?? {}
  assert.equal([status, history?.map(({ name }) => name)], ['failure', ['error', 'finish']])
  assert.equal(history?.[0]?.event, { error: { message: 'no', code: 'TaskFailed' } })
})

test('an operator can cancel an open task', () => {
  const fleet = registeredFleet()
  nop(fleet, 1)
  fleet.settle()
  fleet.command('cn', SERVER, 'task_fail', { task_id: taskId(1), code: 'TaskCancelled', message: 'by hand' })
  assert.is(fleet.tasks.get(taskId(1))?.error?.code, 'TaskCancelled')
  assert.equal(fleet.record('cn', SERVER).timers, {})
})

test('a node refuses more open tasks than its record holds', () => {
  const fleet = registeredFleet()
  for (let n = 1; n <= OPEN_TASKS_MAX; n++) nop(fleet, n)
  const reply = nop(fleet, OPEN_TASKS_MAX + 1)
  assert.is('error' in reply && reply.error.code, 'TooManyWaiting')
  assert.not.ok(fleet.tasks.has(taskId(OPEN_TASKS_MAX + 1)))
})

test('a record written by a newer release is refused, not misread', () => {
  const fleet = registeredFleet()
  fleet.records.set(`cn.${SERVER}`, { ...fleet.record('cn', SERVER), version: 999 })
  const reply = fleet.command('cn', SERVER, 'heard')
  assert.is('error' in reply && reply.error.code, 'VersionTooNew')
})

test('a repeat after its effect was refused hears the refusal, not the stored promise', () => {
  const fleet = registeredFleet()
  fleet.records.delete(`cn.${SERVER}`)
  const vm = SERVER.replace(/1$/, 'a')
  const create = {
    server_uuid: SERVER,
    task_id: taskId(1),
    spec: { uuid: vm, name: vm, memory_mib: 1, vcpus: 1, disks: [], nics: [] },
  }
  const key = { value: 'k', fingerprint: 'f' }
  assert.ok('value' in fleet.command('vm', vm, 'create', create, { key }))
  fleet.settle()
  const again = fleet.command('vm', vm, 'create', create, { key })
  assert.is('error' in again && again.error.code, 'ResourceNotFound')
})

test.run()
