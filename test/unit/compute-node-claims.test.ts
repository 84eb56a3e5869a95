/** Claims of a compute node: taken only by who knows all of them, dropped by their VM's create, by word and by time. */
import * as assert from 'uvu/assert'
import { CLAIMS_MAX, type ServerContext } from '../../actors/contract/server.ts'
import { suite } from '../suite.ts'
import { type Fleet, makeFleet, registered, SERVER, specOf, taskId, VM } from './fleet.ts'

const test = suite('claims of a compute node')
const contextOf = (fleet: Fleet) => fleet.record('cn', SERVER).snapshot.context as unknown as ServerContext
const idOf = (n: number) => `c1a10000-0000-4000-8000-${n.toString(16).padStart(12, '0')}`
const claim = (fleet: Fleet, n: number, seen: number, more = {}) =>
  fleet.command('cn', SERVER, 'claim', {
    ...{ claim_id: idOf(n), seen, vm_uuid: idOf(n), owner_uuid: VM, brand: 'kvm', ram: 512 },
    until: fleet.now + 60_000,
    ...more,
  })

function registeredFleet(): Fleet {
  const fleet = makeFleet()
  registered(fleet)
  return fleet
}
const code = (reply: unknown) => (reply as { error?: { code: string } }).error?.code

test('a claim decided without knowing the last change is refused, and one that knows it is taken', () => {
  const fleet = registeredFleet()
  assert.equal(claim(fleet, 1, 0), { value: { claims_version: 1 } })
  assert.is(code(claim(fleet, 2, 0)), 'ClaimOutdated')
  assert.equal(claim(fleet, 2, 1), { value: { claims_version: 2 } })
  assert.equal(Object.keys(contextOf(fleet).claims ?? {}), [idOf(1), idOf(2)])
})

test('the create of its VM takes the place of a claim, and of no other', () => {
  const fleet = registeredFleet()
  claim(fleet, 1, 0, { vm_uuid: VM })
  claim(fleet, 2, 1)
  fleet.command('vm', VM, 'create', { server_uuid: SERVER, task_id: taskId(1), spec: specOf(VM) })
  fleet.settle()
  assert.equal(Object.keys(contextOf(fleet).claims ?? {}), [idOf(2)])
  assert.is(contextOf(fleet).claims_version, 3)
})

test('a claim lapses at its time, and being given up twice is the same as once', () => {
  const fleet = registeredFleet()
  claim(fleet, 1, 0)
  claim(fleet, 2, 1)
  fleet.command('cn', SERVER, 'unclaim', { claim_id: idOf(1) })
  fleet.command('cn', SERVER, 'unclaim', { claim_id: idOf(1) })
  assert.is(contextOf(fleet).claims_version, 3)
  fleet.command('cn', SERVER, 'heard', {})
  fleet.advance(60_001)
  assert.equal([contextOf(fleet).claims, contextOf(fleet).claims_version], [{}, 4])
})

test('a silent node takes no claim, and no node more than its record holds', () => {
  const fleet = registeredFleet()
  for (let n = 0; n < CLAIMS_MAX; n += 1) claim(fleet, n, n)
  assert.is(code(claim(fleet, CLAIMS_MAX, CLAIMS_MAX)), 'ClaimOutdated')
  fleet.command('cn', SERVER, 'silent', {})
  assert.is(code(claim(fleet, 999, CLAIMS_MAX)), 'ServerNotRunning')
})

test.run()
