/** Requests in vmadm's words become the changes that an agent makes, whole or with every fault named. */
import * as assert from 'uvu/assert'
import { randomIds } from '../../gateway/ids.ts'
import { vmUpdateRows } from '../../gateway/routes/vm-updates.ts'
import { checker } from '../../gateway/validate.ts'
import { type NicsUpdatePayload, nicMovesOf, type VmUpdatePayload, vmChangesOf } from '../../gateway/vm-update.ts'
import { fakeGateway, OTHER_SERVER, SERVER, VM } from '../fake-backend.ts'
import { suite } from '../suite.ts'

const test = suite('payload to changes')
const ids = { ...randomIds, mac: (index: number) => `52:54:00:00:00:0${index}` }
const mac = '52:54:00:aa:bb:cc'

const check = (name: string, all: Record<string, unknown>) =>
  checker(vmUpdateRows.find(row => row.name === name)!)({ server_uuid: SERVER, uuid: VM, ...all })
function mapped(payload: Record<string, unknown>) {
  const checked = check('VmUpdate', payload)
  if ('error' in checked) return { faults: checked.error.errors?.map(({ field }) => field) }
  const made = vmChangesOf(checked.params as VmUpdatePayload, ids)
  return 'errors' in made ? { faults: made.errors.map(({ field }) => field) } : made.changes
}

test('fields take the names of a definition, numbers may be strings, and nothing comes of nothing', () => {
  assert.equal(mapped({}), {})
  assert.equal(mapped({ ram: '1024', vcpus: 2, alias: 'x', autoboot: 'false', owner_uuid: VM.toUpperCase() }), {
    memory_mib: 1024,
    vcpus: 2,
    alias: 'x',
    autoboot: false,
    owner_uuid: VM,
  })
  assert.equal(mapped({ max_physical_memory: 512 }), { memory_mib: 512 })
})

test('a cap or quota of 0 or null takes it away', () => {
  for (const none of [0, null, '0'])
    assert.equal(mapped({ cpu_cap: none, quota: none }), { cpu_cap: null, quota_gib: null })
  assert.equal(mapped({ cpu_cap: 150, quota: 20 }), { cpu_cap: 150, quota_gib: 20 })
})

test('disks and NICs are added, changed and removed in their own words', () => {
  assert.equal(
    mapped({
      add_disks: [{ size: 1024 }, { image_uuid: 'debian-13', image_size: 10240 }],
      update_disks: [{ path: '/dev/sdb', size: 2048 }],
      remove_disks: ['sdc'],
      add_nics: [
        { nic_tag: 'external', vlan_id: 0 },
        { mac, network: 'net0', primary: 'true' },
      ],
      update_nics: [{ mac, vlan_id: 0 }],
      remove_nics: [mac],
    }),
    {
      add_disks: [{ size_mib: 1024 }, { size_mib: 10240, image: 'debian-13' }],
      update_disks: [{ disk: '/dev/sdb', size_mib: 2048 }],
      remove_disks: ['sdc'],
      add_nics: [
        { mac: '52:54:00:00:00:00', nic_tag: 'external' },
        { mac, network: 'net0', primary: true },
      ],
      update_nics: [{ mac, vlan_id: 0 }],
      remove_nics: [mac],
    },
  )
})

test('every fault is named by its field', () => {
  const faults = (payload: Record<string, unknown>) => (mapped(payload) as { faults?: string[] }).faults
  assert.equal(faults({ ram: 'much', vcpus: 0, add_nics: 'x', remove_nics: ['y'], set_tags: [1] }), [
    'ram',
    'vcpus',
    'add_nics',
    'remove_nics.0',
    'set_tags',
  ])
  assert.equal(faults({ add_disks: [{ size: 1 }, {}] }), ['add_disks.1.size'])
  assert.equal(faults({ add_nics: [{ vlan_id: 3 }] }), ['add_nics.0.nic_tag'])
  assert.equal(faults({ update_disks: [{ size: 3 }] }), ['update_disks.0.path'])
  assert.equal(faults({ update_nics: [{ mac, vlan_id: 4095 }] }), ['update_nics.0.vlan_id'])
})

test('NICs move from a place to places', () => {
  const original = { nic_tag: 'external', vlan_id: 10, netmask: '255.255.255.0', subnet: '10.0.0.0/24' }
  const network = { uuid: VM, vlan_id: 20, subnet: '10.0.1.0/24', netmask: '255.255.255.0' }
  const moves = (payload: Record<string, unknown>) => {
    const checked = check('VmNicsUpdate', payload)
    return 'error' in checked ? checked.error.errors?.[0]?.field : nicMovesOf(checked.params as NicsUpdatePayload)
  }
  assert.equal(moves({ original_network: original, networks: [network] }), {
    from: { nic_tag: 'external', vlan_id: 10, subnet: '10.0.0.0/24' },
    to: [{ vlan_id: 20, subnet: '10.0.1.0/24' }],
  })
  assert.is(moves({ original_network: original, networks: [] }), 'networks')
  assert.is(moves({ networks: [network] }), 'original_network')
  assert.equal(moves({ original_network: {}, networks: [network] }), {
    errors: [{ field: 'original_network.nic_tag', code: 'Invalid', message: 'value was not a string' }],
  })
  assert.match(JSON.stringify(moves({ original_network: original, networks: [{ uuid: VM }] })), /networks.0.vlan_id/)
})

test('an update names what it ignores, goes through the VM, and is bounded', async () => {
  const { ask, backend } = fakeGateway()
  backend.put.server({})
  backend.put.vm({})
  const path = `/servers/${SERVER}/vms/${VM}/update`
  const answer = await ask('POST', path, { body: { ram: 256, max_swap: 1, jobid: 'x', ['y'.repeat(100)]: 1 } })
  assert.is(answer.status, 200)
  const [call] = backend.calls
  assert.equal([call?.kind, call?.verb, call?.params['task_id']], ['vm', 'update', answer.body.id])
  assert.equal(call?.params['params'], { changes: { memory_mib: 256 }, ignored: ['max_swap', 'y'.repeat(64)] })
  const large = { set_customer_metadata: { a: 'x'.repeat(200_000) } }
  assert.equal([(await ask('POST', path, { body: large })).status, backend.calls.length], [413, 1])
  const wide = { set_customer_metadata: { a: '€'.repeat(50_000) } }
  assert.equal([(await ask('POST', path, { body: wide })).status, backend.calls.length], [413, 1])
  const vm = { ram: 64, disks: [{ size: 64 }], customer_metadata: { a: '€'.repeat(50_000) } }
  assert.is((await ask('POST', `/servers/${SERVER}/vms`, { body: vm })).status, 413)
})

test('a node that does not say that it is of today is not asked to move NICs', async () => {
  const { ask, backend } = fakeGateway()
  backend.put.server({})
  backend.put.server({ uuid: OTHER_SERVER })
  backend.put.sysinfo(SERVER, { 'SDC Version': '7.0' })
  const body = { original_network: { nic_tag: 'external', vlan_id: 10 }, networks: [{ vlan_id: 20 }] }
  const ofOld = await ask('POST', `/servers/${OTHER_SERVER}/vms/nics/update`, { body })
  assert.equal(
    [ofOld.status, ofOld.body],
    [400, { code: 'InvalidVersion', message: 'Unsupported compute node version' }],
  )
  assert.is((await ask('POST', `/servers/${SERVER}/vms/nics/update`, { body })).status, 200)
  const [call] = backend.calls
  assert.equal([call?.kind, call?.verb, call?.params['task']], ['cn', 'task_add', 'machine_update_nics'])
})

test.run()
