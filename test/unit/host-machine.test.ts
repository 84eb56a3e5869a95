/** Hostnames bind once, follow their binding, and are free again when nothing is left. */
import * as assert from 'uvu/assert'
import type { HostContext } from '../../actors/contract/host.ts'
import { suite } from '../suite.ts'
import { complete, type Fleet, fail, makeFleet, registered, SERVER, specOf, taskId, VM } from './fleet.ts'

const test = suite('host machine')
const KEY = 'a'.repeat(32)
const other = SERVER.replace(/1$/, '2')
const create = (fleet: Fleet, n: number, more = {}) =>
  fleet.command('host', KEY, 'create', {
    hostname: 'ns.example.com',
    server_uuid: SERVER,
    task_id: taskId(n),
    spec: specOf(n === 1 ? VM : VM.replace(/aa$/, `b${n}`), 'ns.example.com'),
    ...more,
  })
const contextOf = (fleet: Fleet) => fleet.record('host', KEY).snapshot.context as unknown as HostContext

function fleetOfTwo(): Fleet {
  const fleet = makeFleet()
  registered(fleet)
  registered(fleet, other)
  return fleet
}

test('the first create binds and makes the VM; a second is refused while it exists', () => {
  const fleet = fleetOfTwo()
  assert.equal(create(fleet, 1), { value: { id: taskId(1), vm_uuid: VM, server_uuid: SERVER } })
  const second = create(fleet, 2)
  assert.is('error' in second && second.error.code, 'HostExists')
  fleet.settle()
  assert.equal(fleet.offers, [taskId(1)])
  complete(fleet, taskId(1), { vm: { uuid: VM, state: 'running' } })
  assert.is(fleet.record('vm', VM).state, 'running')
})

test('a create repeated after an outage does not take the hostname from its VM', () => {
  const fleet = fleetOfTwo()
  create(fleet, 1)
  const host = fleet.record('host', KEY)
  fleet.settle()
  // The power went before the VM's answer was stored, and came back an hour later; then the end of the task is told first.
  fleet.records.set(`host.${KEY}`, host)
  fleet.agent(SERVER, { id: taskId(1), status: 'accepted' })
  fleet.now += 3600_000
  fleet.agent(SERVER, { id: taskId(1), status: 'complete', result: { vm: { uuid: VM, state: 'running' } } })
  const [ended] = fleet.record('cn', SERVER).outbox
  assert.ok(ended?.effect.type === 'send')
  const sender = `cn:${SERVER}`
  fleet.command('vm', VM, 'task_ended', ended.effect.params, { sender, sequence: ended.sequence })
  fleet.settle()
  assert.is(fleet.record('vm', VM).state, 'running')
  assert.is(contextOf(fleet).vm_uuid, VM)
})

test('a create that fails frees the hostname', () => {
  const fleet = fleetOfTwo()
  create(fleet, 1)
  fleet.settle()
  fail(fleet, taskId(1))
  assert.is(fleet.record('host', KEY).state, 'free')
  assert.ok('value' in create(fleet, 2))
})

test('a VM that is refused by its own actor frees the hostname and refuses the caller', () => {
  const fleet = fleetOfTwo()
  fleet.command('vm', VM, 'create', { server_uuid: SERVER, task_id: taskId(9), spec: specOf(VM) })
  create(fleet, 1, {})
  fleet.settle()
  assert.is(fleet.record('host', KEY).state, 'free')
})

test('destroying the VM frees the hostname, unless networks were made through it', () => {
  for (const network of [false, true]) {
    const fleet = fleetOfTwo()
    if (network) {
      const params = {
        hostname: 'ns.example.com',
        server_uuid: SERVER,
        task_id: taskId(5),
        name: 'n',
        bridge: 'br0',
        vlan: 10,
      }
      assert.equal(fleet.command('host', KEY, 'network_create', params), {
        value: { id: taskId(5), server_uuid: SERVER },
      })
    }
    create(fleet, 1, { server_uuid: network ? other : SERVER })
    fleet.settle()
    complete(fleet, taskId(1), { vm: { uuid: VM, state: 'running' } })
    fleet.command('host', KEY, 'destroy', { task_id: taskId(3) })
    fleet.settle()
    complete(fleet, taskId(3), { vm: null })
    assert.equal(contextOf(fleet).vm_uuid, null)
    assert.is(contextOf(fleet).server_uuid, network ? SERVER : null)
  }
})

test('a caller that names another server than the bound one is refused', () => {
  const fleet = fleetOfTwo()
  create(fleet, 1)
  const reply = create(fleet, 2, { server_uuid: other, server_named: true })
  assert.is('error' in reply && reply.error.code, 'InvalidArgument')
})

test('start and destroy without a VM are not found', () => {
  const fleet = fleetOfTwo()
  for (const verb of ['start', 'destroy']) {
    const reply = fleet.command('host', KEY, verb, { task_id: taskId(1) })
    assert.is('error' in reply && reply.error.code, 'VmNotFound')
  }
})

test.run()
