/** A definition with another shape: it reads as wanted, and what is not of the shape stays as libvirt gave it, letter for letter. */
import fc from 'fast-check'
import * as assert from 'uvu/assert'
import * as v from 'valibot'
import { VmSpec } from '../../actors/contract/vm.ts'
import type { VmShape } from '../../hypervisor-agent/devices.ts'
import { changedDefinition, retaggedInterface } from '../../hypervisor-agent/libvirt/changed-definition.ts'
import { domainXml } from '../../hypervisor-agent/libvirt/domain-xml.ts'
import { readStat } from '../../hypervisor-agent/libvirt/processes.ts'
import { vmMetadata } from '../../hypervisor-agent/libvirt/vm-metadata.ts'
import { readDomain } from '../../hypervisor-agent/libvirt/xml-reading.ts'
import { targetOf } from '../../hypervisor-agent/shape.ts'
import { suite } from '../suite.ts'

const test = suite('changed definitions')
const seed = Number(process.env['FC_SEED'] ?? Date.now() % 2 ** 31)
console.log(`seed ${seed} (FC_SEED repeats it)`)

const uuid = '0c9f8d8e-7b5b-4a53-9c52-1a2f2f0a0009'
const mac = (n: number) => `52:54:00:00:00:${n.toString(16).padStart(2, '0')}`
const pathOf = (disk: { volume: string }) => `/pool & co/${disk.volume}`
const placeOf = (nic: { network?: string | undefined; vlan_id?: number | undefined }) =>
  nic.network ? { network: nic.network } : { bridge: 'br0', ...(nic.vlan_id ? { vlan: nic.vlan_id } : {}) }
const empty = { customer_metadata: {}, internal_metadata: {}, tags: {}, autoboot: true }

function definitionOf(shape: VmShape): string {
  const { disks, ...rest } = shape
  const spec = v.parse(VmSpec, {
    ...rest,
    uuid,
    name: uuid,
    disks: disks.map(({ size_mib, slot }) => ({ size_mib, slot })),
  })
  return domainXml(spec, {
    type: 'qemu',
    diskPaths: disks.map(pathOf),
    nics: shape.nics.map(placeOf),
    consoleLog: '/logs/console.log',
    metadata: metadataOf(shape),
  })
}
const metadataOf = ({ disks, ...rest }: VmShape) =>
  vmMetadata(v.parse(VmSpec, { ...rest, uuid, name: uuid, disks: [] }), { taskId: 't', createdAtMs: 1, complete: true })
const change = (text: string, shape: VmShape) =>
  changedDefinition(text, { shape, metadata: metadataOf(shape), pathOf, places: shape.nics.map(placeOf) })

const words = fc.string({ unit: 'binary', maxLength: 30 })
const nics = fc.uniqueArray(fc.integer({ min: 0, max: 15 }), { maxLength: 6 }).chain(numbers =>
  fc.tuple(
    ...numbers.map(n =>
      fc.oneof(
        fc.constantFrom('net0', 'net1').map(network => ({ mac: mac(n), network })),
        fc.constantFrom(7, 8).map(vlan_id => ({ mac: mac(n), nic_tag: 'external', vlan_id })),
        fc.constant({ mac: mac(n), nic_tag: 'external' }),
      ),
    ),
  ),
)
const disks = fc
  .uniqueArray(fc.integer({ min: 0, max: 40 }), { maxLength: 6 })
  .map(slots =>
    [...slots].sort((a, b) => a - b).map(slot => ({ slot, volume: `${uuid}-disk${slot}.qcow2`, size_mib: 1 })),
  )
const shapes: fc.Arbitrary<VmShape> = fc
  .record({
    memory_mib: fc.integer({ min: 1, max: 9999 }),
    vcpus: fc.integer({ min: 1, max: 255 }),
    alias: words,
    nics,
    disks,
  })
  .map(one => ({ ...empty, ...one, customer_metadata: { note: `${one.alias}</muster:vm><disk a=` } }))

test('any shape becomes any other, and reads as that', () => {
  fc.assert(
    fc.property(shapes, shapes, (before, wanted) => {
      const read = readDomain(change(definitionOf(before), wanted))
      assert.equal([read.memoryMib, read.vcpus, read.uuid, read.name], [wanted.memory_mib, wanted.vcpus, uuid, uuid])
      assert.equal(read.metadata, metadataOf(wanted))
      const expected = readDomain(definitionOf(wanted))
      assert.is(read.title, expected.title)
      const byTarget = (a: { target: string }, b: { target: string }) => (a.target < b.target ? -1 : 1)
      assert.equal([...read.disks].sort(byTarget), [...expected.disks].sort(byTarget))
      const byMac = (a: { mac: string }, b: { mac: string }) => (a.mac < b.mac ? -1 : 1)
      assert.equal([...read.nics].sort(byMac), [...expected.nics].sort(byMac))
    }),
    { seed, numRuns: 200 },
  )
})

const shape: VmShape = {
  ...empty,
  memory_mib: 512,
  vcpus: 1,
  disks: [0, 1].map(slot => ({ slot, volume: `${uuid}-disk${slot}.qcow2`, size_mib: 1 })),
  nics: [{ mac: mac(1), nic_tag: 'external', vlan_id: 7 }],
}

test('what is not of the shape stays: devices by hand, a CD, the address of a NIC that moves', () => {
  const byHand = `<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
<disk type='file' device='cdrom'><target dev='sdz' bus='scsi'/></disk>`
  const address = `<address type='pci' domain='0x0000' bus='0x05' slot='0x00' function='0x0'/>`
  const before = definitionOf(shape)
    .replace('</devices>', `${byHand}</devices>`)
    .replace('<model type="virtio"/></interface>', `<model type='e1000'/>${address}</interface>`)
  const moved = { ...shape, nics: [{ mac: mac(1), network: 'net0' }] }
  const text = change(before, moved)
  for (const kept of [byHand, address, `<model type='e1000'/>`]) assert.ok(text.includes(kept), kept)
  assert.equal(change(change(before, moved), moved), text, 'twice equals once')
})

test('another volume in a slot is another file in the same place', () => {
  const [, data] = shape.disks
  const wanted = {
    ...shape,
    disks: [{ slot: 0, volume: `${uuid}-disk0-12345678.qcow2`, size_mib: 1 }, data as VmShape['disks'][0]],
  }
  assert.equal(
    readDomain(change(definitionOf(shape), wanted)).disks,
    wanted.disks.map(disk => ({ target: targetOf(disk.slot), path: pathOf(disk) })),
  )
})

test('a running NIC gets another VLAN, or none, and keeps the port it has', () => {
  const live = `<interface type='bridge'><mac address='${mac(1)}'/><source bridge='br0'/><vlan>
  <tag id='10'/></vlan><virtualport type='openvswitch'><parameters interfaceid='x'/></virtualport><target dev='vnet3'/></interface>`
  const tagged = retaggedInterface(live, { bridge: 'br1', vlan: 20 })
  assert.match(tagged, /bridge="br1"/)
  assert.match(tagged, /<vlan><tag id="20"\/><\/vlan><\/interface>/)
  for (const kept of [`interfaceid='x'`, `<target dev='vnet3'/>`]) assert.ok(tagged.includes(kept))
  assert.not.match(tagged, /id='10'/)
  assert.not.match(retaggedInterface(live, { bridge: 'br0' }), /<vlan>/)
})

test('a thread is read whatever it is called', () => {
  const rest = Array.from({ length: 49 }, (_, n) => n + 4).join(' ')
  assert.equal(readStat(`12 (CPU 0/KVM) ) x) S ${rest}`), { id: 12, name: 'CPU 0/KVM) ) x', state: 'S', cpu_ms: 290 })
  assert.is(readStat(''), undefined)
})

test.run()
