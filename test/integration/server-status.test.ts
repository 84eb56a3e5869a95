/** The status of a node on a real server: a hypervisor that stops answering is told with the reason, and nothing known before is lost. */
import * as assert from 'uvu/assert'
import { eventually } from '../eventually.ts'
import { type GatewayProcess, type MusterFixture, startMuster } from '../muster-fixture.ts'
import { suite } from '../suite.ts'

const test = suite('status of a node')
let muster: MusterFixture
let gateway: GatewayProcess
let server = ''

test.before(async () => {
  muster = await startMuster()
  gateway = await muster.gateway()
  server = muster.servers[0]!
})
test.after(() => muster?.stop())

const evidence = async (query = '') => (await gateway.ask('GET', `/servers/${server}/status${query}`)).body.evidence

test('a node that works is told so by its agent, and a look now finds the same', async () => {
  await eventually(async () => (await evidence()).hypervisor.ok === true, {
    withinMs: 10_000,
    what: 'a healthy report',
  })
  const live = await evidence('?live=true')
  for (const part of ['liveness', 'agent', 'hypervisor', 'storage']) assert.is(live[part].ok, true, part)
  assert.is(live.hypervisor.seen_by, 'live')
})

test('a server shows its VMs as they are after each acknowledged change', async () => {
  const done = async (id: string) => {
    const { body } = await gateway.ask('GET', `/tasks/${id}/wait?timeout=20`)
    assert.is(body.status, 'complete', JSON.stringify(body))
  }
  const made = await gateway.ask('POST', `/servers/${server}/vms`, { body: { ram: 128 } })
  assert.is(made.status, 200)
  await done(made.body.id)
  const shown = async () =>
    Object.values((await gateway.ask('GET', `/servers/${server}`)).body.vms) as { uuid: string; state: string }[]
  const [vm] = await shown()
  for (const [verb, state] of [
    ['stop', 'stopped'],
    ['start', 'running'],
    ['stop', 'stopped'],
  ] as const) {
    await done((await gateway.ask('POST', `/servers/${server}/vms/${vm?.uuid}/${verb}`, { body: {} })).body.id)
    assert.is((await shown())[0]?.state, state)
  }
  await done((await gateway.ask('DELETE', `/servers/${server}/vms/${vm?.uuid}`)).body.id)
  assert.equal(await shown(), [])
})

test('a hypervisor that does not answer is told with its reason, its VMs and figures stay, and it recovers', async () => {
  const [hypervisor] = muster.hypervisors
  const memory = async () => (await gateway.ask('GET', `/servers/${server}`)).body.memory_total_bytes
  const before = await memory()
  assert.ok(before > 0)
  for (const call of ['listVms', 'inventory', 'ping'] as const)
    hypervisor?.faults.add({ call, fail: 'HypervisorUnavailable' })
  // Any change makes the agent look; here a network, which can be made all the same.
  await hypervisor?.createNetwork({ name: 'look', bridge: 'br0', vlan: 7 })
  const sick = await eventually(
    async () => {
      const now = await evidence()
      return now.hypervisor.ok === false ? now : undefined
    },
    { withinMs: 15_000, what: 'the report of a hypervisor that is away' },
  )
  assert.match(sick.hypervisor.message, /was told to fail/)
  assert.is(await memory(), before)
  assert.is((await evidence('?live=true')).hypervisor.ok, false)
  hypervisor?.faults.clear()
  await eventually(async () => (await evidence()).hypervisor.ok === true, {
    withinMs: 30_000,
    what: 'a healthy report again',
  })
})

test.run()
