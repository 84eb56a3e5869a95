/** What placement says: the refusal in words, the reasons of a step, what nodes of Muster may do, and the command for people. */
import { spawnSync } from 'node:child_process'
import * as assert from 'uvu/assert'
import { decide } from '../../actors/allocation/decide.ts'
import { reasonsOf, refusalOf, survivors } from '../../actors/allocation/explain.ts'
import { type FleetServer, KNOBS, type Request } from '../../actors/allocation/fleet.ts'
import { createIndex } from '../../actors/allocation/index.ts'
import { directionOf } from '../../actors/allocation/scores.ts'
import { generate } from '../samples/allocation/fleet-gen.mjs'
import { suite } from '../suite.ts'

const test = suite('explained placement')
const gib = 2 ** 30
const owner = '0b56aec4-a207-4ea4-a735-558044916f38'

const node = (
  digit: string,
  more: Record<string, unknown> = {},
  sysinfo: Record<string, unknown> = {},
): FleetServer => ({
  uuid: `${digit.repeat(8)}-0000-4000-8000-000000000000`,
  ...{ setup: true, status: 'running', reserved: false, reservation_ratio: 0 },
  ...{ memory_total_bytes: 16 * gib, memory_available_bytes: 16 * gib },
  ...{ disk_pool_size_bytes: 1000 * gib, disk_pool_alloc_bytes: 0, disk_system_used_bytes: 0 },
  ...{ disk_installed_images_used_bytes: 0, disk_cores_quota_used_bytes: 0, disk_zone_quota_bytes: 0 },
  ...{ disk_kvm_quota_bytes: 0, disk_kvm_zvol_volsize_bytes: 0 },
  ...more,
  sysinfo: {
    ...{ 'Live Image': '6.1.0', 'System Type': 'Linux', Hypervisor: 'libvirt', 'CPU Total Cores': 8 },
    'Network Interfaces': { br0: { 'Link Status': 'unknown', 'NIC Names': ['external'], Bridge: 'br0' } },
    ...sysinfo,
  },
})
const request = (vm: Partial<Request['vm']> = {}, more: Partial<Request> = {}): Request => ({
  vm: { owner_uuid: owner, ram: 1024, brand: 'kvm', ...vm },
  image: {},
  nic_tags: ['external'],
  ...more,
})
function ask(servers: FleetServer[], asked: Request) {
  const index = createIndex(KNOBS, { sorted: true })
  for (const server of servers) index.setServer(server.uuid, server)
  return decide(index.layout(), { request: asked, seed: 1 }, KNOBS)
}

test('a node of Muster takes every brand, its bridges count as up, and SmartOS stamps do not bar it', () => {
  const image = { requirements: { min_platform: { '7.0': '20300101T000000Z' } } }
  for (const brand of ['kvm', 'bhyve', 'lx', 'joyent']) {
    assert.ok(ask([node('a')], request({ brand, vcpus: 2 }, { image })).server, brand)
  }
  const bare = ask([node('a', {}, { Hypervisor: undefined })], request())
  assert.is(bare.steps.at(-1)?.rule, 'hard-filter-os')
})

test('a refusal ends with the last step in words, or with what that step says of all', () => {
  assert.is(refusalOf(ask([], request())), 'received by DAPI')
  assert.is(refusalOf(ask([node('a')], request({}, { nic_tags: ['blue'] }))), 'no servers supporting required NIC Tags')
  const hard = [{ key: 'instance', operator: '==', value: 'nobody', valueType: 'exact', isSoft: false } as const]
  assert.is(refusalOf(ask([node('a')], request({ affinity: hard }))), 'no VM of this owner matches instance==nobody')
})

test('a step tells who is left after it and why each of the others is not', () => {
  const decision = ask([node('a'), node('b', { reserved: true }), node('c', { status: 'unknown' })], request())
  const told = Object.fromEntries(
    decision.steps.map(step => [step.rule, { left: survivors(decision, step).length, ...reasonsOf(decision, step) }]),
  )
  assert.equal(told['hard-filter-running'], { left: 2, [node('c').uuid]: 'its status is unknown' })
  assert.equal(told['hard-filter-reserved'], { left: 1, [node('b').uuid]: 'it is reserved' })
  const fell = ask([node('a')], request({ ram: 20_000 }))
  assert.equal(reasonsOf(fell, fell.steps.at(-1)!), {
    [node('a').uuid]: 'it has 16384 MiB of RAM left, and 20000 are wanted',
  })
})

test('records that would have failed a request of old only count as what they lack', () => {
  const odd = [
    node('a', { traits: null, current_platform: 'debian' }),
    node('b', { current_platform: '20210115T003355Z' }),
  ]
  assert.is(ask(odd, request({ quota: 10 }, { image: { type: 'zvol' } })).list.length, 2)
})

test('the direction of a weight is told in words', () => {
  assert.is(directionOf('ram', 2), 'least unreserved RAM first')
  assert.is(directionOf('ram', -2), 'most unreserved RAM first')
})

test('npm run allocate prints a line for each request, and words with --explain', () => {
  const input = JSON.stringify(generate({ servers: 12, requests: 5, seed: 4 }))
  const run = (...args: string[]) =>
    spawnSync(process.execPath, ['--import', 'tsx', 'scripts/allocate.ts', ...args], { input, encoding: 'utf8' })
  const lines = run('-')
    .stdout.trim()
    .split('\n')
    .map(line => JSON.parse(line) as Record<string, unknown>)
  assert.is(lines.length, 5)
  for (const line of lines) assert.equal(Object.keys(line), ['server', 'score', 'winners', 'steps', 'survivorsSha'])
  const words = run('-', '--explain').stdout
  assert.is(words.match(/^request \d+:/gm)?.length, 5)
  assert.match(words, /least unreserved RAM first/)
  assert.is(run('no-such-file').status, 2)
})

test.run()
