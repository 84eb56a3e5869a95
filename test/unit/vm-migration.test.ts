/**
 * A migration as decided: the whole way, every fault at every step, and random histories. Whatever happens, two copies never run, and a
 * migration left alone ends with the VM on one server and nothing on the other.
 */
import fc from 'fast-check'
import * as assert from 'uvu/assert'
import type { TaskRecord } from '../../actors/contract/task.ts'
import { suite } from '../suite.ts'
import { VM } from './fleet.ts'
import { type Fate, MIGRATION, migrate, migrationWorld, SOURCE, TARGET, type World } from './migration-world.ts'

const test = suite('migration of a VM')

const stopped = [
  'machine_migrate_examine',
  'machine_migrate_receive',
  'machine_shutdown',
  'machine_migrate_send',
  'machine_migrate_adopt',
  'machine_migrate_start',
  'machine_migrate_finish',
  'machine_migrate_remove',
]
/** Of a guest that runs on while it is moved. */
const live = stopped.filter(step => step !== 'machine_shutdown' && step !== 'machine_migrate_adopt')
const committed = ['machine_migrate_finish', 'machine_migrate_remove']

function neverTwo({ copies }: World): void {
  const running = [...copies].filter(([, copy]) => copy.running).map(([server]) => server)
  assert.ok(running.length <= 1, `copies run on ${running.join(' and ')}`)
}

/** One copy, on the server that the record names, doing what the record says. */
function settledOn(world: World, server: string, state: string): void {
  const { context, fleet, copies } = world
  assert.equal([world.state(), context().server_uuid, [...copies.keys()]], [state, server, [server]])
  assert.equal(copies.get(server)?.running, state === 'running')
  assert.equal([copies.get(server)?.held, copies.get(server)?.complete], [false, true])
  assert.equal([context().operation, context().migration ?? null, context().leftovers ?? []], [null, null, []])
  assert.equal(
    [...fleet.tasks.values()].filter(({ status }) => status === 'active').map(({ task }) => task),
    [],
  )
  for (const node of [SOURCE, TARGET]) {
    const { outbox, timers, snapshot } = fleet.record('cn', node)
    assert.equal([outbox, timers, snapshot.context['open']], [[], {}, {}])
  }
  assert.equal([fleet.record('vm', VM).outbox, fleet.record('vm', VM).timers], [[], {}])
}

test('a running VM is stopped, moved and started, and its record goes with it', () => {
  const world = migrationWorld()
  migrate(world)
  const seen: string[] = []
  while (world.open().length > 0) {
    const task = world.open()[0] as TaskRecord
    seen.push(`${task.server_uuid === SOURCE ? 'source' : 'target'} ${task.task}`)
    assert.is(world.fleet.tasks.get(MIGRATION)?.status, 'active')
    world.work()
    neverTwo(world)
  }
  assert.equal(seen, [
    'source machine_migrate_examine',
    'target machine_migrate_receive',
    'source machine_shutdown',
    'source machine_migrate_send',
    'target machine_migrate_adopt',
    'target machine_migrate_start',
    'target machine_migrate_finish',
    'source machine_migrate_remove',
  ])
  settledOn(world, TARGET, 'running')
  const task = world.fleet.tasks.get(MIGRATION)
  assert.is(task?.status, 'complete')
  assert.equal(task?.history?.[0]?.event, {
    server_uuid: TARGET,
    source_removed: true,
    vm: { uuid: VM, state: 'running' },
  })
})

test('a VM that is moved live is neither stopped nor started, and paused before it goes on on the other server', () => {
  const world = migrationWorld()
  migrate(world, { live: true })
  const seen: string[] = []
  while (world.open().length > 0) {
    const task = world.open()[0] as TaskRecord
    seen.push(task.task)
    if (task.task === 'machine_migrate_start')
      assert.equal([world.copies.get(SOURCE)?.paused, task.params?.['cookie']], [true, 'Y29va2ll'])
    world.work()
    neverTwo(world)
  }
  assert.equal(seen, live)
  settledOn(world, TARGET, 'running')
  const task = world.fleet.tasks.get(MIGRATION)
  assert.is(task?.status, 'complete')
  const vm = { uuid: VM, state: 'running' }
  assert.equal(task?.history?.[0]?.event, { server_uuid: TARGET, source_removed: true, downtime_ms: 250, vm })
})

test('a stopped VM has nothing to be moved live', () => {
  const world = migrationWorld({ running: false })
  migrate(world, { live: true })
  assert.is(world.fleet.tasks.get(MIGRATION)?.error?.code, 'VmNotRunning')
  assert.equal(world.open(), [])
  settledOn(world, SOURCE, 'stopped')
})

test('a guest that powers itself off while it is moved live stays off', () => {
  const world = migrationWorld()
  migrate(world, { live: true })
  while (world.open()[0]?.task !== 'machine_migrate_send') world.work()
  Object.assign(world.copies.get(SOURCE) ?? {}, { running: false })
  world.rest()
  settledOn(world, SOURCE, 'stopped')
})

test('a stopped VM is moved without being started', () => {
  const world = migrationWorld({ running: false })
  migrate(world)
  const seen: string[] = []
  while (world.open().length > 0) {
    seen.push((world.open()[0] as TaskRecord).task)
    world.work()
  }
  assert.not.ok(seen.includes('machine_migrate_start') || seen.includes('machine_shutdown'))
  settledOn(world, TARGET, 'stopped')
})

test('a VM can go there and back', () => {
  const world = migrationWorld()
  migrate(world)
  world.rest()
  migrate(world, {}, 'bbbbbbbb-0000-4000-9000-000000000002')
  world.rest()
  settledOn(world, SOURCE, 'running')
})

for (const [how, step] of [
  ...stopped.map(step => ['', step] as const),
  ...live.map(step => ['live ', step] as const),
]) {
  const asked = how ? { live: true } : {}
  for (const fate of ['fails', 'works_but_fails', 'silent'] as const) {
    test(`${how}${step} ${fate}: the VM ends where it belongs and nothing is left`, () => {
      const world = migrationWorld()
      migrate(world, asked)
      let hit = false
      while (world.open().length > 0) {
        const isHit: boolean = !hit && world.open()[0]?.task === step
        hit ||= isHit
        world.work(() => (isHit ? fate : 'works'))
        neverTwo(world)
      }
      assert.ok(hit)
      world.rest()
      neverTwo(world)
      // What runs on the target is not taken back.
      const isMoved = committed.includes(step) || (step === 'machine_migrate_start' && fate === 'works_but_fails')
      settledOn(world, isMoved ? TARGET : SOURCE, 'running')
      const task = world.fleet.tasks.get(MIGRATION)
      assert.is(task?.status, isMoved ? 'complete' : 'failure')
      if (!isMoved) assert.is(world.context().failure?.code, fate === 'silent' ? 'AgentNotConnected' : 'TaskFailed')
    })
  }

  test(`${how}${step} can be aborted, unless the VM is the target's already`, () => {
    const world = migrationWorld()
    migrate(world, asked)
    while (world.open()[0]?.task !== step) world.work()
    const reply = world.fleet.command('vm', VM, 'migrate_abort', { force: false })
    const isMoved = committed.includes(step)
    if (isMoved) assert.equal('error' in reply && reply.error.code, 'MigrationCommitted')
    else assert.equal(reply, { value: { id: MIGRATION } })
    world.rest()
    neverTwo(world)
    settledOn(world, isMoved ? TARGET : SOURCE, 'running')
    if (!isMoved) assert.is(world.context().failure?.code, 'TaskCancelled')
  })

  test(`an operator who ends the migration's own task during ${how}${step} takes it back`, () => {
    const world = migrationWorld()
    migrate(world, asked)
    while (world.open()[0]?.task !== step) world.work()
    const params = { task_id: MIGRATION, code: 'TaskCancelled', message: 'no' }
    world.fleet.command('cn', SOURCE, 'task_fail', params)
    world.rest()
    settledOn(world, committed.includes(step) ? TARGET : SOURCE, 'running')
  })

  test(`the end of ${how}${step} that is never told is not waited for for ever`, () => {
    const world = migrationWorld()
    migrate(world, asked)
    while (world.open()[0]?.task !== step) world.work()
    const task = world.open()[0] as TaskRecord
    world.fleet.agent(task.server_uuid, { id: task.id, status: 'accepted' })
    while (world.context().migration?.step_task === task.id) world.fleet.advance(60_000, { agentListens: false })
    world.rest()
    neverTwo(world)
    settledOn(world, committed.includes(step) ? TARGET : SOURCE, 'running')
  })
}

/** The target was told to start it and has not been heard since. */
function uncertain(isStarted: boolean, asked = {}): World {
  const world = migrationWorld()
  migrate(world, asked)
  while (world.open()[0]?.task !== 'machine_migrate_start') world.work()
  world.work(() => (isStarted ? 'works_but_fails' : 'fails'))
  while (world.state() !== 'uncertain') world.work(({ server_uuid }) => (server_uuid === TARGET ? 'silent' : 'works'))
  return world
}

for (const asked of [{}, { live: true }]) {
  const how = 'live' in asked ? 'live' : 'stopped'
  test(`a ${how} VM whose target never takes up its start is given back at once, and what is there is removed when it answers`, () => {
    const world = migrationWorld()
    migrate(world, asked)
    while (world.open()[0]?.task !== 'machine_migrate_start') world.work()
    world.work(() => 'silent')
    assert.is(world.open()[0]?.task, 'machine_migrate_release')
    world.work()
    assert.equal([world.state(), world.copies.get(SOURCE)?.running], ['running', true])
    world.rest()
    neverTwo(world)
    settledOn(world, SOURCE, 'running')
  })
}

for (const isStarted of [true, false]) {
  const did = isStarted ? 'did' : 'did not'
  test(`when nobody can say whether the target started it (it ${did}), it stays stopped and says so`, () => {
    const world = uncertain(isStarted)
    const { failure, server_uuid, migration } = world.context()
    assert.equal([failure?.code, server_uuid, migration?.step], ['MigrationUncertain', SOURCE, 'discard'])
    assert.is(world.fleet.record('vm', VM).status, 'stopped')
    assert.is(world.fleet.tasks.get(MIGRATION)?.error?.code, 'MigrationUncertain')
    const start = 'cccccccc-0000-4000-9000-000000000003'
    world.fleet.command('vm', VM, 'start', { task_id: start, params: {} })
    world.fleet.settle()
    assert.is(world.fleet.tasks.get(start)?.error?.code, 'MigrationUncertain')
    // Reports of the source's stopped copy make nothing certain.
    world.fleet.command('vm', VM, 'reported', {
      server_uuid: SOURCE,
      seen_at: world.fleet.now,
      vm: { uuid: VM, state: 'stopped' },
    })
    assert.is(world.state(), 'uncertain')
    neverTwo(world)
  })

  test(`an uncertain migration ends as soon as the target answers: where the VM runs, if it does (it ${did} start it)`, () => {
    const world = uncertain(isStarted)
    world.rest()
    neverTwo(world)
    settledOn(world, isStarted ? TARGET : SOURCE, 'running')
  })

  test(`finish asks the target to start it again (it ${did} start it)`, () => {
    const world = uncertain(isStarted)
    assert.equal(world.fleet.command('vm', VM, 'migrate_finish'), { value: { id: MIGRATION } })
    world.rest()
    settledOn(world, TARGET, 'running')
  })
}

for (const isStarted of [true, false]) {
  test(`an uncertain live migration leaves the guest paused until the target says whether it goes on there (${isStarted})`, () => {
    const world = uncertain(isStarted, { live: true })
    const { running, paused } = world.copies.get(SOURCE) ?? {}
    assert.equal([running, paused, world.state()], [false, true, 'uncertain'])
    world.rest()
    neverTwo(world)
    settledOn(world, isStarted ? TARGET : SOURCE, 'running')
  })
}

test('a copy that runs on the target is kept when the migration is to be taken back, unless an operator says that it does not run', () => {
  const world = uncertain(true)
  world.fleet.advance(61_000)
  const asked = world.open().find(({ task }) => task === 'machine_migrate_discard')
  assert.is(asked?.params?.['unless_running'], true)
  world.fleet.command('vm', VM, 'migrate_abort', { force: true })
  world.fleet.settle()
  const leftover = world.context().leftovers?.[0]
  assert.equal([leftover?.task, leftover?.params['unless_running']], ['machine_migrate_discard', undefined])
})

test('a forced abort gives the source its VM without hearing from the target, and removes the copy there when it answers', () => {
  const world = uncertain(false)
  assert.equal(world.fleet.command('vm', VM, 'migrate_abort', { force: true }), { value: { id: MIGRATION } })
  world.fleet.settle()
  while (world.context().migration) world.work(({ server_uuid }) => (server_uuid === TARGET ? 'silent' : 'works'))
  assert.equal([world.state(), world.copies.get(SOURCE)?.running], ['running', true])
  assert.is(world.context().leftovers?.length, 1)
  const again = 'dddddddd-0000-4000-9000-000000000004'
  migrate(world, {}, again)
  assert.is(world.fleet.tasks.get(again)?.error?.code, 'MigrationLeftovers')
  world.rest()
  settledOn(world, SOURCE, 'running')
})

test('a source that stays silent for half an hour keeps its VM stopped, and no longer held when it answers', () => {
  const world = migrationWorld()
  migrate(world)
  while (world.open()[0]?.task !== 'machine_migrate_send') world.work()
  world.work(() => 'fails')
  while (world.context().migration) world.work(({ server_uuid }) => (server_uuid === SOURCE ? 'silent' : 'works'))
  assert.equal([world.state(), world.context().leftovers?.length], ['stopped', 1])
  world.rest()
  settledOn(world, SOURCE, 'stopped')
})

test('verbs wait for a migration, and run on the server that the VM has moved to', () => {
  const world = migrationWorld({ running: false })
  migrate(world)
  world.work()
  const start = 'cccccccc-0000-4000-9000-000000000003'
  world.fleet.command('vm', VM, 'start', { task_id: start, params: {} })
  world.fleet.settle()
  world.rest()
  settledOn(world, TARGET, 'running')
  const task = world.fleet.tasks.get(start)
  assert.equal([task?.status, task?.server_uuid], ['complete', TARGET])
})

test('reports of both servers change nothing while it moves, and those of the old server nothing after', () => {
  const world = migrationWorld()
  migrate(world)
  while (world.open().length > 0) {
    for (const [server, copy] of world.copies) {
      const vm = { uuid: VM, state: copy.running ? 'running' : 'stopped' }
      world.fleet.command('vm', VM, 'reported', { server_uuid: server, seen_at: world.fleet.now, vm })
    }
    world.fleet.settle()
    world.work()
  }
  settledOn(world, TARGET, 'running')
  world.fleet.command('vm', VM, 'vanished', { server_uuid: SOURCE, seen_at: world.fleet.now + 1_000_000 })
  assert.is(world.state(), 'running')
})

for (const isLive of [true, false]) {
  test(`a NIC that its node moves before it is held is not left behind on the target (${isLive ? 'live' : 'stopped'})`, () => {
    const nic = { mac: '52:54:00:00:00:01', nic_tag: 'external', vlan_id: 7 }
    const world = migrationWorld({ nics: [nic] })
    migrate(world, isLive ? { live: true } : {})
    while (world.open()[0]?.task !== 'machine_migrate_send') world.work()
    const told = { server_uuid: SOURCE, wanted: { nics: [{ ...nic, vlan_id: 8 }], only: ['nics'] } }
    world.fleet.command('vm', VM, 'adopt', told)
    world.rest()
    settledOn(world, SOURCE, 'running')
    assert.equal([world.context().failure?.code, world.context().nics[0]?.vlan_id], ['MigrationInterrupted', 8])
    const again = 'bbbbbbbb-0000-4000-9000-000000000002'
    migrate(world, {}, again)
    world.rest()
    settledOn(world, TARGET, 'running')
    assert.is(world.context().nics[0]?.vlan_id, 8)
  })
}

test('a migration to the server it is on, and abort or finish without one, are refused', () => {
  const world = migrationWorld()
  migrate(world, { target_server_uuid: SOURCE })
  assert.is(world.fleet.tasks.get(MIGRATION)?.error?.code, 'InvalidArgument')
  for (const verb of ['migrate_abort', 'migrate_finish']) {
    const reply = world.fleet.command('vm', VM, verb, verb === 'migrate_abort' ? { force: false } : {})
    assert.equal('error' in reply && reply.error.code, 'MigrationNotFound')
  }
  settledOn(world, SOURCE, 'running')
})

const act = fc.oneof(
  { weight: 8, arbitrary: fc.constant({ do: 'work' as const, fate: 'works' as Fate }) },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('work' as const),
      fate: fc.constantFrom<Fate>('fails', 'works_but_fails', 'silent'),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('abort' as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('finish' as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('migrate' as const), live: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('start' as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('advance' as const), ms: fc.constantFrom(5_000, 70_000, 5e7) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('report' as const) }) },
)

/** Every node tells of the copy it has. */
function report({ fleet, copies }: World): void {
  for (const [server_uuid, { running }] of copies) {
    const vm = { uuid: VM, state: running ? 'running' : 'stopped' }
    fleet.command('vm', VM, 'reported', { server_uuid, seen_at: fleet.now, vm })
  }
  fleet.settle()
}

test('in any history two copies never run, and left alone it comes to rest on one server', () => {
  const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31))
  console.log(`seed ${seed} (repeat with SEED=${seed})`)
  const property = fc.property(fc.boolean(), fc.boolean(), fc.array(act, { maxLength: 40 }), (running, live, acts) => {
    const world = migrationWorld({ running })
    migrate(world, live ? { live } : {})
    let n = 10
    const id = () => `${(++n).toString(16).padStart(8, '0')}-0000-4000-9000-000000000001`
    for (const next of acts) {
      if (next.do === 'work') world.work(() => next.fate)
      if (next.do === 'abort') world.fleet.command('vm', VM, 'migrate_abort', { force: false })
      if (next.do === 'finish') world.fleet.command('vm', VM, 'migrate_finish')
      if (next.do === 'migrate') migrate(world, next.live ? { live: true } : {}, id())
      if (next.do === 'start') world.fleet.command('vm', VM, 'start', { task_id: id(), params: {} })
      if (next.do === 'advance') world.fleet.advance(next.ms, { agentListens: false })
      if (next.do === 'report') report(world)
      world.fleet.settle()
      neverTwo(world)
    }
    world.rest()
    // A node that was silent for hours says how its VM is when it is back, as it does each minute.
    report(world)
    neverTwo(world)
    const { server_uuid } = world.context()
    settledOn(world, server_uuid, world.copies.get(server_uuid)?.running ? 'running' : 'stopped')
  })
  fc.assert(property, { seed, numRuns: 250 })
})

test.run()
