/**
 * NICs of many VMs that move at once: no VM waits for another one, each is moved whole or not at all, and its record hears of its moves in
 * the order in which they were made, whatever else is done to it meanwhile.
 */
import { randomUUID } from 'node:crypto'
import * as assert from 'uvu/assert'
import type { TaskReport } from '../../actors/contract/messages.ts'
import type { NicSpec, VmContext } from '../../actors/contract/vm.ts'
import { eventually } from '../eventually.ts'
import { suite } from '../suite.ts'
import { type Agent, type Node, offer, simulatedNode, vmSpec } from './agent-fixture.ts'
import { complete, makeFleet, registered, SERVER, taskId, VM, withRunningVm } from './fleet.ts'

const test = suite('NIC moves')

const mac = (n: number) => `52:54:00:00:00:0${n}`
const move = { from: { nic_tag: 'external', vlan_id: 10 }, to: [{ vlan_id: 20 }] }

interface Scene {
  node: Node
  agent: Agent
  /** Two running VMs with a NIC on VLAN 10 each. */
  one: string
  two: string
}

async function moving(body: (scene: Scene) => Promise<void>): Promise<void> {
  const node = await simulatedNode({ memoryMib: 8192 })
  const define = async (n: number) => {
    const spec = vmSpec({ nics: [{ mac: mac(n), nic_tag: 'external', vlan_id: 10 }] })
    await node.hypervisor.defineVm(spec, { taskId: randomUUID() })
    await node.hypervisor.startVm(spec.uuid)
    return spec.uuid
  }
  try {
    const scene = { node, agent: await node.agent(), one: await define(1), two: await define(2) }
    await body(scene)
    await scene.agent.kill()
  } finally {
    await node.remove()
  }
}

const vlanOf = async ({ node }: Scene, uuid: string) => (await node.hypervisor.shapeOf(uuid)).nics[0]?.vlan_id
const told = ({ node }: Scene, uuid: string): NicSpec[][] =>
  node.owner.reports.flatMap(({ changed = [] }) =>
    changed.filter(one => one.uuid === uuid).map(({ wanted }) => wanted.nics ?? []),
  )
const errors = (end: TaskReport) =>
  (end.result as { vms: { uuid: string; error?: { code: string; message: string } }[] }).vms.map(vm => [
    vm.uuid,
    vm.error?.code,
  ])

test('a VM that hangs delays no other: those are moved and told, also when the task is ended then', () =>
  moving(async scene => {
    const { node, agent, one, two } = scene
    node.hypervisor.faults.add({ call: 'reshapeVm', uuid: one, hang: true })
    const task = offer('machine_update_nics', move)
    await agent.executor.accept(task)
    await eventually(() => told(scene, two).length === 1, { what: 'the other VM being told of' })
    assert.equal(told(scene, two), [[{ mac: mac(2), nic_tag: 'external', vlan_id: 20 }]])
    assert.is(await vlanOf(scene, two), 20)
    const [report] = node.owner.reports.filter(({ changed }) => changed)
    assert.equal(Object.keys(report?.changed?.[0]?.wanted ?? {}), ['only', 'nics'], 'and nothing that was not changed')
    agent.executor.cancel(task.id)
    assert.is((await node.owner.end(task.id)).error?.code, 'TaskCancelled')
    assert.equal([await vlanOf(scene, one), told(scene, one)], [10, []])
    node.hypervisor.faults.clear()
  }))

test('a VM whose QEMU never answers is listed with its reason, a hypervisor that is away is waited for', () =>
  moving(async scene => {
    const { node, agent, one, two } = scene
    const release = node.hypervisor.faults.add({ call: 'reshapeVm', uuid: one, fail: 'HypervisorUnavailable' })
    const task = offer('machine_update_nics', move)
    await agent.executor.accept(task)
    const end = await node.owner.end(task.id)
    assert.equal(
      [end.status, errors(end).sort()],
      ['complete', sorted([one, 'HypervisorUnavailable'], [two, undefined])],
    )
    assert.equal([await vlanOf(scene, one), await vlanOf(scene, two)], [10, 20])
    release()
    node.hypervisor.faults.add({ call: 'reshapeVm', uuid: one, fail: 'HypervisorUnavailable', times: 1 })
    node.hypervisor.faults.add({ call: 'ping', fail: 'HypervisorUnavailable', times: 1 })
    const again = offer('machine_update_nics', move)
    await agent.executor.accept(again)
    assert.equal(errors(await node.owner.end(again.id)), [[one, undefined]])
    assert.is(await vlanOf(scene, one), 20)
  }))

test('a move that fails after its effect is taken back, and one that cannot be says what to look at', () =>
  moving(async scene => {
    const { node, agent, one, two } = scene
    const { faults } = node.hypervisor
    faults.add({ call: 'reshapeVm', uuid: one, when: 'after', fail: 'HypervisorError', times: 1 })
    faults.add({ call: 'reshapeVm', uuid: two, when: 'after', fail: 'HypervisorError', times: 1 })
    faults.add({ call: 'reshapeVm', uuid: two, when: 'after', fail: 'InternalError', times: 1 })
    const task = offer('machine_update_nics', move)
    await agent.executor.accept(task)
    const { vms } = (await node.owner.end(task.id)).result as { vms: { uuid: string; error?: { message: string } }[] }
    const messageOf = (uuid: string) => vms.find(vm => vm.uuid === uuid)?.error?.message ?? ''
    assert.is(await vlanOf(scene, one), 10)
    assert.not.match(messageOf(one), /taken back/)
    assert.match(messageOf(two), /could not be taken back .*look at this server's drift/)
    assert.equal([told(scene, one), told(scene, two)], [[], []])
  }))

test('a VM that is being migrated keeps its NICs until that has ended', () =>
  moving(async scene => {
    const { node, agent, one } = scene
    Object.assign(node.hypervisor.world.guest(one) ?? {}, { held: { by: randomUUID(), autoboot: true } })
    const task = offer('machine_update_nics', move)
    await agent.executor.accept(task)
    assert.ok(errors(await node.owner.end(task.id)).some(([uuid, code]) => uuid === one && code === 'VmBusy'))
    assert.is(await vlanOf(scene, one), 10)
  }))

test('what a task has made of a VM is heard before the next one changes that VM', () =>
  moving(async scene => {
    const { node, agent, one } = scene
    const update = offer('machine_update', {
      uuid: one,
      changes: { update_nics: [{ mac: mac(1), vlan_id: 30 }] },
      ignored: [],
    })
    let answer = (_: { go: boolean }) => {}
    node.owner.answer = report =>
      report.id === update.id && report.status === 'complete'
        ? new Promise(resolve => {
            answer = resolve
          })
        : { go: true }
    await agent.executor.accept(update)
    await node.owner.end(update.id)
    const task = offer('machine_update_nics', { from: { nic_tag: 'external', vlan_id: 30 }, to: [{ vlan_id: 31 }] })
    await agent.executor.accept(task)
    await eventually(() => node.owner.reports.some(({ id, progress = 0 }) => id === task.id && progress >= 50), {
      what: 'the other VM being done with',
    })
    assert.equal([await vlanOf(scene, one), told(scene, one)], [30, []])
    answer({ go: true })
    await node.owner.end(task.id)
    assert.equal([await vlanOf(scene, one), told(scene, one).length], [31, 1])
  }))

test('a NIC that is removed after its move stays removed in the record when the older task ends', () => {
  const fleet = makeFleet()
  registered(fleet)
  withRunningVm(fleet)
  const nics = () => (fleet.record('vm', VM).snapshot.context as unknown as VmContext).nics
  const nic = { mac: mac(1), nic_tag: 'external', vlan_id: 20 }
  const only = [`nics.${mac(1)}`]
  fleet.command('cn', SERVER, 'task_add', { task_id: taskId(2), task: 'machine_update_nics', params: {} })
  fleet.settle()
  fleet.agent(SERVER, { id: taskId(2), status: 'accepted' })
  fleet.agent(SERVER, { id: taskId(2), status: 'active', changed: [{ uuid: VM, wanted: { only, nics: [nic] } }] })
  fleet.settle()
  assert.equal(nics(), [nic], 'known while the task still moves others')
  fleet.command('vm', VM, 'update', { task_id: taskId(3), params: { changes: { remove_nics: [mac(1)] } } })
  fleet.settle()
  complete(fleet, taskId(3), { vm: { uuid: VM, state: 'running' }, wanted: { only, nics: [] } })
  assert.equal(nics(), [])
  complete(fleet, taskId(2), { vms: [{ uuid: VM, applied: { [`nics.${mac(1)}`]: 'live' } }] })
  assert.equal(nics(), [])
  // The task is over for its owner; what was made of the VM is so all the same.
  fleet.agent(SERVER, { id: taskId(2), status: 'active', changed: [{ uuid: VM, wanted: { only, nics: [nic] } }] })
  fleet.settle()
  assert.equal(nics(), [nic])
})

const sorted = (...rows: [string, string | undefined][]) => rows.sort()

test.run()
