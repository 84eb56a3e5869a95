/** Affinity patterns: what each way of comparing matches, and that no pattern of a caller can hold up placement. */
import * as assert from 'uvu/assert'
import { meaningOf } from '../../actors/allocation/affinity.ts'
import type { Affinity, FleetVm } from '../../actors/allocation/fleet.ts'
import { newVm } from '../../actors/vm/new-vm.ts'
import { fleetVm } from '../../services/allocator/server.ts'
import { suite } from '../suite.ts'

const test = suite('allocation affinity')
const owner = '11111111-1111-4111-8111-111111111111'

const vms = (...roles: string[]): FleetVm[] =>
  roles.map((role, n) => ({
    uuid: `00000000-0000-4000-8000-00000000000${n}`,
    owner_uuid: owner,
    server_uuid: 's',
    brand: 'kvm',
    counts: true,
    max_physical_memory: 1,
    tags: { role },
  }))

function near(listed: FleetVm[], value: string, valueType: Affinity['valueType']) {
  const rule = { key: 'role', operator: '==' as const, value, valueType, isSoft: false }
  const directory = { ofOwner: () => listed, get: () => undefined, onServer: () => [] }
  const meaning = meaningOf([rule], owner, directory)
  if ('fails' in meaning) return meaning.fails
  const found = new Set(meaning.locality?.near)
  return listed.filter(({ uuid }) => found.has(uuid)).map(({ tags }) => tags?.['role'])
}

test('a glob takes * for anything, newlines too, and everything else as it is', () => {
  const listed = vms('web.1', 'web-1', 'xweb.1', 'web.\n1')
  assert.equal(near(listed, 'web.*', 'glob'), ['web.1', 'web.\n1'])
  assert.equal(near(listed, '*web*1', 'glob'), ['web.1', 'web-1', 'xweb.1', 'web.\n1'])
})

test('a regular expression between slashes matches anywhere', () => {
  assert.equal(near(vms('web-1', 'db-1', 'web-x'), '/^web-[0-9]+$/', 're'), ['web-1'])
  assert.equal(near(vms('web-1', 'db-1'), '/b-/', 're'), ['web-1', 'db-1'])
})

test('what cannot be matched in linear time, or is no expression, fails a hard rule by name', () => {
  for (const value of ['/[/', '/(a)\\1/', '/(?=a)b/'])
    assert.match(String(near(vms('a'), value, 're')), 'is not a regular expression')
})

test('a pattern that would backtrack for ages is answered like any other', () => {
  const long = vms(`${'a'.repeat(5_000)}!`)
  // With a backtracking matcher this test does not end.
  assert.match(String(near(long, '/^(a+)+$/', 're')), 'no VM of this owner matches')
  assert.match(String(near(long, `${'a*'.repeat(40)}b`, 'glob')), 'no VM of this owner matches')
})

test('a VM in the records is found by its tags and by its Docker id', () => {
  const uuid = 'dabcdb51-4099-4957-a0d3-1f1ee599209a'
  const docker_id = `${uuid.replaceAll('-', '')}${'0'.repeat(32)}`
  const record = { ...newVm(uuid), owner_uuid: owner, server_uuid: 's', ram: 1, tags: { role: 'web' }, docker_id }
  const vm = fleetVm('running', record)!
  assert.equal(near([vm], 'web', 'exact'), ['web'])
  const directory = { ofOwner: () => [vm], get: () => vm, onServer: () => [] }
  const rule = {
    key: 'container',
    operator: '!=' as const,
    value: docker_id,
    valueType: 'exact' as const,
    isSoft: false,
  }
  assert.equal(meaningOf([rule], owner, directory), {
    locality: { strict: true, near: [], far: [uuid] },
    ignored: [],
  })
})

test.run()
