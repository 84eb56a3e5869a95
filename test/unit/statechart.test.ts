/** The statecharts people see are those that run. */
import { readFileSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { ACTORS } from '../../actors/actors.ts'
import { VM_VERBS } from '../../actors/contract/vm.ts'
import { statechart } from '../../actors/statechart.ts'
import { OPERATIONS } from '../../actors/vm/operations.ts'
import { statechartsFile, statechartsPage } from '../../scripts/statecharts.ts'
import { suite } from '../suite.ts'

const test = suite('statecharts')

test('docs/statecharts.md is fresh (npm run statecharts)', () => {
  assert.is(readFileSync(statechartsFile, 'utf8'), statechartsPage())
})

test('every transitional state of a VM has a deadline and an end', () => {
  const { states } = statechart(ACTORS.vm.machine)
  for (const verb of VM_VERBS) {
    const state = states.find(({ name }) => name === OPERATIONS[verb].during)
    const events = new Set(state?.transitions.map(({ event }) => event))
    // A migration's deadline is that of its step.
    const deadline = verb === 'migrate' ? 'after stepLimit' : 'after operationLimit'
    for (const exit of ['task_ended', 'refused', deadline]) assert.ok(events.has(exit), `${verb}: no ${exit}`)
  }
})

test('every state of every machine can be reached', () => {
  for (const [kind, { machine }] of Object.entries(ACTORS)) {
    const { initial, states } = statechart(machine)
    const reached = new Set([initial])
    for (const name of reached) {
      for (const { target } of states.find(state => state.name === name)?.transitions ?? []) reached.add(target)
    }
    assert.equal([...reached].sort(), states.map(({ name }) => name).sort(), kind)
  }
})

test.run()
