/** The lifecycle of a VM as decided: verbs, what waits, what is refused, deadlines and reports. */
import * as assert from 'uvu/assert'
import type { VmContext } from '../../actors/contract/vm.ts'
import { suite } from '../suite.ts'
import {
  complete,
  type Fleet,
  fail,
  makeFleet,
  registered,
  SERVER,
  specOf,
  taskId,
  VM,
  withRunningVm,
} from './fleet.ts'

const test = suite('vm machine')
const contextOf = (fleet: Fleet) => fleet.record('vm', VM).snapshot.context as unknown as VmContext
const hour = 3600_000

function running(): Fleet {
  const fleet = makeFleet()
  registered(fleet)
  withRunningVm(fleet)
  return fleet
}

test('a create becomes a task, is offered, and leaves a running VM with nothing pending', () => {
  const fleet = makeFleet()
  registered(fleet)
  const reply = fleet.command('vm', VM, 'create', { server_uuid: SERVER, task_id: taskId(1), spec: specOf(VM) })
  assert.equal(reply, { value: { id: taskId(1), vm_uuid: VM } })
  assert.is(fleet.record('vm', VM).status, 'provisioning')
  fleet.settle()
  assert.equal(fleet.offers, [taskId(1)])
  assert.is(fleet.tasks.get(taskId(1))?.status, 'active')
  complete(fleet, taskId(1), { vm: { uuid: VM, state: 'running' } })
  assert.is(fleet.tasks.get(taskId(1))?.status, 'complete')
  const { state, outbox, timers } = fleet.record('vm', VM)
  assert.equal([state, outbox, timers], ['running', [], {}])
  assert.equal(fleet.record('cn', SERVER).timers, {})
})

test('the end of a task shows the VM as its node saw it', () => {
  const fleet = running()
  fleet.command('vm', VM, 'reboot', { task_id: taskId(2) })
  fleet.settle()
  complete(fleet, taskId(2), { vm: { uuid: VM, state: 'running', domain_id: 7, domain_state: 'running' } })
  const { observed } = contextOf(fleet)
  assert.equal([observed?.domain_id, observed?.domain_state], [7, 'running'])
})

test('a create that fails leaves an incomplete VM that can be created again, and is forgotten after a day', () => {
  const fleet = makeFleet()
  registered(fleet)
  fleet.command('vm', VM, 'create', { server_uuid: SERVER, task_id: taskId(1), spec: specOf(VM) })
  fleet.settle()
  fail(fleet, taskId(1), { code: 'ImageNotInstalled', message: 'no image x' })
  assert.is(fleet.record('vm', VM).state, 'incomplete')
  assert.equal(contextOf(fleet).failure?.code, 'ImageNotInstalled')
  assert.is(fleet.tasks.get(taskId(1))?.history?.[0]?.name, 'error')
  fleet.command('vm', VM, 'create', { server_uuid: SERVER, task_id: taskId(2), spec: specOf(VM) })
  fleet.settle()
  assert.is(fleet.record('vm', VM).state, 'provisioning')
  fail(fleet, taskId(2))
  fleet.advance(25 * hour)
  assert.not.ok(fleet.records.has(`vm.${VM}`))
})

test('every verb begins only where the table allows, and is a failed task with a code elsewhere', () => {
  const fleet = running()
  fleet.command('vm', VM, 'start', { task_id: taskId(2) })
  fleet.settle()
  assert.equal(fleet.tasks.get(taskId(2))?.error?.code, 'VmNotStopped')
  assert.is(fleet.record('vm', VM).state, 'running')
  fleet.command('vm', VM, 'stop', { task_id: taskId(3) })
  fleet.settle()
  complete(fleet, taskId(3))
  assert.is(fleet.record('vm', VM).state, 'stopped')
  for (const [n, verb] of ['stop', 'reboot', 'kill'].entries()) {
    fleet.command('vm', VM, verb, { task_id: taskId(10 + n) })
    fleet.settle()
    assert.equal(fleet.tasks.get(taskId(10 + n))?.error?.code, 'VmNotRunning')
  }
  assert.equal(fleet.offers, [taskId(1), taskId(3)])
})

test('idempotent lets a start reach a running VM', () => {
  const fleet = running()
  fleet.command('vm', VM, 'start', { task_id: taskId(2), params: { idempotent: true } })
  fleet.settle()
  assert.equal(fleet.offers.at(-1), taskId(2))
})

test('verbs that arrive during an operation wait in order, urgent ones first, and run or fail at their turn', () => {
  const fleet = running()
  fleet.command('vm', VM, 'reboot', { task_id: taskId(2) })
  fleet.settle()
  fleet.command('vm', VM, 'stop', { task_id: taskId(3) })
  fleet.command('vm', VM, 'reboot', { task_id: taskId(4) })
  fleet.command('vm', VM, 'kill', { task_id: taskId(5) })
  fleet.settle()
  assert.equal(
    contextOf(fleet).waiting.map(({ verb }) => verb),
    ['kill', 'stop', 'reboot'],
  )
  assert.equal(fleet.offers, [taskId(1), taskId(2)])
  assert.is(fleet.tasks.get(taskId(5))?.status, 'active')
  complete(fleet, taskId(2))
  assert.equal(fleet.offers.at(-1), taskId(5))
  complete(fleet, taskId(5))
  assert.is(fleet.record('vm', VM).state, 'stopped')
  assert.equal(
    [3, 4].map(n => fleet.tasks.get(taskId(n))?.error?.code),
    ['VmNotRunning', 'VmNotRunning'],
  )
  assert.equal(contextOf(fleet).waiting, [])
})

test('a verb whose task an operator ends while it waits does not get its turn', () => {
  const fleet = running()
  fleet.command('vm', VM, 'reboot', { task_id: taskId(2) })
  fleet.command('vm', VM, 'stop', { task_id: taskId(3) })
  fleet.settle()
  fleet.command('cn', SERVER, 'task_fail', { task_id: taskId(3), code: 'TaskCancelled', message: 'cancelled' })
  fleet.settle()
  assert.equal(contextOf(fleet).waiting, [])
  complete(fleet, taskId(2))
  const { state, timers } = fleet.record('vm', VM)
  assert.equal([state, timers], ['running', {}])
  assert.equal(fleet.offers, [taskId(1), taskId(2)])
})

test('the seventeenth waiting verb is refused', () => {
  const fleet = running()
  fleet.command('vm', VM, 'reboot', { task_id: taskId(2) })
  for (let n = 0; n < 16; n++) fleet.command('vm', VM, 'stop', { task_id: taskId(10 + n) })
  const reply = fleet.command('vm', VM, 'stop', { task_id: taskId(99) })
  assert.is('error' in reply && reply.error.code, 'TooManyWaiting')
})

test('destroy ends in destroyed, is answered again, and the record is forgotten after a day', () => {
  const fleet = running()
  fleet.command('vm', VM, 'destroy', { task_id: taskId(2) })
  fleet.settle()
  complete(fleet, taskId(2), { vm: null })
  assert.is(fleet.record('vm', VM).state, 'destroyed')
  fleet.command('vm', VM, 'start', { task_id: taskId(3) })
  fleet.settle()
  assert.equal(fleet.tasks.get(taskId(3))?.error?.code, 'VmDestroyed')
  fleet.advance(25 * hour)
  assert.not.ok(fleet.records.has(`vm.${VM}`))
})

test('a VM made again under the id of a forgotten one is heard by its compute node', () => {
  const fleet = running()
  fleet.command('vm', VM, 'destroy', { task_id: taskId(2) })
  fleet.settle()
  complete(fleet, taskId(2))
  fleet.advance(25 * hour)
  assert.not.ok(fleet.records.has(`vm.${VM}`))
  fleet.command('vm', VM, 'create', { server_uuid: SERVER, task_id: taskId(3), spec: specOf(VM) })
  fleet.settle()
  assert.equal(fleet.offers, [taskId(1), taskId(2), taskId(3)])
  complete(fleet, taskId(3), { vm: { uuid: VM, state: 'running' } })
  assert.is(fleet.record('vm', VM).state, 'running')
})

test('a VM made again under the id of a destroyed one has neither its tags nor its container id', () => {
  const fleet = makeFleet()
  registered(fleet)
  const create = (n: number, more: object) => {
    const spec = { ...specOf(VM), ...more }
    fleet.command('vm', VM, 'create', { server_uuid: SERVER, task_id: taskId(n), spec })
    fleet.settle()
    complete(fleet, taskId(n), { vm: { uuid: VM, state: 'running' } })
  }
  create(1, { tags: { role: 'database' }, internal_metadata: { 'docker:id': 'c0ffee' } })
  assert.equal([contextOf(fleet).tags, contextOf(fleet).docker_id], [{ role: 'database' }, 'c0ffee'])
  fleet.command('vm', VM, 'destroy', { task_id: taskId(2) })
  fleet.settle()
  complete(fleet, taskId(2), { vm: null })
  create(3, {})
  assert.is(fleet.record('vm', VM).state, 'running')
  assert.equal([contextOf(fleet).tags, contextOf(fleet).docker_id], [undefined, undefined])
})

test('a task that no agent accepts fails, and the VM settles where it began', () => {
  const fleet = running()
  fleet.command('vm', VM, 'stop', { task_id: taskId(2) })
  fleet.settle({ agentListens: false })
  fleet.advance(61_000, { agentListens: false })
  assert.equal(fleet.tasks.get(taskId(2))?.error?.code, 'AgentNotConnected')
  assert.is(fleet.record('vm', VM).state, 'running')
  assert.equal(fleet.record('cn', SERVER).outbox, [])
  const late = fleet.agent(SERVER, { id: taskId(2), status: 'accepted' })
  assert.equal(late, { value: { go: false } }, 'an agent that accepts too late must not begin')
})

test('an accepted task whose end is never reported is ended by its compute node', () => {
  const fleet = running()
  fleet.command('vm', VM, 'kill', { task_id: taskId(2) })
  fleet.settle()
  assert.equal(fleet.agent(SERVER, { id: taskId(2), status: 'accepted' }), { value: { go: true } })
  fleet.advance(10 * 60_000)
  assert.equal(fleet.tasks.get(taskId(2))?.error?.code, 'TaskTimedOut')
  assert.is(fleet.record('vm', VM).state, 'running')
})

test('a VM whose compute node never answers settles by its own deadline', () => {
  const fleet = running()
  fleet.command('vm', VM, 'kill', { task_id: taskId(2) })
  fleet.settle()
  fleet.records.delete(`cn.${SERVER}`)
  fleet.advance(16 * 60_000)
  assert.is(fleet.record('vm', VM).state, 'running')
  assert.equal(contextOf(fleet).failure?.code, 'TaskTimedOut')
})

test('a task refused by the compute node settles the VM with that refusal', () => {
  const fleet = running()
  fleet.records.delete(`cn.${SERVER}`)
  fleet.command('vm', VM, 'stop', { task_id: taskId(2) })
  fleet.settle()
  assert.is(fleet.record('vm', VM).state, 'running')
  assert.equal(contextOf(fleet).failure?.code, 'ResourceNotFound')
})

test('reports move a settled VM, older ones do not, and none moves one with an operation in flight', () => {
  const fleet = running()
  const report = (state: string, seen_at: number) =>
    fleet.command('vm', VM, 'reported', { server_uuid: SERVER, seen_at, vm: { uuid: VM, state } })
  report('stopped', fleet.now - 1)
  assert.is(fleet.record('vm', VM).state, 'running', 'seen before the create had ended')
  report('stopped', fleet.now + 1)
  assert.is(fleet.record('vm', VM).state, 'stopped')
  fleet.command('vm', VM, 'vanished', { server_uuid: SERVER, seen_at: fleet.now + 2 })
  assert.is(fleet.record('vm', VM).state, 'missing')
  report('running', fleet.now + 3)
  fleet.command('vm', VM, 'stop', { task_id: taskId(2) })
  report('failed', fleet.now + 4)
  assert.is(fleet.record('vm', VM).state, 'stopping')
})

test('a node whose clock was ahead during an operation is believed again as soon as its clock is right', () => {
  const fleet = running()
  const year = 365 * 24 * hour
  fleet.command('vm', VM, 'reboot', { task_id: taskId(2) })
  fleet.settle()
  fleet.agent(SERVER, { id: taskId(2), status: 'accepted' })
  fleet.agent(SERVER, { id: taskId(2), status: 'complete', at: fleet.now + year })
  fleet.settle()
  const report = (verb: string, more: object) =>
    fleet.command('vm', VM, verb, { server_uuid: SERVER, seen_at: fleet.now, ...more })
  fleet.advance(60_000)
  report('reported', { vm: { uuid: VM, state: 'failed' } })
  assert.is(fleet.record('vm', VM).state, 'running', 'may have been seen before the reboot had ended')
  fleet.advance(2 * 60_000)
  report('reported', { vm: { uuid: VM, state: 'failed' } })
  assert.is(fleet.record('vm', VM).state, 'failed')
  report('vanished', {})
  assert.is(fleet.record('vm', VM).state, 'missing')
})

test('a report of what is known already writes nothing', () => {
  const fleet = running()
  const report = (domain_id: number) => {
    const vm = { uuid: VM, state: 'running', domain_id, domain_state: 'running' }
    fleet.command('vm', VM, 'reported', { server_uuid: SERVER, seen_at: ++fleet.now, vm })
    return fleet.record('vm', VM)
  }
  const known = report(1)
  assert.is(report(1), known)
  assert.is.not(report(2), known)
})

test('a report from another server changes nothing', () => {
  const fleet = running()
  const other = SERVER.replace(/1$/, '2')
  fleet.command('vm', VM, 'reported', {
    server_uuid: other,
    seen_at: fleet.now + 1,
    vm: { uuid: VM, state: 'stopped' },
  })
  fleet.command('vm', VM, 'vanished', { server_uuid: other, seen_at: fleet.now + 1 })
  assert.is(fleet.record('vm', VM).state, 'running')
})

test('a domain that nobody ordered is discovered with what is known of it', () => {
  const fleet = makeFleet()
  registered(fleet)
  const vm = { uuid: VM, state: 'running', name: 'stranger', max_physical_memory: 256, vcpus: 2 }
  fleet.command('vm', VM, 'reported', { server_uuid: SERVER, seen_at: fleet.now, vm })
  const { discovered, name, ram, vcpus, server_uuid } = contextOf(fleet)
  assert.equal([discovered, name, ram, vcpus, server_uuid], [true, 'stranger', 256, 2, SERVER])
})

test('a repeat with the same sequence is answered from the record, and the same Idempotency-Key too', () => {
  const fleet = running()
  const command = { sender: 'gw', sequence: 7, floor: 7 }
  const first = fleet.command('vm', VM, 'stop', { task_id: taskId(2) }, command)
  const stored = fleet.record('vm', VM)
  assert.equal(fleet.command('vm', VM, 'stop', { task_id: taskId(2) }, command), first)
  assert.is(fleet.record('vm', VM), stored, 'nothing was written')
  const key = { value: 'k', fingerprint: 'f' }
  const keyed = fleet.command('vm', VM, 'reboot', { task_id: taskId(3) }, { key })
  assert.equal(fleet.command('vm', VM, 'reboot', { task_id: taskId(4) }, { key }), keyed)
  const reused = fleet.command('vm', VM, 'reboot', { task_id: taskId(4) }, { key: { ...key, fingerprint: 'g' } })
  assert.is('error' in reused && reused.error.code, 'IdempotencyKeyReused')
})

test('any text can be an Idempotency-Key, and the newest ones are kept', () => {
  const fleet = running()
  const send = (value: string, n: number) => {
    fleet.now += 1
    const more = { key: { value, fingerprint: value } }
    const reply = fleet.command('vm', VM, 'start', { task_id: taskId(n) }, more)
    fleet.settle()
    return reply
  }
  for (const [n, value] of ['constructor', '__proto__'].entries()) {
    assert.equal(send(value, 10 + n), { value: { id: taskId(10 + n) } })
    assert.equal(send(value, 99), { value: { id: taskId(10 + n) } })
  }
  for (let n = 0; n < 40; n++) send(`key-${n}`, 100 + n)
  assert.equal(send('7', 200), { value: { id: taskId(200) } })
  send('key-40', 201)
  assert.equal(send('7', 99), { value: { id: taskId(200) } })
})

test('bad params are refused naming the field, and an unknown verb and VM are not found', () => {
  const fleet = running()
  const bad = fleet.command('vm', VM, 'stop', { task_id: 7 })
  assert.equal('error' in bad && [bad.error.code, bad.error.errors?.[0]?.field], ['InvalidParameters', 'task_id'])
  for (const reply of [fleet.command('vm', VM, 'fly'), fleet.command('vm', SERVER, 'stop', { task_id: taskId(9) })]) {
    assert.ok('error' in reply && ['ResourceNotFound', 'VmNotFound'].includes(reply.error.code))
  }
  assert.not.ok(fleet.records.has(`vm.${SERVER}`), 'a refused command leaves no record')
})

test('actions names the guard that says no', () => {
  const fleet = running()
  const reply = fleet.command('vm', VM, 'actions') as {
    value: { actions: { verb: string; allowed: boolean; guard?: string }[] }
  }
  const by = Object.fromEntries(reply.value.actions.map(action => [action.verb, action.guard ?? action.allowed]))
  const { create, start, stop, reboot, kill, destroy } = by
  assert.equal([create, start, stop, reboot, kill, destroy], ['is_new', 'is_stopped', true, true, true, true])
})

test('the record stays small', () => {
  const bytes = JSON.stringify(running().record('vm', VM)).length
  assert.ok(bytes < 4096, `${bytes} bytes`)
})

test.run()
