/** Who counts as alive: the owner's memory of beats, by a clock moved by hand. */
import * as assert from 'uvu/assert'
import { HEARTBEAT_LIFETIME_MS } from '../../actors/contract/server.ts'
import { createLiveness } from '../../services/actor-host/liveness.ts'
import { suite } from '../suite.ts'
import { silent } from './agent-fixture.ts'

const test = suite('liveness')

/** An owner of everything; `told` are the changes it told the records. */
function owner() {
  const servers = new Map<string, string>()
  const told: string[] = []
  const counted: string[] = []
  const lost = new Set<string>()
  let at = 0
  const liveness = createLiveness({
    call: (async (_kind: string, uuid: string, verb: string) => {
      told.push(`${uuid} ${verb}`)
      return { value: {} }
    }) as never,
    servers: () => servers,
    stateOf: uuid => servers.get(uuid),
    owns: uuid => !lost.has(uuid),
    count: {
      fresh: () => counted.push('fresh'),
      stale: () => counted.push('stale'),
      usurped: () => counted.push('usurped'),
    },
    log: silent as never,
    now: () => at,
  })
  return { liveness, servers, told, counted, lost, pass: (ms: number) => (at += ms) }
}

test('a node that registers late in the life of its owner has its full time, though the fleet learns of it a moment later', () => {
  const { liveness, servers, told, pass } = owner()
  pass(HEARTBEAT_LIFETIME_MS - 1_000)
  liveness.registered('a')
  servers.set('a', 'running')
  pass(2_000)
  liveness.look()
  assert.equal(told, [])
  pass(HEARTBEAT_LIFETIME_MS)
  liveness.look()
  assert.equal(told, ['a silent'])
})

test('a node that was silent is told as heard once, by a beat or a sysinfo', () => {
  for (const again of ['beat', 'registered'] as const) {
    const { liveness, servers, told } = owner()
    servers.set('a', 'unknown')
    liveness[again]('a')
    liveness[again]('a')
    assert.equal(told, ['a heard'])
  }
})

test('beats of a node that nobody registered are nothing', () => {
  const { liveness, told } = owner()
  liveness.beat('stranger')
  liveness.look()
  assert.equal(told, [])
})

test('each heartbeater counts once as new, once as stale, and as new again when it comes back', () => {
  const { liveness, servers, counted, pass } = owner()
  servers.set('a', 'running')
  for (let beats = 0; beats < 3; beats++) liveness.beat('a')
  assert.equal([counted, liveness.beating()], [['fresh'], 1])
  pass(HEARTBEAT_LIFETIME_MS + 1)
  assert.is(liveness.beating(), 0)
  liveness.look()
  liveness.look()
  servers.set('a', 'unknown')
  liveness.beat('a')
  assert.equal(counted, ['fresh', 'stale', 'fresh'])
})

test('a heartbeater whose partition went to another host counts as usurped, once, and is not heard here any more', () => {
  const { liveness, servers, told, counted, lost, pass } = owner()
  servers.set('a', 'running')
  liveness.beat('a')
  lost.add('a')
  liveness.look()
  liveness.look()
  pass(2 * HEARTBEAT_LIFETIME_MS)
  liveness.look()
  assert.equal([counted, told, liveness.beating()], [['fresh', 'usurped'], [], 0])
})

test.run()
