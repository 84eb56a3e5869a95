/** Drift the whole way: VMs changed behind Muster's back on a simulated node, found over REST, adopted or enforced, and gone from the list. */
import { randomUUID } from 'node:crypto'
import * as assert from 'uvu/assert'
import * as v from 'valibot'
import { VmSpec } from '../../actors/contract/vm.ts'
import { eventually } from '../eventually.ts'
import { type GatewayProcess, type MusterFixture, startMuster } from '../muster-fixture.ts'
import { suite } from '../suite.ts'

const test = suite('drift, whole way')
let muster: MusterFixture
let gateway: GatewayProcess
let drift: string
const mac = '52:54:00:12:34:56'
const world = () => muster.hypervisors[0]!.world
const guest = (uuid: string) => world().guest(uuid)!

test.before(async () => {
  muster = await startMuster({ nodes: 1 })
  gateway = await muster.gateway()
  drift = `/servers/${muster.servers[0]}/drift`
})
test.after(() => muster?.stop())

async function ended(path: string, body: object) {
  const { status, body: started } = await gateway.ask('POST', path, { body })
  assert.is(status, 200, JSON.stringify(started))
  const task = (await gateway.ask('GET', `/tasks/${started.id}/wait?timeout=20`)).body
  return { ...started, task }
}
async function create(more: object = {}): Promise<string> {
  const uuid = randomUUID()
  const nics = [{ mac: `52:54:00:${uuid.slice(0, 2)}:${uuid.slice(2, 4)}:01`, nic_tag: 'admin', vlan_id: 10 }]
  const order = { uuid, ram: 256, disks: [{ size: 1024 }, { size: 512 }], nics, tags: { role: 'web' }, ...more }
  const { task } = await ended(`/servers/${muster.servers[0]}/vms`, order)
  assert.is(task.status, 'complete', JSON.stringify(task))
  await eventually(async () => (await survey()).unread.length === 0)
  return uuid
}
// biome-ignore lint/suspicious/noExplicitAny: the answer is looked into as it is
const survey = async (): Promise<any> => {
  const { status, body } = await gateway.ask('GET', drift)
  assert.is(status, 200, JSON.stringify(body))
  return body
}
const of = async (uuid: string) =>
  (await survey()).drift
    .filter((one: { vm_uuid: string }) => one.vm_uuid === uuid)
    .map(({ field, wanted, found }: Record<string, unknown>) => ({ field, wanted, found }))
const settle = (vm_uuid: string, field: string, action: string) =>
  gateway.ask('POST', drift, { body: { vm_uuid, field, action } })

test('a VM that was made, updated, stopped and started has no drift', async () => {
  const uuid = await create()
  assert.equal(await of(uuid), [])
  const update = {
    ram: 512,
    alias: 'x',
    add_disks: [{ size: 64 }],
    set_tags: { a: 1 },
    add_nics: [{ mac, nic_tag: 'external' }],
  }
  await ended(`/servers/${muster.servers[0]}/vms/${uuid}/update`, update)
  const { drift: found, pending } = await survey()
  assert.equal(
    found.filter((one: { vm_uuid: string }) => one.vm_uuid === uuid),
    [],
  )
  assert.equal(
    pending.filter((one: { vm_uuid: string }) => one.vm_uuid === uuid).map((one: { field: string }) => one.field),
    ['ram'],
    'what the guest has with its next boot is no drift',
  )
  await ended(`/servers/${muster.servers[0]}/vms/${uuid}/stop`, { force: true })
  await ended(`/servers/${muster.servers[0]}/vms/${uuid}/start`, {})
  const after = await survey()
  assert.equal([after.drift, after.pending, after.zombies, after.missing], [[], [], [], []])
})

test('no operation leaves drift behind: reprovision, NIC moves, snapshots and their rollback, hosts on networks', async () => {
  for (const image of ['debian-13', 'debian-14']) world().addImage(image, 64)
  const uuid = await create({ disks: [{ size: 1024, image_uuid: 'debian-13' }, { size: 64 }] })
  const vm = `/servers/${muster.servers[0]}/vms/${uuid}`
  const well = async (path: string, body: object, method = 'POST') => {
    const { status, body: started } = await gateway.ask(method, path, { body })
    assert.is(status, 200, JSON.stringify(started))
    const { body: task } = await gateway.ask('GET', `/tasks/${started.id}/wait?timeout=20`)
    assert.is(task.status, 'complete', JSON.stringify(task.error))
    assert.equal((await survey()).drift, [], path)
  }
  await well(`${vm}/update`, { remove_disks: ['sdb'], add_disks: [{ size: 32 }, { size: 16 }], alias: 'kept' })
  await well(`${vm}/reprovision`, { image_uuid: 'debian-14' })
  await well(`${vm}/snapshots`, { snapshot_name: 'one' }, 'PUT')
  await well(`${vm}/update`, { ram: 512, alias: 'lost', set_tags: { b: 2 } })
  await well(`${vm}/snapshots/one/rollback`, {}, 'PUT')
  const move = { original_network: { nic_tag: 'admin', vlan_id: 10 }, networks: [{ uuid: randomUUID(), vlan_id: 12 }] }
  await well(`/servers/${muster.servers[0]}/vms/nics/update`, move)
  const network = await gateway.ask('POST', '/networks/vlan30', { body: { bridge: 'br0', vlan: 30 } })
  assert.ok(network.status < 300, JSON.stringify(network.body))
  const host = { memory: 256, disks: [1, 2], networks: ['vlan30'] }
  const made = await gateway.ask('POST', '/hosts/web1.example.com', { body: host })
  assert.ok(made.status < 300, JSON.stringify(made.body))
  const { drift: found, zombies, missing } = await survey()
  assert.equal([found, zombies, missing], [[], [], []])
})

test('a change behind Muster is found with its age, survives an update of something else, and is enforced', async () => {
  const uuid = await create()
  Object.assign(guest(uuid).spec, { memory_mib: 384 })
  const changedAt = Date.now()
  guest(uuid).modified_at = changedAt
  assert.equal(await of(uuid), [{ field: 'ram', wanted: 256, found: 384 }])
  const { since, operation } = (await survey()).drift[0]
  assert.is(since, new Date(changedAt).toISOString())
  assert.is(operation, undefined)
  await ended(`/servers/${muster.servers[0]}/vms/${uuid}/update`, { alias: 'other' })
  assert.equal(await of(uuid), [{ field: 'ram', wanted: 256, found: 384 }], 'not taken over by the way')
  assert.is((await survey()).drift[0].since, since, 'and as old as it was')
  const dry = await gateway.ask('POST', drift, {
    body: { vm_uuid: uuid, field: 'ram', action: 'enforce', dry_run: true },
  })
  assert.equal([dry.status, dry.body.verb, dry.body.dry_run], [200, 'update', true])
  assert.is((await of(uuid)).length, 1, 'a dry run changes nothing')
  const { task } = await ended(drift, { vm_uuid: uuid, field: 'ram', action: 'enforce' })
  assert.equal([task.status, task.task], ['complete', 'machine_update'])
  assert.equal(await of(uuid), [])
  assert.is(guest(uuid).spec.memory_mib, 256)
})

test('a rollback takes over what the snapshot is of, and nothing that was changed beside it', async () => {
  const uuid = await create({ alias: 'ordered' })
  const snapshots = `/servers/${muster.servers[0]}/vms/${uuid}/snapshots`
  const well = async (path: string, body: object) => {
    const { body: begun } = await gateway.ask('PUT', path, { body })
    const { body: task } = await gateway.ask('GET', `/tasks/${begun.id}/wait?timeout=20`)
    assert.is(task.status, 'complete', JSON.stringify(task.error))
  }
  await well(snapshots, { snapshot_name: 'one' })
  await ended(`/servers/${muster.servers[0]}/vms/${uuid}/update`, { ram: 512 })
  Object.assign(guest(uuid).spec, { alias: 'behind', tags: { role: 'behind' } })
  await well(`${snapshots}/one/rollback`, {})
  assert.equal(await of(uuid), [
    { field: 'alias', wanted: 'ordered', found: 'behind' },
    { field: 'tags', wanted: { role: 'web' }, found: { role: 'behind' } },
  ])
  for (const field of ['alias', 'tags']) await ended(drift, { vm_uuid: uuid, field, action: 'enforce' })
  assert.equal(await of(uuid), [])
})

test('a switch port with another VLAN is found and enforced; a NIC that moved is adopted', async () => {
  const uuid = await create()
  const [nic] = guest(uuid).spec.nics
  const field = `nics.${nic!.mac}`
  guest(uuid).bent_ports = { [nic!.mac]: { bridge: 'br0', vlan_id: 99 } }
  const bent = await of(uuid)
  assert.equal(
    [bent.length, bent[0].field, bent[0].found.vlan_id, bent[0].wanted.vlan_id],
    [1, `${field}.port`, 99, 10],
  )
  const refused = await settle(uuid, `${field}.port`, 'adopt')
  assert.equal([refused.status, refused.body.code], [409, 'InvalidArgument'])
  const { task } = await ended(drift, { vm_uuid: uuid, field: `${field}.port`, action: 'enforce' })
  assert.equal(task.history.at(-1).event.applied, { [field]: 'live' })
  assert.equal(await of(uuid), [])

  for (const nics of [guest(uuid).spec.nics, guest(uuid).hardware!.nics])
    nics[0] = { mac: nic!.mac, nic_tag: 'external', vlan_id: 20 }
  assert.equal(
    (await of(uuid)).map((one: { field: string }) => one.field),
    [field],
  )
  const adopted = await settle(uuid, field, 'adopt')
  assert.equal([adopted.status, adopted.body.verb, adopted.body.id], [200, 'adopt', undefined])
  assert.equal(await of(uuid), [])
})

test('a disk in a file that Muster did not make is found, and stays what it is', async () => {
  const uuid = await create()
  const own = guest(uuid).volumes
  guest(uuid).volumes = { 0: `${uuid}-disk0.qcow2.overlay` }
  assert.equal(await of(uuid), [
    {
      field: 'disks.sda',
      wanted: { size_mib: 1024 },
      found: { size_mib: 1024, file: `${uuid}-disk0.qcow2.overlay` },
    },
  ])
  for (const action of ['adopt', 'enforce']) {
    const { status, body } = await settle(uuid, 'disks.sda', action)
    assert.equal([status, body.code], [409, 'InvalidArgument'])
    assert.match(body.message, /overlay, which Muster did not make: bring it back/)
  }
  guest(uuid).volumes = own ?? {}
  assert.equal(await of(uuid), [])
})

test('a state is enforced by start, and another made known by adopting it', async () => {
  const uuid = await create()
  guest(uuid).hardware = null
  Object.assign(guest(uuid), { state: 'stopped', domain_id: null })
  assert.equal(await of(uuid), [{ field: 'state', wanted: 'running', found: 'stopped' }])
  const { task } = await ended(drift, { vm_uuid: uuid, field: 'state', action: 'enforce' })
  assert.equal([task.status, task.task, guest(uuid).state], ['complete', 'machine_boot', 'running'])
  assert.equal(await of(uuid), [])
})

test('what an operation in flight explains is marked, and neither adopted nor enforced', async () => {
  const uuid = await create()
  muster.hypervisors[0]!.faults.add({ call: 'reshapeVm', uuid, when: 'after', hang: true })
  const { body: started } = await gateway.ask('POST', `/servers/${muster.servers[0]}/vms/${uuid}/update`, {
    body: { vcpus: 2 },
  })
  await eventually(async () => (await of(uuid)).length === 1, { withinMs: 10_000 })
  const [one] = (await survey()).drift
  assert.equal([one.field, one.operation], ['vcpus', { verb: 'update', task_id: started.id }])
  for (const action of ['adopt', 'enforce']) {
    const { status, body } = await settle(uuid, 'vcpus', action)
    assert.equal([status, body.code], [409, 'VmBusy'])
  }
  muster.hypervisors[0]!.faults.clear()
})

test('a VM that nobody ordered is listed and adopted; one that is gone is listed and forgotten', async () => {
  const spec = v.parse(VmSpec, {
    uuid: randomUUID(),
    name: 'stranger',
    memory_mib: 64,
    vcpus: 1,
    disks: [{ size_mib: 8 }],
    nics: [],
  })
  await muster.hypervisors[0]!.defineVm(spec, { taskId: randomUUID() })
  const listed = async () => (await survey()).zombies.map((one: { name: string }) => one.name)
  assert.equal(await listed(), ['stranger'])
  const refused = await gateway.ask('POST', drift, { body: { vm_uuid: spec.uuid, action: 'enforce' } })
  assert.equal([refused.status, refused.body.code], [409, 'InvalidArgument'])
  const adopt = () => gateway.ask('POST', drift, { body: { vm_uuid: spec.uuid, action: 'adopt' } })
  await eventually(async () => (await adopt()).status === 200, { withinMs: 10_000, what: 'its first report' })
  assert.equal([await listed(), await of(spec.uuid)], [[], []])
  assert.is(guest(spec.uuid).state, 'stopped', 'it is there')

  await muster.hypervisors[0]!.removeVm(spec.uuid)
  const missing = async () => (await survey()).missing.map((one: { vm_uuid: string }) => one.vm_uuid)
  assert.equal(await missing(), [spec.uuid])
  assert.is((await gateway.ask('POST', drift, { body: { vm_uuid: spec.uuid, action: 'forget' } })).status, 200)
  assert.equal(await missing(), [])
})

test('as text it is a table', async () => {
  const response = await fetch(`${gateway.url}${drift}`, { headers: { accept: 'text/plain' } })
  assert.match(await response.text(), /seen now\nVM +NAME +FIELD +WANTED +FOUND +AGE/)
})

test('a node that does not answer is told from its last report', async () => {
  const uuid = await create()
  muster.hypervisors[0]!.faults.add({ call: 'listVms', fail: 'HypervisorUnavailable' })
  const told = await survey()
  assert.equal([told.source, told.not_live.code], ['report', 'HypervisorUnavailable'])
  assert.ok(told.age_s !== null && told.seen_at !== null)
  assert.equal(
    told.drift.filter((one: { vm_uuid: string }) => one.vm_uuid === uuid),
    [],
  )
  const { status, body } = await settle(uuid, 'ram', 'adopt')
  assert.equal([status, body.code], [503, 'HypervisorUnavailable'])
})

test.run()
