/**
 * The crash matrix of jobs: at each input of each job the owner dies before its commit, or after it before anybody heard; an
 * acknowledgement is lost; or the agent falls silent for good. Whatever happens, the job ends once, no task runs twice, nothing is left.
 */
import * as assert from 'uvu/assert'
import type { JobName } from '../../actors/contract/job.ts'
import { suite } from '../suite.ts'
import { type Fleet, SERVER, taskId } from './fleet.ts'
import { BOOT_S, boot, contextOf, JOB, JOB_NAMES, JOBS, nodeFleet, RESULTS, startJob, stepOf } from './job-fleet.ts'

const test = suite('crashes of jobs')

/** How input number `at` goes wrong. */
type Crash = 'before the commit' | 'after the commit' | 'acknowledgement lost' | 'agent silent'
const crashes: Crash[] = ['before the commit', 'after the commit', 'acknowledgement lost', 'agent silent']

/** A node agent that carries out each task once, whatever it hears, and says so until it was heard. */
interface Agent {
  /** Times that each task was carried out. */
  done: Map<string, number>
  isSilent: boolean
}

interface World {
  fleet: Fleet
  agent: Agent
  inputs: number
  /** Ends of the job as anybody could read them. */
  ends: Set<string>
}

function worldWith(crash: Crash | undefined, at: number): World {
  const fleet = nodeFleet({ setup: false })
  const world: World = { fleet, agent: { done: new Map(), isSilent: false }, inputs: 0, ends: new Set() }
  const { input } = fleet
  const note = () => {
    const job = fleet.jobs.get(JOB)
    if (job && job.execution !== 'running') world.ends.add(JSON.stringify([job.execution, job.finished_at, job.error]))
  }
  fleet.input = (kind, id, given) => {
    const isCrash = ++world.inputs === at
    const name = `${kind}.${id}`
    const before = fleet.records.get(name)
    if (!isCrash || crash === undefined) {
      const reply = input(kind, id, given)
      note()
      return reply
    }
    if (crash === 'agent silent') world.agent.isSilent = true
    // Whoever performed the effect knows, and nobody else: it is performed again.
    if (crash === 'acknowledgement lost' && given.type === 'sent') return undefined
    if (crash === 'before the commit') {
      input(kind, id, given)
      note()
      if (before) fleet.records.set(name, before)
      fleet.now += 700
    }
    // A caller who heard nothing repeats; a timer is fired by the next owner too.
    if (crash === 'after the commit') input(kind, id, given)
    const reply = input(kind, id, given)
    note()
    return reply
  }
  return world
}

/** The agent takes what it was offered or finds open, and reports until the owner has it. */
function agentWorks({ fleet, agent }: World): void {
  if (agent.isSilent) return
  for (const [id, task] of Object.entries(contextOf(fleet).open)) {
    if (task.state === 'held') continue
    const leave = fleet.agent(SERVER, { id, status: 'accepted' })
    if (!('value' in leave) || !(leave.value as { go: boolean }).go) continue
    if (!agent.done.has(id)) agent.done.set(id, 1)
    fleet.agent(SERVER, { id, status: 'complete', result: RESULTS[task.task] ?? {} })
    fleet.settle()
  }
}

function play(name: JobName, crash?: Crash, at = 0): World {
  const world = worldWith(crash, at)
  const { fleet, agent } = world
  fleet.command('cn', SERVER, 'task_add', { task_id: taskId(1), task: 'nop', params: {} })
  startJob(fleet, name)
  let bootS = BOOT_S
  for (let round = 0; round < 30 && contextOf(fleet).job; round++) {
    fleet.now += 1_000
    fleet.settle({ agentListens: !agent.isSilent })
    agentWorks(world)
    if (agent.isSilent || stepOf(fleet) !== 'boot') continue
    bootS += 600
    boot(fleet, bootS)
  }
  // Who is still there after that waits for a deadline; there are few, and the next begins when the last is over.
  for (let limit = 0; limit < 4; limit++) {
    fleet.advance(65 * 60_000, { agentListens: !agent.isSilent })
    agentWorks(world)
  }
  fleet.settle()
  return world
}

for (const name of JOB_NAMES) {
  const { inputs, fleet } = play(name)
  test(`${name} ends well without crashes, in ${inputs} inputs`, () => {
    assert.is(fleet.jobs.get(JOB)?.execution, 'succeeded')
    assert.ok(inputs > JOBS[name].chain.length)
  })

  for (const crash of crashes) {
    test(`${name} ends once, with nothing doubled or left: ${crash} at each of its inputs`, () => {
      for (let at = 1; at <= inputs; at++) {
        const world = play(name, crash, at)
        const where = `input ${at}`
        const job = world.fleet.jobs.get(JOB)!
        const isSuccess = job.execution === 'succeeded'
        if (crash !== 'agent silent') assert.is(job.execution, 'succeeded', where)
        else assert.ok(isSuccess || job.execution === 'failed', `${where}: ${job.execution}`)
        assert.is(world.ends.size, 1, `${where}: ${[...world.ends].join(' and ')}`)
        const names = job.chain_results.map(step => step.name)
        assert.equal(names, job.chain.slice(0, names.length), where)
        assert.ok(
          job.chain_results.every(step => step.finished_at),
          where,
        )
        // Every task of a step is carried out once, by one id.
        const tasks = [...world.fleet.tasks.values()]
        const kinds = tasks.map(({ task }) => task)
        assert.is(new Set(kinds).size, kinds.length, `${where}: ${kinds.join()}`)
        assert.equal(
          tasks.filter(({ status }) => status === 'active'),
          [],
          where,
        )
        if (isSuccess) assert.is(world.agent.done.size, tasks.length, where)
        const { outbox, timers } = world.fleet.record('cn', SERVER)
        const context = contextOf(world.fleet)
        const left = [context.job, context.open, context.transitional_status, context.setting_up || undefined]
        assert.equal([outbox, timers, ...left], [[], {}, undefined, {}, undefined, undefined], where)
      }
    })
  }
}

test.run()
