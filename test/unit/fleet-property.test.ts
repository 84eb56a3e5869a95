/**
 * Random histories of a small fleet: commands, reports, agent answers, lost commits, lost records, deletions, repeats and time. Whatever happens,
 * a VM has at most one task that an agent may run, a task ends once, and a fleet left alone comes to rest with nothing pending.
 */
import fc from 'fast-check'
import * as assert from 'uvu/assert'
import type { ServerContext } from '../../actors/contract/server.ts'
import type { VmContext } from '../../actors/contract/vm.ts'
import { suite } from '../suite.ts'
import { type Fleet, makeFleet, registered, SERVER, specOf, taskId, VM } from './fleet.ts'

const test = suite('fleet properties')
const verbs = ['start', 'stop', 'reboot', 'kill', 'destroy'] as const
const states = ['running', 'stopped', 'failed'] as const
const settledStates = ['running', 'stopped', 'failed', 'missing', 'incomplete', 'destroyed']

const step = fc.oneof(
  fc.record({
    do: fc.constant('verb' as const),
    verb: fc.constantFrom(...verbs),
    urgent: fc.boolean(),
    twice: fc.boolean(),
  }),
  fc.record({ do: fc.constant('create' as const), twice: fc.boolean() }),
  fc.record({ do: fc.constant('report' as const), state: fc.constantFrom(...states, 'gone'), late: fc.boolean() }),
  fc.record({ do: fc.constant('accept' as const), pick: fc.nat(5) }),
  fc.record({
    do: fc.constant('end' as const),
    pick: fc.nat(5),
    well: fc.boolean(),
    state: fc.constantFrom(...states, 'gone', 'unsaid'),
  }),
  fc.record({ do: fc.constant('settle' as const), agentListens: fc.boolean() }),
  fc.record({ do: fc.constant('advance' as const), ms: fc.constantFrom(10, 5_000, 61_000, 3_700_000) }),
  fc.record({ do: fc.constant('lose' as const) }),
  fc.record({ do: fc.constant('liveness' as const), event: fc.constantFrom('heard', 'silent') }),
  fc.record({ do: fc.constant('remove' as const), how: fc.constantFrom('deleted', 'lost'), settles: fc.boolean() }),
)
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never

test('one runnable task a VM, one end a task, and rest in the end', () => {
  const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31))
  console.log(`seed ${seed} (repeat with SEED=${seed})`)
  fc.assert(fc.property(fc.array(step, { maxLength: 60 }), run), { seed, numRuns: 400 })
})

function run(steps: Step[]): void {
  const fleet = makeFleet()
  registered(fleet)
  const ends = new Map<string, string>()
  let n = 0
  for (const next of steps) {
    fleet.now += 1
    apply(fleet, next, () => taskId(++n))
    check(fleet, ends)
  }
  // Left alone, with an agent that ends what it is offered.
  for (let round = 0; round < 40; round++) {
    fleet.settle()
    for (const id of openTasks(fleet)) {
      fleet.agent(SERVER, { id, status: 'accepted' })
      fleet.agent(SERVER, { id, status: 'complete' })
    }
    check(fleet, ends)
  }
  const vm = fleet.records.get(`vm.${VM}`)
  if (vm) {
    const { operation, waiting } = vm.snapshot.context as unknown as VmContext
    assert.equal([operation, waiting, vm.outbox], [null, [], []])
    assert.ok(settledStates.includes(vm.state), vm.state)
  }
  assert.equal(
    [...fleet.tasks.values()].filter(({ status }) => status === 'active'),
    [],
  )
  const { outbox, timers, snapshot } = fleet.record('cn', SERVER)
  assert.equal([outbox, timers, (snapshot.context as unknown as ServerContext).open], [[], {}, {}])
}

function check(fleet: Fleet, ends: Map<string, string>): void {
  const { open } = fleet.record('cn', SERVER).snapshot.context as unknown as ServerContext
  const runnable = Object.values(open).filter(({ state }) => state !== 'held')
  assert.ok(runnable.length <= 1, `${runnable.length} runnable tasks of one VM`)
  for (const task of fleet.tasks.values()) {
    if (task.status === 'active') {
      assert.not.ok(ends.has(task.id), `task ${task.id} came back to life`)
      continue
    }
    const end = JSON.stringify([task.status, task.finished_at, task.history])
    assert.is(ends.get(task.id) ?? end, end, 'a task ended twice')
    ends.set(task.id, end)
  }
}

function apply(fleet: Fleet, next: Step, newTask: () => string): void {
  switch (next.do) {
    case 'create':
    case 'verb': {
      const task_id = newTask()
      const command = { sender: 'gw', sequence: Number(task_id.slice(-12)), floor: 0 }
      const verb = next.do === 'create' ? 'create' : next.verb
      const params =
        next.do === 'create'
          ? { server_uuid: SERVER, task_id, spec: specOf(VM) }
          : { task_id, params: next.urgent ? { force: true, idempotent: true } : {} }
      const first = fleet.command('vm', VM, verb, params, command)
      // A command that changed nothing is decided again; one that did is answered from the record.
      if (next.twice) assert.equal(fleet.command('vm', VM, verb, params, command), first)
      return
    }
    case 'report': {
      const seen_at = fleet.now - (next.late ? 5_000 : 0)
      if (next.state === 'gone') fleet.command('vm', VM, 'vanished', { server_uuid: SERVER, seen_at })
      else fleet.command('vm', VM, 'reported', { server_uuid: SERVER, seen_at, vm: { uuid: VM, state: next.state } })
      return
    }
    case 'accept': {
      const id = openTasks(fleet)[next.pick]
      if (id) fleet.agent(SERVER, { id, status: 'accepted' })
      return
    }
    case 'end': {
      const id = openTasks(fleet)[next.pick]
      if (!id) return
      const vm = next.state === 'gone' ? null : { uuid: VM, state: next.state }
      const result = next.state === 'unsaid' ? {} : { vm }
      fleet.agent(SERVER, { id, status: next.well ? 'complete' : 'failure', result })
      fleet.agent(SERVER, { id, status: next.well ? 'complete' : 'failure', result })
      return
    }
    case 'settle':
      fleet.settle({ agentListens: next.agentListens })
      return
    case 'advance':
      fleet.advance(next.ms, { agentListens: false })
      return
    case 'liveness':
      fleet.command('cn', SERVER, next.event)
      return
    case 'remove': {
      // The server's record goes, by request or by hand, and its node registers again.
      if (next.how === 'deleted') fleet.command('cn', SERVER, 'delete', { vm_uuids: [VM] })
      else {
        fleet.records.delete(`cn.${SERVER}`)
        fleet.command('vm', VM, 'server_lost', { server_uuid: SERVER, lost_at: fleet.now })
      }
      if (next.settles) fleet.settle()
      fleet.now += 1_000
      registered(fleet)
      return
    }
    case 'lose': {
      // The effects of one outbox entry happened, but the commit that clears it was lost: it is performed again.
      for (const record of [...fleet.records.values()]) {
        const entry = record.outbox[0]
        if (entry?.effect.type !== 'send') continue
        const { kind, id, verb, params } = entry.effect
        const sender = `${record.kind}:${record.id}`
        fleet.command(kind, id, verb, params, { sender, sequence: entry.sequence, floor: entry.sequence })
      }
    }
  }
}

function openTasks(fleet: Fleet): string[] {
  const { open } = fleet.record('cn', SERVER).snapshot.context as unknown as ServerContext
  return Object.entries(open).flatMap(([id, { state }]) => (state === 'held' ? [] : [id]))
}

test.run()
