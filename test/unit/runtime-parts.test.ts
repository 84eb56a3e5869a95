/** Parts of the runtime that need no server: who owns what, deadlines in order, liveness by a clock moved by hand. */
import fc from 'fast-check'
import * as assert from 'uvu/assert'
import { HEARTBEAT_LIFETIME_MS } from '../../actors/contract/server.ts'
import { createFleet } from '../../services/actor-host/fleet.ts'
import { createLiveness } from '../../services/actor-host/liveness.ts'
import { createDeadlines } from '../../services/runtime/deadlines.ts'
import { everyPartition, ownerOf, partitionsOf } from '../../services/runtime/rendezvous.ts'
import { suite } from '../suite.ts'

const test = suite('runtime parts')
const quiet = { info: () => {}, warn: () => {}, error: () => {} }
const hostNames = fc.uniqueArray(fc.stringMatching(/^[a-z]{1,8}-[0-9a-f]{8}$/), { minLength: 1, maxLength: 12 })

test('every partition has one owner, whatever the order in which hosts are listed', () => {
  property(hostNames, hosts => {
    const shares = hosts.map(host => partitionsOf(host, [...hosts].reverse()))
    assert.is(
      shares.reduce((sum, share) => sum + share.size, 0),
      everyPartition.size,
    )
    for (const partition of everyPartition) assert.ok(hosts.includes(ownerOf(partition, hosts) ?? ''))
  })
})

test('when a host goes, only its own partitions move', () => {
  property(hostNames, hosts => {
    const [gone, ...rest] = hosts
    for (const partition of everyPartition) {
      const before = ownerOf(partition, hosts)
      if (before !== gone) assert.is(ownerOf(partition, rest), before)
    }
  })
})

test('three hosts share the partitions about evenly', () => {
  const hosts = ['host-0a1b2c3d', 'host-4e5f6a7b', 'host-8c9d0e1f']
  for (const host of hosts) {
    const share = partitionsOf(host, hosts).size
    assert.ok(share >= 10 && share <= 35, `${host} has ${share} of 64`)
  }
})

test('deadlines come out when they are due, earliest first, and none twice', () => {
  property(fc.array(fc.nat(1_000), { maxLength: 200 }), times => {
    const deadlines = createDeadlines()
    times.forEach((at, n) => {
      deadlines.add(n % 2, { at, kind: 'vm', id: String(n) })
    })
    const early = deadlines.take(0, 500).map(({ at }) => at)
    const late = deadlines.take(0, 1_000).map(({ at }) => at)
    const even = times.filter((_, n) => n % 2 === 0).sort((a, b) => a - b)
    assert.equal([...early, ...late], even)
    assert.ok(early.every(at => at <= 500) && late.every(at => at > 500))
    assert.equal(deadlines.take(0, 1_000), [])
  })
})

/** Liveness with a clock moved by hand; `told` is what would have been sent to the node's actor. */
function livenessBench(states: Record<string, string>) {
  const fleet = createFleet()
  const set = (id: string, state: string) =>
    fleet.told({ kind: 'cn', id, revision: 1, gone: false, outbox: false, at: 0, server: '', state })
  for (const [id, state] of Object.entries(states)) set(id, state)
  const told: string[] = []
  const clock = { now: 0 }
  const owned = new Set(Object.keys(states))
  const liveness = createLiveness({
    call: (async (_kind: string, id: string, verb: string) => {
      told.push(`${verb} ${id}`)
      return { value: {} }
    }) as never,
    servers: fleet.servers,
    stateOf: fleet.stateOf,
    owns: id => owned.has(id),
    log: quiet,
    now: () => clock.now,
  })
  return { liveness, told, clock, owned, set }
}

test('a node is silent after its lifetime, not before, and is told so once', () => {
  const { liveness, told, clock } = livenessBench({ a: 'running', b: 'running' })
  liveness.beat('a')
  clock.now = 5_000
  liveness.beat('a')
  clock.now = HEARTBEAT_LIFETIME_MS
  liveness.look()
  assert.equal(told, [])
  clock.now += 1
  liveness.look()
  liveness.look()
  assert.equal(told, ['silent b'])
})

test('a beat of a node that is unknown is told once; beats of strangers are nothing', () => {
  const { liveness, told } = livenessBench({ a: 'unknown' })
  liveness.beat('a')
  liveness.beat('a')
  liveness.beat('stranger')
  assert.equal(told, ['heard a'])
})

test('a change that did not reach its record is told again', () => {
  const { liveness, told, clock } = livenessBench({ a: 'unknown' })
  liveness.beat('a')
  clock.now = 6_000
  liveness.beat('a')
  assert.equal(told, ['heard a', 'heard a'])
})

test('after a take-over, a lapse or a pause every node gets its full time again', () => {
  const { liveness, told, clock } = livenessBench({ a: 'running', b: 'running' })
  clock.now = 60_000
  liveness.grace(id => id === 'a')
  liveness.look()
  assert.equal(told, ['silent b'])
  clock.now = 65_000
  liveness.grace()
  clock.now = 65_000 + HEARTBEAT_LIFETIME_MS
  liveness.look()
  assert.equal(told, ['silent b'])
})

test('a server that has just registered is not silent yet, and nodes of other owners are not ours to judge', () => {
  const { liveness, told, clock, owned, set } = livenessBench({ a: 'running' })
  clock.now = 60_000
  liveness.grace()
  owned.delete('a')
  clock.now = 90_000
  liveness.registered('new')
  set('new', 'running')
  owned.add('new')
  liveness.look()
  assert.equal(told, [])
})

test('VMs are found by the server of their record, also after it changed', () => {
  const fleet = createFleet()
  const told = (id: string, server: string, state: string, gone = false) =>
    fleet.told({ kind: 'vm', id, revision: 1, gone, outbox: false, at: 5, server, state })
  told('v1', 's1', 'running')
  told('v2', 's1', 'stopped')
  told('v2', 's2', 'stopped')
  told('v1', 's1', 'missing')
  assert.equal([...fleet.vmsOf('s1')], [['v1', { state: 'missing', changedAt: 5 }]])
  assert.equal([...fleet.vmsOf('s2').keys()], ['v2'])
  told('v1', '', '', true)
  assert.is(fleet.vmsOf('s1').size, 0)
  assert.is(fleet.vm('v1'), undefined)
})

test.run()

/** Prints its seed when it fails. */
function property<T>(of: fc.Arbitrary<T>, holds: (value: T) => void): void {
  fc.assert(fc.property(of, holds), { numRuns: 100 })
}
