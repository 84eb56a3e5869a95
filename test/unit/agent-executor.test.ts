/** The executor's own promises: leave, limits, lanes, progress, and that one sick VM delays nobody else. */
import { randomUUID } from 'node:crypto'
import { chmodSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { eventually } from '../eventually.ts'
import { suite } from '../suite.ts'
import { type Agent, type AgentOptions, type Node, offer, quick, simulatedNode, vmSpec } from './agent-fixture.ts'

const test = suite('agent executor')

async function withNode(body: (node: Node) => Promise<void>): Promise<void> {
  const node = await simulatedNode({ delays: { install: Number.POSITIVE_INFINITY, acpi: 2 } })
  try {
    await body(node)
  } finally {
    node.hypervisor.faults.clear()
    await node.remove()
  }
}

async function runningVm(node: Node): Promise<string> {
  const spec = vmSpec()
  await node.hypervisor.defineVm(spec, { taskId: randomUUID() })
  await node.hypervisor.startVm(spec.uuid)
  return spec.uuid
}

const limited = (ms: number): AgentOptions => ({ limitMsOf: () => ms })

test('a task waits for its owner before it does anything', () =>
  withNode(async node => {
    let leave = (_: { go: boolean }) => {}
    node.owner.answer = ({ status }) =>
      status === 'accepted' ? new Promise(resolve => (leave = resolve)) : { go: true }
    const agent = await node.agent()
    const task = offer('network_create', { name: 'net', bridge: 'br0', vlan: 5 })
    await agent.executor.accept(task)
    await eventually(() => node.owner.reports.length === 1)
    assert.equal(await node.hypervisor.listNetworks(), [])
    assert.is(agent.journal.find(task.id)?.began_at, null)
    leave({ go: true })
    assert.is((await node.owner.end(task.id)).status, 'complete')
    await agent.kill()
  }))

test('a task whose owner has ended it meanwhile is dropped, and not reported', () =>
  withNode(async node => {
    node.owner.answer = () => ({ go: false })
    const agent = await node.agent()
    const task = offer('network_create', { name: 'net', bridge: 'br0', vlan: 5 })
    await agent.executor.accept(task)
    await eventually(() => agent.journal.open().length === 0)
    assert.equal(await node.hypervisor.listNetworks(), [])
    assert.is(node.owner.reports.length, 1)
    await agent.kill()
  }))

test('a task that is ended while it waits for its turn does nothing', () =>
  withNode(async node => {
    let release = () => {}
    const removed: string[] = []
    const agent = await node.agent({
      parallel: 1,
      slotHoldMs: 60_000,
      leaveLifetimeMs: 0,
      through: hypervisor => ({
        ...hypervisor,
        removeVm: uuid => {
          removed.push(uuid)
          return new Promise<void>(resolve => {
            release = resolve
          })
        },
      }),
    })
    const [first, second] = [randomUUID(), randomUUID()].map(uuid => offer('machine_destroy', { uuid }))
    assert.ok(first && second)
    await agent.executor.accept(first)
    await eventually(() => removed.length === 1)
    await agent.executor.accept(second)
    await eventually(() => node.owner.reports.some(({ id }) => id === second.id))
    node.owner.answer = ({ id }) => ({ go: id !== second.id })
    release()
    await node.owner.end(first.id)
    await eventually(() => agent.journal.open().length === 0)
    assert.equal(removed, [first.params['uuid']])
    await agent.kill()
  }))

test('a create that its owner ended while the agent was away is taken back', () =>
  withNode(async node => {
    const release = node.hypervisor.faults.add({ call: 'startVm', hang: true })
    const first = await node.agent()
    const spec = vmSpec()
    await first.executor.accept(offer('machine_create', { spec }))
    await eventually(() => node.hypervisor.world.guest(spec.uuid))
    await first.kill()
    release()
    node.owner.answer = () => ({ go: false })
    const second = await node.agent()
    second.executor.resume()
    await eventually(() => second.journal.open().length === 0)
    assert.is(node.hypervisor.world.guest(spec.uuid), undefined)
    await second.kill()
  }))

test('what was cancelled while the agent was away is taken back before the next task of its VM, whoever is answered first', () =>
  withNode(async node => {
    const { hypervisor, owner } = node
    const uuid = await runningVm(node)
    const update = (alias: string) => offer('machine_update', { uuid, changes: { alias }, ignored: [] })
    const [cancelled, next] = [update('cancelled'), update('next')]
    const release = hypervisor.faults.add({ call: 'reshapeVm', when: 'after', hang: true })
    const first = await node.agent()
    await first.executor.accept(cancelled)
    await eventually(async () => (await hypervisor.shapeOf(uuid)).alias === 'cancelled')
    await first.kill()
    release()
    let answer = (_: { go: boolean }) => {}
    owner.answer = ({ id, status }) =>
      id === cancelled.id && status === 'accepted'
        ? new Promise(resolve => {
            answer = resolve
          })
        : { go: true }
    const second = await node.agent()
    second.executor.resume()
    await second.executor.accept(next)
    await eventually(() => owner.reports.some(({ id }) => id === next.id), { what: 'leave for the next one' })
    await answeredElsewhere(second)
    answer({ go: false })
    assert.is((await owner.end(next.id)).status, 'complete')
    await eventually(() => second.journal.open().length === 0)
    assert.is((await hypervisor.shapeOf(uuid)).alias, 'next')
    await second.kill()
  }))

/** Whatever the agent can do without an answer it has done when a task of another VM has ended. */
async function answeredElsewhere(agent: Agent): Promise<void> {
  const other = offer('nop', {})
  await agent.executor.accept(other)
  await eventually(() => agent.journal.remembered(other.id) !== undefined, { what: 'another task' })
}

test('progress is told with its step, rises, and a "no" to it stops the task', () =>
  withNode(async node => {
    const release = node.hypervisor.faults.add({ call: 'startVm', hang: true })
    let isCancelled = false
    node.owner.answer = ({ status }) => ({ go: !(isCancelled && status === 'active') })
    const agent = await node.agent()
    const spec = vmSpec()
    const task = offer('machine_create', { spec })
    await agent.executor.accept(task)
    const steps = () => node.owner.reports.filter(one => one.status === 'active')
    await eventually(() => steps().at(-1)?.step === 'start', { what: 'the step start' })
    const told = steps().map(one => one.progress ?? -1)
    assert.equal(
      told,
      [...told].sort((a, b) => a - b),
    )
    await agent.kill()
    release()

    isCancelled = true
    const other = await node.agent()
    const cancelled = offer('machine_shutdown', { uuid: await runningVm(node), timeout: 60 })
    node.hypervisor.world.setAcpi(String(cancelled.params['uuid']), 'ignores')
    await other.executor.accept(cancelled)
    const end = await node.owner.end(cancelled.id)
    assert.is(end.error?.code, 'TaskCancelled')
    assert.is(node.hypervisor.world.guest(String(cancelled.params['uuid']))?.state, 'running')
    await other.kill()
  }))

test('a task that its owner ends stops at once, without progress to report, and what it did is taken back', () =>
  withNode(async node => {
    const agent = await node.agent()
    const uuid = await runningVm(node)
    node.hypervisor.world.setAcpi(uuid, 'ignores')
    const stop = offer('machine_shutdown', { uuid, timeout: 3600 })
    const spec = vmSpec()
    const create = offer('machine_create', { spec })
    const release = node.hypervisor.faults.add({ call: 'startVm', hang: true })
    await agent.executor.accept(stop)
    await agent.executor.accept(create)
    await eventually(() => node.hypervisor.world.guest(spec.uuid) && agent.journal.find(stop.id)?.began_at)
    for (const { id } of [stop, create]) agent.executor.cancel(id)
    for (const { id } of [stop, create]) {
      const end = await node.owner.end(id)
      assert.equal([end.status, end.error?.code], ['failure', 'TaskCancelled'])
    }
    assert.equal(
      (await node.hypervisor.listVms()).map(vm => [vm.uuid, vm.state]),
      [[uuid, 'running']],
    )
    await eventually(() => agent.journal.open().length === 0)
    release()
    await agent.kill()
  }))

test('a task that its owner ends before its turn does nothing, and one that nobody knows is left so', () =>
  withNode(async node => {
    const agent = await node.agent()
    const uuid = await runningVm(node)
    node.hypervisor.world.setAcpi(uuid, 'ignores')
    const stop = offer('machine_shutdown', { uuid, timeout: 3600 })
    const kill = offer('machine_kill', { uuid })
    await agent.executor.accept(stop)
    await eventually(() => agent.journal.find(stop.id)?.began_at)
    await agent.executor.accept(kill)
    for (const id of [kill.id, randomUUID(), stop.id]) agent.executor.cancel(id)
    await eventually(() => agent.journal.open().length === 0)
    assert.equal(node.owner.ends(kill.id), [])
    assert.is((await node.hypervisor.listVms())[0]?.state, 'running')
    await agent.kill()
  }))

test('a task past its limit ends as TaskTimedOut with a look at its VM; what was hanging does nothing afterwards', () =>
  withNode(async node => {
    const uuid = await runningVm(node)
    await node.hypervisor.powerOff(uuid, { graceful: false })
    const release = node.hypervisor.faults.add({ call: 'listVms', times: 1, hang: true })
    const agent = await node.agent(limited(100))
    const task = offer('machine_boot', { uuid })
    await agent.executor.accept(task)
    const end = await node.owner.end(task.id)
    assert.is(end.error?.code, 'TaskTimedOut')
    assert.is((end.result as { vm: { state: string } }).vm.state, 'stopped')
    release()
    // The next task of this VM has had its turn, so the first one had every chance to go on.
    const next = offer('machine_kill', { uuid, idempotent: true })
    await agent.executor.accept(next)
    await node.owner.end(next.id)
    assert.is(node.hypervisor.world.guest(uuid)?.boots, 1)
    await agent.kill()
  }))

test('a create past its limit leaves nothing behind', () =>
  withNode(async node => {
    const release = node.hypervisor.faults.add({ call: 'startVm', hang: true })
    const agent = await node.agent(limited(150))
    const spec = vmSpec()
    const task = offer('machine_create', { spec })
    await agent.executor.accept(task)
    assert.is((await node.owner.end(task.id)).error?.code, 'TaskTimedOut')
    assert.is(node.hypervisor.world.guest(spec.uuid), undefined)
    release()
    await agent.kill()
  }))

test('tasks of one VM run one after the other, in the order they came', () =>
  withNode(async node => {
    const uuid = await runningVm(node)
    node.hypervisor.faults.add({ call: 'powerOff', delayMs: 60 })
    const agent = await node.agent()
    const [kill, boot] = [offer('machine_kill', { uuid }), offer('machine_boot', { uuid })]
    await agent.executor.accept(kill)
    await agent.executor.accept(boot)
    assert.is((await node.owner.end(kill.id)).status, 'complete')
    assert.is((await node.owner.end(boot.id)).status, 'complete')
    assert.is(node.hypervisor.world.guest(uuid)?.boots, 2)
    await agent.kill()
  }))

test('as many sick VMs as there are slots delay another one by the hold time, not more', () =>
  withNode(async node => {
    const sick = await Promise.all(Array.from({ length: 4 }, () => runningVm(node)))
    const releases = sick.map(uuid => node.hypervisor.faults.add({ call: 'powerOff', uuid, hang: true }))
    const agent = await node.agent({ parallel: 4, slotHoldMs: 100 })
    for (const uuid of sick) await agent.executor.accept(offer('machine_kill', { uuid }))
    const well = offer('machine_kill', { uuid: await runningVm(node) })
    const began = performance.now()
    await agent.executor.accept(well)
    assert.is((await node.owner.end(well.id)).status, 'complete')
    const tookMs = performance.now() - began
    assert.ok(tookMs < 9_000, `${tookMs} ms`)
    for (const release of releases) release()
    await agent.kill()
  }))

test('not more begin at once than the bound allows', () =>
  withNode(async node => {
    const inside: (() => void)[] = []
    const held = () => new Promise<void>(resolve => void inside.push(resolve))
    const agent = await node.agent({
      parallel: 3,
      slotHoldMs: 60_000,
      through: hypervisor => ({ ...hypervisor, removeVm: held }),
    })
    const tasks = Array.from({ length: 12 }, () => offer('machine_destroy', { uuid: randomUUID() }))
    for (const task of tasks) await agent.executor.accept(task)
    for (let left = tasks.length; left > 0; left--) {
      await eventually(() => inside.length >= Math.min(3, left), { what: 'full slots' })
      assert.is(inside.length, Math.min(3, left))
      inside.shift()?.()
    }
    for (const task of tasks) await node.owner.end(task.id)
    await agent.kill()
  }))

test('a booting guest that loses the power button is asked again', () =>
  withNode(async node => {
    const uuid = await runningVm(node)
    node.hypervisor.world.setAcpi(uuid, 'ignores')
    let presses = 0
    const agent = await node.agent({
      timings: { ...quick, stopTimeoutMs: 20_000 },
      through: hypervisor => ({
        ...hypervisor,
        pressPowerButton: async id => {
          presses += 1
          if (presses === 3) node.hypervisor.world.setAcpi(uuid, 'listens')
          await hypervisor.pressPowerButton(id)
        },
      }),
    })
    const task = offer('machine_shutdown', { uuid })
    await agent.executor.accept(task)
    await node.owner.end(task.id)
    assert.is(presses, 3)
    assert.is(node.hypervisor.world.guest(uuid)?.state, 'stopped')
    await agent.kill()
  }))

test('every spelling of the two signals works', () =>
  withNode(async node => {
    const agent = await node.agent()
    for (const signal of ['SIGKILL', 'KILL', 'sigterm', 'TERM', 9, '9', 15, '15', undefined]) {
      const task = offer('machine_kill', { uuid: await runningVm(node), ...(signal === undefined ? {} : { signal }) })
      await agent.executor.accept(task)
      assert.is((await node.owner.end(task.id)).status, 'complete', String(signal))
    }
    for (const signal of ['SIGUSR1', 1, 'constructor', '']) {
      const task = offer('machine_kill', { uuid: await runningVm(node), signal })
      await agent.executor.accept(task)
      assert.is((await node.owner.end(task.id)).error?.code, 'SignalNotSupported', String(signal))
    }
    await agent.kill()
  }))

test('an offer is not accepted when the journal cannot be written', () =>
  withNode(async node => {
    const agent = await node.agent()
    const folder = join(node.stateDir, 'journal')
    rmSync(folder, { recursive: true })
    writeFileSync(folder, 'not a folder')
    const task = offer('nop', {})
    const answer = await agent.executor.accept(task)
    assert.is('error' in answer && answer.error.code, 'ServiceUnavailableError')
    rmSync(folder)
    mkdirSync(folder)
    chmodSync(folder, 0o750)
    assert.equal(await agent.executor.accept(task), { value: { accepted: true } })
    await node.owner.end(task.id)
    await agent.kill()
  }))

test('a task whose journal cannot be written for a while goes on when it can', () =>
  withNode(async node => {
    const folder = join(node.stateDir, 'journal')
    let isBroken = false
    node.owner.answer = ({ status }) => {
      if (status === 'accepted' && !isBroken) {
        isBroken = true
        rmSync(folder, { recursive: true })
      }
      return { go: true }
    }
    const agent = await node.agent({ retryMs: 20 })
    const task = offer('nop', {})
    await agent.executor.accept(task)
    await eventually(() => node.owner.reports.length >= 2, { what: 'another try' })
    mkdirSync(folder)
    assert.is((await node.owner.end(task.id)).status, 'complete')
    await agent.kill()
  }))

test('a hypervisor that goes away and comes back fails no task', () =>
  withNode(async node => {
    for (const when of ['before', 'after'] as const) {
      for (const call of ['defineVm', 'startVm', 'listVms'] as const) {
        node.hypervisor.faults.add({ call, when, times: 2, fail: 'HypervisorUnavailable' })
      }
    }
    const agent = await node.agent({ retryMs: 5 })
    const spec = vmSpec()
    const task = offer('machine_create', { spec })
    await agent.executor.accept(task)
    const end = await node.owner.end(task.id)
    assert.is(end.status, 'complete', JSON.stringify(end))
    assert.is(node.hypervisor.world.guest(spec.uuid)?.boots, 1)
    await agent.kill()
  }))

test('an agent that stops leaves its tasks in the journal and its guests alone', () =>
  withNode(async node => {
    const uuid = await runningVm(node)
    node.hypervisor.world.setAcpi(uuid, 'ignores')
    const agent = await node.agent({ timings: { ...quick, stopTimeoutMs: 60_000 } })
    const task = offer('machine_shutdown', { uuid })
    await agent.executor.accept(task)
    await eventually(() => agent.journal.find(task.id)?.marks['deadline'], { what: 'the deadline' })
    await agent.kill()
    assert.is(node.hypervisor.world.guest(uuid)?.state, 'running')
    const again = await node.agent()
    assert.ok(again.journal.find(task.id)?.began_at)
    assert.is(again.journal.find(task.id)?.ended, null)
    await again.kill()
  }))

test.run()
