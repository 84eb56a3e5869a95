/** The definition of a guest that comes running: the machine that it is, letter for letter, with files and networks of this node. */
import * as assert from 'uvu/assert'
import * as v from 'valibot'
import { VmSpec } from '../../actors/contract/vm.ts'
import { arrivingDefinition, bootedNext } from '../../hypervisor-agent/libvirt/arriving-definition.ts'
import { domainXml, type NicPlace } from '../../hypervisor-agent/libvirt/domain-xml.ts'
import { vmMetadata } from '../../hypervisor-agent/libvirt/vm-metadata.ts'
import { readDomain } from '../../hypervisor-agent/libvirt/xml-reading.ts'
import { suite } from '../suite.ts'

const test = suite('arriving definitions')
const uuid = '0c9f8d8e-7b5b-4a53-9c52-1a2f2f0a0009'
const macs = ['52:54:00:00:00:01', '52:54:00:00:00:02']

function definition(folder: string, nics: NicPlace[], by: string, disks = 2): string {
  const spec = v.parse(VmSpec, {
    ...{ uuid, name: uuid, memory_mib: 128, vcpus: 1 },
    nics: nics.map((_, n) => ({ mac: macs[n], bridge: 'br0' })),
    disks: Array.from({ length: disks }, () => ({ size_mib: 16 })),
  })
  return domainXml(spec, {
    type: 'qemu',
    diskPaths: spec.disks.map((_, n) => `${folder}/disk${n}.qcow2`),
    nics,
    consoleLog: `${folder}/console.log`,
    metadata: vmMetadata(spec, { taskId: by, createdAtMs: 1, complete: false }),
  })
}

/** As libvirt describes a running guest: with addresses, and what its disks stand on. */
const coming = definition('/there', [{ bridge: 'br7', vlan: 7 }, { network: 'lan' }], 'source')
  .replaceAll(
    '<model type="virtio"/></interface>',
    '<model type="e1000"/><address type="pci" slot="0x09"/></interface>',
  )
  .replace(
    '<source file="/there/disk0.qcow2"/>',
    `<source file="/there/disk0.qcow2" index="2"/>
<backingStore type="file"><format type="qcow2"/><source file="/there/image"/><backingStore/></backingStore>`,
  )
const stored = definition('/pool & <co>', [{ network: 'lan' }, { bridge: 'br1', vlan: 12 }], 'target')

test('disks, NICs, console and metadata are this node\u2019s', () => {
  const read = readDomain(arrivingDefinition(coming, stored))
  const here = readDomain(stored)
  assert.equal([read.disks, read.consoleLog, read.metadata], [here.disks, here.consoleLog, here.metadata])
  assert.is(read.metadata?.task_id, 'target')
  assert.equal(
    read.nics.map(({ mac, network, bridge, vlan }) => [mac, network, bridge, vlan]),
    [
      [macs[0], 'lan', undefined, undefined],
      [macs[1], undefined, 'br1', 12],
    ],
  )
})

test('the machine stays what the guest runs on: models and addresses, and its disks stand on nothing', () => {
  const text = arrivingDefinition(coming, stored)
  assert.is(text.match(/<model type="e1000"\/>\s*<address type="pci" slot="0x09"\/>/g)?.length, 2)
  assert.not.match(text, /backingStore|\/there\//)
  const machine = (xml: string) => xml.replace(/<(disk|interface|serial|metadata)[ >][\s\S]*?<\/\1>\s*/g, '')
  assert.is(machine(text), machine(coming))
})

test('its next boot is of the same machine: devices at their addresses, memory and processors as its definition has them', () => {
  const grown = stored
    .replace('<memory unit="MiB">128<', '<memory unit="MiB">256<')
    .replace('<vcpu>1<', '<vcpu>2<')
    .replace('machine="q35"', 'machine="pc-q35-9.9"')
  const arriving = arrivingDefinition(coming.replace('machine="q35"', 'machine="pc-q35-7.2"'), grown)
  const next = bootedNext(arriving, grown)
  const read = readDomain(next)
  const { memoryMib, vcpus, metadata, disks } = readDomain(grown)
  assert.equal([read.memoryMib, read.vcpus, read.metadata, read.disks], [memoryMib, vcpus, metadata, disks])
  assert.equal(read.nics, readDomain(arriving).nics)
  assert.match(next, /<type arch="x86_64" machine="pc-q35-7.2">/)
  assert.is(next.match(/<model type="e1000"\/>\s*<address type="pci" slot="0x09"\/>/g)?.length, 2)
})

test('a disk or a NIC that the definition here lacks is refused', () => {
  const fewerDisks = definition('/here', [{ network: 'lan' }, { network: 'lan' }], 'target', 1)
  assert.throws(() => arrivingDefinition(coming, fewerDisks), /a disk sdb that/)
  const fewerNics = definition('/here', [{ network: 'lan' }], 'target')
  assert.throws(() => arrivingDefinition(coming, fewerNics), new RegExp(`a NIC ${macs[1]} that`))
})

test('with the same folder on both nodes it is the same, but for what its disks stood on', () => {
  const there = definition('/there', [{ bridge: 'br7', vlan: 7 }, { network: 'lan' }], 'source')
  const text = arrivingDefinition(coming, there)
  assert.not.match(text, /backingStore/)
  assert.match(text, /<source file="\/there\/disk0.qcow2" index="2"\/>/)
})

test.run()
