/** The settings of placement: every ALLOC_* key, dapi.changeDefaults below them, and bad values told together. */
import * as assert from 'uvu/assert'
import { KNOBS, type Knobs } from '../../actors/allocation/fleet.ts'
import { ALLOC_SETTINGS, knobsFrom } from '../../services/allocator/knobs.ts'
import { suite } from '../suite.ts'

const test = suite('settings of placement')
const read = (env: Record<string, string>): Knobs => {
  const result = knobsFrom(env)
  if ('problems' in result) throw new Error(result.problems.join('; '))
  return result.knobs
}
const problems = (env: Record<string, string>) => {
  const result = knobsFrom(env)
  return 'problems' in result ? result.problems : []
}

test('nothing set is the documented defaults', () => {
  assert.equal(read({}), KNOBS)
  assert.equal(read(Object.fromEntries(ALLOC_SETTINGS.map(name => [name, '']))), KNOBS)
})

test('each key changes the knob that the documents name', () => {
  const cases: [string, string, keyof Knobs, unknown][] = [
    ['ALLOC_SERVER_SPREAD', 'min-owner', 'server_spread', 'min-owner'],
    ['ALLOC_FILTER_CAPNESS', 'false', 'filter_capness', false],
    ['ALLOC_FILTER_HEADNODE', 'false', 'filter_headnode', false],
    ['ALLOC_FILTER_MIN_RESOURCES', 'false', 'filter_min_resources', false],
    ['ALLOC_FILTER_LARGE_SERVERS', 'FALSE', 'filter_large_servers', false],
    ['ALLOC_FILTER_MIN_DISK', 'true', 'min_disk', true],
    ['ALLOC_FILTER_VM_COUNT', '12', 'filter_vm_limit', 12],
    ['ALLOC_FILTER_DOCKER_MIN_PLATFORM', '20210115T003355Z', 'filter_docker_min_platform', '20210115T003355Z'],
    ['ALLOC_MIN_FREE_DISK', '2048', 'minimum_free_disk', 2048],
    ['ALLOC_DISABLE_OVERRIDE_OVERPROVISIONING', 'true', 'disable_override_overprovisioning', true],
    ['ALLOC_OVERRIDE_OVERPROVISION_CPU', '8', 'overprovision_ratio_cpu', 8],
    ['ALLOC_OVERRIDE_OVERPROVISION_RAM', '1.5', 'overprovision_ratio_ram', 1.5],
    ['ALLOC_OVERRIDE_OVERPROVISION_DISK', '0', 'overprovision_ratio_disk', 1],
    ['ALLOC_WEIGHT_CURRENT_PLATFORM', '0', 'weight_current_platform', 0],
    ['ALLOC_WEIGHT_NEXT_REBOOT', '-1', 'weight_next_reboot', -1],
    ['ALLOC_WEIGHT_NUM_OWNER_ZONES', '3', 'weight_num_owner_zones', 3],
    ['ALLOC_WEIGHT_UNIFORM_RANDOM', '0', 'weight_uniform_random', 0],
    ['ALLOC_WEIGHT_UNRESERVED_DISK', '-2.5', 'weight_unreserved_disk', -2.5],
    ['ALLOC_WEIGHT_UNRESERVED_RAM', '-2', 'weight_unreserved_ram', -2],
  ]
  assert.equal(cases.map(([name]) => name).sort(), [...ALLOC_SETTINGS].sort())
  for (const [name, value, knob, expected] of cases)
    assert.equal(read({ [name]: value }), { ...KNOBS, [knob]: expected })
})

test('dapi.changeDefaults stands below the keys, in strings or values', () => {
  const changes = {
    filter_headnode: 'false',
    weight_unreserved_ram: 1,
    weight_next_reboot: '',
    overprovision_ratio_cpu: '2',
  }
  const knobs = read({ ALLOC_CHANGE_DEFAULTS: JSON.stringify(changes), ALLOC_OVERRIDE_OVERPROVISION_CPU: '3' })
  assert.equal(knobs, { ...KNOBS, filter_headnode: false, weight_unreserved_ram: 1, overprovision_ratio_cpu: 3 })
})

test('bad values stop the start, all told together, and no code is run', () => {
  const told = problems({
    ALLOC_FILTER_HEADNODE: 'maybe',
    ALLOC_SERVER_SPREAD: 'thin',
    ALLOC_WEIGHT_NEXT_REBOOT: 'soon',
    ALLOC_FILTER_DOCKER_MIN_PLATFORM: 'new',
    ALLOC_CHANGE_DEFAULTS: '{"weight_of_the_world": 1}',
    ALLOC_FILTER_OWNER_SERVER_EXPERIMENTAL: '{"u": "server.ram > 1"}',
  })
  assert.is(told.length, 6)
  assert.is(problems({ ALLOC_CHANGE_DEFAULTS: '[1]' }).length, 1)
})

test.run()
