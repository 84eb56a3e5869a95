/** Why not that server: every rule that refuses it with the change it would take; for one that was in the running, its rank. */
import * as assert from 'uvu/assert'
import { decide } from '../../actors/allocation/decide.ts'
import { indexOf, knobsOf } from '../../actors/allocation/document.ts'
import { whyNot } from '../../actors/allocation/why-not.ts'
import { generate } from '../samples/allocation/fleet-gen.mjs'
import { suite } from '../suite.ts'

const test = suite('why not that server')
const document = generate({ servers: 40, requests: 40, seed: 11 })
const knobs = { ...knobsOf(document), weight_uniform_random: 0 }
const layout = indexOf(document, knobs).layout()

test('every server of every decision is chosen, outscored, or refused by the rule at which it fell out', () => {
  const outcomes = new Set<string>()
  for (const request of document.requests) {
    const decision = decide(layout, { request, seed: 1 }, knobs)
    for (const { uuid } of document.servers) {
      const why = whyNot(decision, uuid)
      outcomes.add(why.outcome)
      if (why.outcome !== 'refused') continue
      assert.is(why.refusals.find(({ rule }) => rule === why.rule)?.rule, why.rule, JSON.stringify(why))
      for (const { reason, change } of why.refusals) assert.ok(reason && change)
    }
  }
  assert.equal([...outcomes].sort(), ['chosen', 'outscored', 'refused'])
})

test('making the change that is named admits the server', () => {
  const request = { vm: { owner_uuid: document.servers[0]!.uuid, ram: 8192, brand: 'joyent', cpu_cap: 100 }, image: {} }
  const decision = decide(layout, { request, seed: 1 }, knobs)
  let shown = 0
  for (const server of document.servers) {
    const why = whyNot(decision, server.uuid)
    if (why.outcome !== 'refused' || why.refusals.length !== 1) continue
    const { rule, change } = why.refusals[0]!
    const changed = structuredClone(server)
    if (rule === 'hard-filter-reserved') changed['reserved'] = false
    else if (rule === 'hard-filter-min-ram') {
      const missing = Number(/(\d+) more/.exec(change)?.[1])
      changed['memory_total_bytes'] = Number(server['memory_total_bytes']) + Math.ceil((missing + 1) / 0.85) * 2 ** 20
    } else continue
    const servers = document.servers.map(other => (other === server ? changed : other))
    const after = decide(indexOf({ ...document, servers }, knobs).layout(), { request, seed: 1 }, knobs)
    const now = whyNot(after, server.uuid)
    assert.ok(now.outcome !== 'refused' || now.rule !== rule, `${rule}: ${JSON.stringify(now)}`)
    shown += 1
  }
  assert.ok(shown >= 2, `only ${shown} servers lacked one thing`)
})

test('a server that is not known, or was not asked about, is said to be so', () => {
  const [request] = document.requests
  const [one, two] = document.servers
  const decision = decide(layout, { request: request!, seed: 1, only: new Set([one!.uuid]) }, knobs)
  assert.equal(whyNot(decision, two!.uuid), { outcome: 'unknown', reason: 'the request named other servers' })
  assert.equal(whyNot(decision, 'nobody'), { outcome: 'unknown', reason: 'no such server was known' })
})

test.run()
