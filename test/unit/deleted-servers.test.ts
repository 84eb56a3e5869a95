/** What is left of deleted servers: who looks for it, how much at once, and when it stops. */
import * as assert from 'uvu/assert'
import { createDeletedServers } from '../../services/actor-host/deleted-servers.ts'
import { createFleet } from '../../services/actor-host/fleet.ts'
import { eventually } from '../eventually.ts'
import { suite } from '../suite.ts'

const test = suite('deleted servers')
const quiet = { info: () => {}, warn: () => {}, error: () => {} }
const told = { revision: 1, gone: false, outbox: false, at: 5, server: '', state: 'running' }
const nextTurn = () => new Promise(resolve => setImmediate(resolve))

/** A deleted server `s` with VMs and a hostname, and an owner that carries out what it is asked for. */
function bench(vmCount: number) {
  const fleet = createFleet()
  const owned = new Set(['s'])
  const calls: string[] = []
  const answers = new Map<string, () => Promise<unknown>>()
  let [inFlight, most] = [0, 0]
  const call = async (kind: string, id: string, verb: string, params: Record<string, unknown>) => {
    calls.push(`${kind} ${id} ${verb}`)
    inFlight += 1
    most = Math.max(most, inFlight)
    const answer = await (answers.get(`${kind} ${id} ${verb}`) ?? answers.get(verb) ?? nextTurn)()
    inFlight -= 1
    if (answer) return answer
    if (verb === 'get') return { value: { state: fleet.stateOf(id) ?? 'deleted' } }
    if (verb !== 'forget') return { value: {} }
    assert.equal(params, { server_uuid: 's' })
    if (kind === 'vm') fleet.told({ ...told, kind: 'vm', id, server: 's', state: 'forgotten' })
    else fleet.told({ ...told, kind: 'host', id, state: 'free' })
    return { value: {} }
  }
  const server = (state: string) => fleet.told({ ...told, kind: 'cn', id: 's', state })
  server('deleted')
  fleet.told({ ...told, kind: 'cn', id: 'alive' })
  for (let n = 0; n < vmCount; n++) fleet.told({ ...told, kind: 'vm', id: `vm${n}`, server: 's' })
  fleet.told({ ...told, kind: 'vm', id: 'leaving', server: 's', state: 'forgotten' })
  fleet.told({ ...told, kind: 'vm', id: 'other', server: 'alive' })
  fleet.told({ ...told, kind: 'host', id: 'h', server: 's', state: 'bound' })
  fleet.told({ ...told, kind: 'host', id: 'g', server: 'alive', state: 'bound' })
  const deleted = createDeletedServers({
    call: call as never,
    fleet,
    owns: id => owned.has(id),
    log: quiet,
  })
  /** Looks until that many calls were made in all. */
  const lookUntil = (count: number) =>
    eventually(() => {
      deleted.look()
      return calls.length >= count && inFlight === 0
    })
  return { fleet, owned, calls, answers, server, deleted, lookUntil, most: () => most }
}

test('all that is left is forgotten, sixteen at once, and then the mark is told once', async () => {
  const { calls, lookUntil, deleted, most } = bench(2_000)
  await lookUntil(2_003)
  const forgotten = calls.filter(text => text.endsWith(' forget'))
  assert.equal(
    forgotten.sort(),
    ['host h forget', ...Array.from({ length: 2_000 }, (_, n) => `vm vm${n} forget`)].sort(),
  )
  assert.equal([calls[0], calls.at(-1)], ['cn s get', 'cn s forgot_all'])
  assert.ok(most() <= 16, `${most()} at once`)
  for (let n = 0; n < 3; n++) {
    deleted.look()
    await nextTurn()
  }
  assert.is(calls.length, 2_003)
})

test('what comes up later, while the mark is there, is forgotten too', async () => {
  const { calls, fleet, lookUntil } = bench(0)
  await lookUntil(3)
  fleet.told({ ...told, kind: 'vm', id: 'late', server: 's' })
  await lookUntil(5)
  assert.equal(calls.slice(3), ['cn s get', 'vm late forget'])
})

test('what could not be told is told again; so is the mark', async () => {
  const { calls, answers, lookUntil } = bench(1)
  const away = { error: { code: 'ServiceUnavailableError', message: '' } }
  let refusals = 2
  answers.set('vm vm0 forget', async () => (refusals-- > 0 ? away : undefined))
  let marks = 2
  answers.set('forgot_all', async () => (marks-- > 0 ? away : undefined))
  await eventually(() => lookUntil(1).then(() => marks < 0))
  assert.is(calls.filter(text => text === 'vm vm0 forget').length, 3)
  assert.is(calls.filter(text => text === 'cn s forgot_all').length, 3)
})

test('nothing is forgotten by who does not own the server, nor once it is back, be it that only its record says so', async () => {
  const { calls, owned, server, deleted, answers } = bench(100)
  owned.clear()
  deleted.look()
  await nextTurn()
  assert.equal(calls, [])
  owned.add('s')
  answers.set('get', async () => ({ value: { state: 'running' } }))
  deleted.look()
  for (let n = 0; n < 5; n++) await nextTurn()
  assert.equal(calls, ['cn s get'])
  answers.delete('get')
  server('running')
  deleted.look()
  await nextTurn()
  assert.equal(calls, ['cn s get'])
})

test('a server that comes back in the middle keeps what has not been forgotten yet', async () => {
  const { calls, deleted, answers, server } = bench(100)
  let go = () => {}
  const held = new Promise<void>(resolve => {
    go = resolve
  })
  answers.set('forget', () => held)
  deleted.look()
  await eventually(() => calls.length === 17)
  server('running')
  deleted.cameBack('s')
  go()
  for (let n = 0; n < 5; n++) await nextTurn()
  assert.is(calls.length, 17)
})

test.run()
