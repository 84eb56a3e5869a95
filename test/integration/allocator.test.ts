/** The allocator on real records: what was acknowledged a moment ago counts, claims never promise the same room twice, decisions can be asked why. */
import { randomUUID } from 'node:crypto'
import * as assert from 'uvu/assert'
import { decide } from '../../actors/allocation/decide.ts'
import { type FleetDocument, indexOf, knobsOf } from '../../actors/allocation/document.ts'
import { CLAIM_MS, NOBODY } from '../../actors/contract/allocation.ts'
import type { ServerContext } from '../../actors/contract/server.ts'
import { createCaller } from '../../services/nats/caller.ts'
import { openRecords } from '../../services/nats/records.ts'
import { eventually } from '../eventually.ts'
import { type GatewayProcess, type MusterFixture, startMuster } from '../muster-fixture.ts'
import { suite } from '../suite.ts'

const test = suite('allocator')
let muster: MusterFixture
let gateway: GatewayProcess

test.before(async () => {
  muster = await startMuster({ nodes: 3 })
  gateway = await muster.gateway()
})
test.after(() => muster.stop())

const question = (ram: number, more: Record<string, unknown> = {}) => ({
  vm: { vm_uuid: randomUUID(), owner_uuid: NOBODY, ram, brand: 'kvm', vcpus: 1 },
  image: {},
  nic_tags: [],
  ...more,
})
async function contextOf(server: string): Promise<ServerContext> {
  const record = await openRecords(muster.nc).get('cn', server)
  assert.ok(record)
  return (record.value as { snapshot: { context: ServerContext } }).snapshot.context
}
const capacities = async () => (await gateway.ask('POST', '/capacity', { body: {} })).body.capacities

test('a choice is one of the servers with room, and says which steps led there', async () => {
  const { status, body } = await gateway.ask('POST', '/allocate', { body: question(256) })
  assert.is(status, 200, JSON.stringify(body))
  assert.ok(muster.servers.includes(body.server.uuid))
  assert.ok(body.server.unreserved_ram > 256)
  assert.is(body.steps[0].step, 'Received by DAPI')
  assert.is(body.steps[0].remaining_count, 3)
  assert.equal(Object.keys(await capacities()).sort(), [...muster.servers].sort())
})

test('a VM counts from the moment its create is acknowledged', async () => {
  const [server] = muster.servers
  const before = (await capacities())[server!].ram
  const { status } = await gateway.ask('POST', `/servers/${server}/vms`, { body: { ram: 512 } })
  assert.is(status, 200)
  assert.is((await capacities())[server!].ram, before - 512)
})

test('a server shows the figures that capacity tells', async () => {
  const [server] = muster.servers
  const { cpu, ram, disk } = (await capacities())[server!]
  const { body } = await gateway.ask('GET', `/servers/${server}`)
  assert.equal([body.unreserved_cpu, body.unreserved_ram, body.unreserved_disk], [cpu, ram, disk])
  assert.equal(body.overprovision_ratios, { cpu: 4, ram: 1, disk: 1 })
})

test('an open provision ticket counts until it is released', async () => {
  const [, server] = muster.servers
  const left = async () => {
    const { body } = await gateway.ask('POST', '/allocate', { body: question(64, { servers: [server] }) })
    return body.server.unreserved_ram
  }
  const before = await left()
  const extra = { owner_uuid: NOBODY, max_physical_memory: 1024, quota: 10, brand: 'joyent', cpu_cap: 100 }
  const ticket = { scope: 'vm', id: randomUUID(), expires_at: '3000', action: 'provision', extra }
  const { body } = await gateway.ask('POST', `/servers/${server}/tickets`, { body: ticket })
  assert.is(await left(), before - 1024)
  await gateway.ask('PUT', `/tickets/${body.uuid}/release`)
  assert.is(await left(), before)
})

test('a claim holds room until the create of its VM takes its place', async () => {
  const asked = question(768, { claim: true })
  const { body } = await gateway.ask('POST', '/allocate', { body: asked })
  const server = body.server.uuid as string
  assert.ok(Date.parse(body.claim.expires_at) > Date.now() + CLAIM_MS / 2)
  const left = async () => {
    const answer = await gateway.ask('POST', '/allocate', { body: question(64, { servers: [server] }) })
    return answer.body.server.unreserved_ram as number
  }
  assert.is(await left(), body.server.unreserved_ram - 768)
  const made = await gateway.ask('POST', `/servers/${server}/vms`, { body: { uuid: asked.vm.vm_uuid, ram: 768 } })
  assert.is(made.status, 200)
  assert.is(await left(), body.server.unreserved_ram - 768)
  assert.equal(Object.keys((await contextOf(server)).claims ?? {}), [])
})

test('a node takes no claim from one who does not know all of them, and gives up a claim when it is told to', async () => {
  const [, , server] = muster.servers
  const caller = createCaller(muster.nc, `test-${randomUUID()}`)
  const held = { vm_uuid: randomUUID(), owner_uuid: NOBODY, brand: 'kvm', ram: 1, until: Date.now() + 60_000 }
  const version = async () => (await contextOf(server!)).claims_version ?? 0
  const seen = await version()
  const claim_id = randomUUID()
  assert.equal(await caller.call('cn', server!, 'claim', { claim_id, seen, ...held }), {
    value: { claims_version: seen + 1 },
  })
  const late = await caller.call('cn', server!, 'claim', { claim_id: randomUUID(), seen, ...held })
  assert.is('error' in late && late.error.code, 'ClaimOutdated')
  await caller.call('cn', server!, 'unclaim', { claim_id })
  assert.is(await version(), seen + 2)
  const brief = { ...held, until: Date.now() + 300 }
  await caller.call('cn', server!, 'claim', { claim_id: randomUUID(), seen: seen + 2, ...brief })
  await eventually(async () => (await version()) === seen + 4, { what: 'the claim to lapse' })
})

test(
  '200 claims at once on a nearly full fleet never promise more than there is',
  async () => {
    const before = await capacities()
    const ram = Math.floor(Math.max(...muster.servers.map(uuid => before[uuid].ram)) / 8)
    const fits = muster.servers.reduce((sum, uuid) => sum + Math.floor(before[uuid].ram / ram), 0)
    assert.ok(fits > 0 && fits < 200, `${fits} of ${ram} MiB fit`)
    const answers = await Promise.all(
      Array.from({ length: 200 }, () => gateway.ask('POST', '/allocate', { body: question(ram, { claim: true }) })),
    )
    const taken = new Map<string, number>()
    for (const { status, body } of answers) {
      if (status === 200) taken.set(body.server.uuid, (taken.get(body.server.uuid) ?? 0) + 1)
      else assert.equal([status, body.code], [409, 'NoAllocatableServersError'])
    }
    for (const uuid of muster.servers) {
      const promised = (taken.get(uuid) ?? 0) * ram
      assert.ok(promised <= before[uuid].ram, `${promised} MiB promised, ${before[uuid].ram} there`)
    }
    const total = [...taken.values()].reduce((sum, count) => sum + count, 0)
    console.log(`200 claims of ${ram} MiB: ${total} taken, ${fits} fit by RAM alone`)
    assert.ok(total > 0)
    const refused = answers.find(({ status }) => status === 409)?.body
    assert.ok(refused.steps.at(-1).remaining_count === 0)
    assert.ok(Object.keys(refused.steps.at(-1).reasons).length > 0)
  },
  { limitMs: 90_000 },
)

test('a decision can be asked why it chose, why not another, and what would have admitted that one', async () => {
  const { body } = await gateway.ask('POST', '/allocate', { body: question(64_000_000) })
  assert.is(body.code, 'NoAllocatableServersError')
  const why = await gateway.ask('GET', `/allocations/${body.allocation_id}`)
  assert.equal([why.status, why.body.server_uuid, why.body.question.vm.ram], [200, null, 64_000_000])
  assert.match(why.body.input_digest, /^[0-9a-f]{64}$/)
  const not = await gateway.ask('GET', `/allocations/${body.allocation_id}?server=${muster.servers[0]}`)
  const refusal = not.body.refusals.find(({ rule }: { rule: string }) => rule === 'hard-filter-min-ram')
  assert.match(refusal.change, /^RAM, MiB: \d+ more$/)
  assert.is((await gateway.ask('GET', `/allocations/${randomUUID()}`)).status, 404)
})

test('the exported fleet decides on paper as the allocator does', async () => {
  const { body } = await gateway.ask('GET', '/fleet')
  const document = body as FleetDocument
  const knobs = knobsOf(document)
  assert.equal(
    document.servers.map(({ uuid }) => uuid),
    [...muster.servers].sort(),
  )
  const layout = indexOf(document, knobs).layout()
  const real = await capacities()
  for (const row of layout.rows) assert.equal(row.capacity, real[row.uuid])
  const request = { ...question(8), nic_tags: undefined }
  assert.is(decide(layout, { request, seed: 1 }, knobs).steps[0]?.left, 3)
})

test('a host and a VM without a server go where placement says', async () => {
  const made = await gateway.ask('POST', '/vms', { body: { ram: 16 } })
  assert.equal([made.status, muster.servers.includes(made.body.server_uuid)], [200, true], JSON.stringify(made.body))
  const host = await gateway.ask('POST', '/host/placed.example.com', { body: { memory: 16, disks: [1], networks: [] } })
  assert.is(host.status, 201, JSON.stringify(host.body))
})

test.run()
