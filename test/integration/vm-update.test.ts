/** Changing VMs the whole way: from REST through actors to a simulated node and back, as listings, capacity and the node show it. */
import { randomUUID } from 'node:crypto'
import * as assert from 'uvu/assert'
import { eventually } from '../eventually.ts'
import { type GatewayProcess, type MusterFixture, startMuster } from '../muster-fixture.ts'
import { suite } from '../suite.ts'

const test = suite('changing VMs, whole way')
let muster: MusterFixture
let gateway: GatewayProcess
let vms: string
let vm: string
let uuid: string
const mac = '52:54:00:12:34:56'

test.before(async () => {
  muster = await startMuster({ nodes: 1 })
  gateway = await muster.gateway()
  vms = `/servers/${muster.servers[0]}/vms`
  muster.hypervisors[0]!.world.addImage('debian-13', 64)
  uuid = randomUUID()
  vm = `${vms}/${uuid}`
  const nics = [{ mac, nic_tag: 'admin', vlan_id: 10 }]
  const disks = [{ size: 1024 }, { size: 512 }]
  const made = await task(vms, { uuid, ram: 256, disks, nics, alias: 'before', internal_metadata: { a: 1 } })
  assert.is(made.status, 'complete', JSON.stringify(made))
})
test.after(() => muster?.stop())

async function task(path: string, body: object) {
  const { status, body: started } = await gateway.ask('POST', path, { body })
  assert.is(status, 200, JSON.stringify(started))
  return (await gateway.ask('GET', `/tasks/${started.id}/wait?timeout=20`)).body
}
const resultOf = (ended: { history: { event: unknown }[] }) => ended.history.at(-1)?.event as Record<string, unknown>
const listed = async () =>
  (await gateway.ask('GET', vms)).body.find((one: { uuid: string }) => one.uuid === uuid) as Record<string, unknown>
const capacity = async () => {
  const { body } = await gateway.ask('POST', '/capacity', { body: { servers: muster.servers } })
  return body.capacities[muster.servers[0]!].ram as number
}

test('an update shows in listings, in the record and in what placement still has to give', async () => {
  const before = await capacity()
  const ended = await task(`${vm}/update`, {
    ram: 512,
    alias: 'after',
    add_disks: [{ size: 64 }],
    update_nics: [{ mac, vlan_id: 11 }],
    set_tags: { role: 'web' },
    max_lwps: 4000,
  })
  assert.is(ended.status, 'complete', JSON.stringify(ended.error))
  const { applied, ignored } = resultOf(ended)
  assert.equal(applied, { ram: 'next_boot', alias: 'live', tags: 'live', 'disks.sdc': 'live', [`nics.${mac}`]: 'live' })
  assert.equal(ignored, ['max_lwps'])
  assert.equal([(await listed())['alias'], (await listed())['max_physical_memory']], ['after', 512])
  const loaded = (await gateway.ask('GET', vm)).body
  assert.equal([loaded.disks.length, loaded.nics[0].vlan_id, loaded.tags], [3, 11, { role: 'web' }])
  await eventually(async () => (await capacity()) === before - 256, { withinMs: 10_000, what: 'capacity' })
})

test('an update that cannot be is a failed task that says why, and nothing has changed', async () => {
  const before = (await gateway.ask('GET', vm)).body
  const ended = await task(`${vm}/update`, { alias: 'never', update_disks: [{ path: '/dev/sda', size: 1023 }] })
  assert.equal([ended.status, ended.error.code], ['failure', 'InvalidArgument'])
  assert.equal((await gateway.ask('GET', vm)).body, before)
})

test('a start and a reboot carry internal metadata', async () => {
  const reboot = await task(`${vm}/reboot`, { force: true, update: { set_internal_metadata: { b: 2 } } })
  assert.is(reboot.status, 'complete', JSON.stringify(reboot.error))
  assert.equal((await gateway.ask('GET', vm)).body.internal_metadata, { a: 1, b: 2 })
  assert.is(muster.hypervisors[0]!.world.guest(uuid)?.hardware?.memory_mib, 512, 'the reboot brought what was pending')
})

test('a reprovisioned VM is of the other image, in its listing too', async () => {
  const ended = await task(`${vm}/reprovision`, { image_uuid: 'debian-13' })
  assert.is(ended.status, 'complete', JSON.stringify(ended.error))
  assert.equal(
    [(await gateway.ask('GET', vm)).body.disks[0].image_name, (await listed())['state']],
    ['debian-13', 'running'],
  )
  const absent = await task(`${vm}/reprovision`, { image_uuid: 'debian-99' })
  assert.equal([absent.status, absent.error.code], ['failure', 'ImageNotInstalled'])
  assert.is((await listed())['state'], 'running')
})

test('NICs of all VMs of a node move together', async () => {
  const move = { original_network: { nic_tag: 'admin', vlan_id: 11 }, networks: [{ uuid: randomUUID(), vlan_id: 12 }] }
  const ended = await task(`${vms}/nics/update`, move)
  assert.is(ended.status, 'complete', JSON.stringify(ended.error))
  const { vms: moved } = resultOf(ended) as { vms: { uuid: string; applied: object }[] }
  assert.equal(
    moved.map(one => [one.uuid, one.applied]),
    [[uuid, { [`nics.${mac}`]: 'live' }]],
  )
  assert.is((await gateway.ask('GET', vm)).body.nics[0].vlan_id, 12)
})

test('a NIC that is removed while NICs of other VMs still move stays removed, and no VM drifts', async () => {
  const moving = '52:54:00:12:34:57'
  const other = randomUUID()
  const on = { nic_tag: 'admin', vlan_id: 40 }
  const made = await task(vms, {
    uuid: other,
    ram: 64,
    disks: [{ size: 64 }],
    nics: [{ mac: '52:54:00:12:34:58', ...on }],
  })
  assert.is(made.status, 'complete', JSON.stringify(made))
  assert.is((await task(`${vm}/update`, { add_nics: [{ mac: moving, ...on }] })).status, 'complete')
  muster.hypervisors[0]!.faults.add({ call: 'reshapeVm', uuid: other, hang: true })
  const move = { original_network: on, networks: [{ uuid: randomUUID(), vlan_id: 41 }] }
  const { body: started } = await gateway.ask('POST', `${vms}/nics/update`, { body: move })
  const placeNow = async () =>
    (await gateway.ask('GET', vm)).body.nics.find((nic: { mac: string }) => nic.mac === moving)
  await eventually(async () => (await placeNow())?.vlan_id === 41, {
    withinMs: 10_000,
    what: 'the first VM being moved',
  })
  assert.is((await task(`${vm}/update`, { remove_nics: [moving] })).status, 'complete')
  muster.hypervisors[0]!.faults.clear()
  const ended = (await gateway.ask('GET', `/tasks/${started.id}/wait?timeout=20`)).body
  assert.is(ended.status, 'complete', JSON.stringify(ended.error))
  const { body: drift } = await gateway.ask('GET', `/servers/${muster.servers[0]}/drift`)
  assert.equal([drift.drift, drift.unread], [[], []])
})

test('what runs for a VM is told by process id', async () => {
  const { status, body } = await gateway.ask('GET', `${vm}/proc`)
  assert.is(status, 200)
  assert.ok(Object.entries(body).every(([id, one]) => (one as { pid: number }).pid === Number(id)))
  await task(`${vm}/stop`, { force: true })
  assert.equal([(await gateway.ask('GET', `${vm}/proc`)).body.code], ['VmNotRunning'])
})

test.run()
