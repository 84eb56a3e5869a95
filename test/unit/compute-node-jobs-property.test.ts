/**
 * Random histories of a node with jobs: commands, agent answers, boots, silence, lost commits and time, in any order. Whatever happens,
 * there is one job at a time, each ends once and says so, and a node left alone comes to rest with nothing pending.
 */
import fc from 'fast-check'
import * as assert from 'uvu/assert'
import { suite } from '../suite.ts'
import { type Fleet, SERVER, taskId } from './fleet.ts'
import { BOOT_S, boot, contextOf, JOB_NAMES, JOBS, nodeFleet, RESULTS, startJob, stepOf } from './job-fleet.ts'

const test = suite('job properties')
const minute = 60_000

const step = fc.oneof(
  fc.record({ do: fc.constant('start' as const), name: fc.constantFrom(...JOB_NAMES), twice: fc.boolean() }),
  fc.record({ do: fc.constant('cancel' as const), pick: fc.nat(3) }),
  fc.record({ do: fc.constant('nop' as const) }),
  fc.record({
    do: fc.constant('answer' as const),
    pick: fc.nat(3),
    how: fc.constantFrom('accepted', 'complete', 'failure'),
  }),
  fc.record({ do: fc.constant('boot' as const), laterS: fc.constantFrom(0, 2, 600) }),
  fc.record({ do: fc.constant('tell' as const), verb: fc.constantFrom('heard', 'silent', 'pause', 'resume') }),
  fc.record({ do: fc.constant('settle' as const), agentListens: fc.boolean() }),
  fc.record({ do: fc.constant('advance' as const), ms: fc.constantFrom(10, 61_000, 16 * minute, 65 * minute) }),
  fc.record({ do: fc.constant('lose' as const) }),
)
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never

test('one job at a time, one end a job, and rest in the end', () => {
  const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31))
  console.log(`seed ${seed} (repeat with SEED=${seed})`)
  const reached = new Set<string>()
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), steps => run(steps, reached)),
    { seed, numRuns: 600 },
  )
  for (const execution of ['succeeded', 'failed', 'canceled']) assert.ok(reached.has(execution), execution)
})

interface World {
  fleet: Fleet
  bootS: number
  made: number
  ends: Map<string, string>
}

function run(steps: Step[], reached: Set<string>): void {
  const world: World = { fleet: nodeFleet({ setup: false }), bootS: BOOT_S, made: 0, ends: new Map() }
  const { fleet } = world
  for (const next of steps) {
    fleet.now += 1
    apply(world, next)
    check(world)
  }
  // Left alone, with an agent that ends what it is offered and a node that boots when it is told to.
  for (let round = 0; round < 30; round++) {
    fleet.settle()
    for (const [id, { task, state }] of Object.entries(contextOf(fleet).open)) {
      if (state === 'held') continue
      fleet.agent(SERVER, { id, status: 'accepted' })
      fleet.agent(SERVER, { id, status: 'complete', result: RESULTS[task] ?? {} })
    }
    if (stepOf(fleet) === 'boot') reboot(world, 600)
    check(world)
  }
  fleet.settle()
  for (const { execution } of fleet.jobs.values()) reached.add(execution)
  assert.equal(
    [...fleet.jobs.values()].filter(({ execution }) => execution === 'running'),
    [],
  )
  assert.equal(
    [...fleet.tasks.values()].filter(({ status }) => status === 'active'),
    [],
  )
  const { outbox, timers } = fleet.record('cn', SERVER)
  const { job, open, setting_up, transitional_status } = contextOf(fleet)
  assert.equal([outbox, timers, open, job, transitional_status], [[], {}, {}, undefined, undefined])
  assert.is.not(setting_up, true)
}

function check({ fleet, ends }: World): void {
  const { job, open } = contextOf(fleet)
  const running = [...fleet.jobs.values()].filter(({ execution }) => execution === 'running')
  assert.equal(
    running.map(({ uuid }) => uuid),
    job ? [job.uuid] : [],
  )
  if (job?.task_id) assert.ok(open[job.task_id], 'the job waits for a task that is open')
  assert.is(job?.came, undefined)
  for (const body of fleet.jobs.values()) {
    const names = body.chain_results.map(({ name }) => name)
    assert.equal(names, body.chain.slice(0, names.length))
    if (body.execution === 'running') continue
    const end = JSON.stringify(body)
    assert.is(ends.get(body.uuid) ?? end, end, 'a job ended twice')
    ends.set(body.uuid, end)
    assert.is(body.execution === 'succeeded', body.error === undefined)
    assert.ok(body.finished_at)
  }
}

const jobId = (n: number) => `00000000-0000-4000-a000-${String(n).padStart(12, '0')}`

function apply(world: World, next: Step): void {
  const { fleet } = world
  switch (next.do) {
    case 'start': {
      world.made += 1
      const again = () => startJob(fleet, next.name, JOBS[next.name].params, jobId(world.made))
      const first = again()
      if (next.twice && 'value' in first) assert.equal(again(), first)
      return
    }
    case 'cancel': {
      const uuid = [...fleet.jobs.keys()].at(-1 - next.pick)
      if (uuid) assert.equal(fleet.command('cn', SERVER, 'job_cancel', { job_uuid: uuid }), { value: {} })
      return
    }
    case 'nop':
      world.made += 1
      fleet.command('cn', SERVER, 'task_add', { task_id: taskId(world.made), task: 'nop', params: {} })
      return
    case 'answer': {
      const [id, task] = Object.entries(contextOf(fleet).open)[next.pick] ?? []
      if (!id || !task) return
      const result = next.how === 'complete' ? (RESULTS[task.task] ?? {}) : undefined
      for (const _ of [1, 2]) fleet.agent(SERVER, { id, status: next.how, result })
      return
    }
    case 'boot':
      reboot(world, next.laterS)
      return
    case 'tell':
      fleet.command('cn', SERVER, next.verb)
      return
    case 'settle':
      fleet.settle({ agentListens: next.agentListens })
      return
    case 'advance':
      fleet.advance(next.ms, { agentListens: false })
      return
    case 'lose': {
      // A commit is lost whose bodies were written: what was done last is done again.
      const before = structuredClone(fleet.record('cn', SERVER))
      const timer = Object.entries(before.timers).sort(([, a], [, b]) => a.at - b.at)[0]
      if (!timer) return
      const [name, { at }] = timer
      fleet.now = Math.max(fleet.now, at)
      fleet.input('cn', SERVER, { type: 'timer', name, at })
      fleet.records.set(`cn.${SERVER}`, before)
      fleet.now += 500
      fleet.input('cn', SERVER, { type: 'timer', name, at })
    }
  }
}

function reboot(world: World, laterS: number): void {
  world.bootS += laterS
  boot(world.fleet, world.bootS, { Setup: true })
}

test.run()
