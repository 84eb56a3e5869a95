/** XML for libvirt and from it: nothing a caller says becomes markup, and what was written is read back. */
import fc from 'fast-check'
import * as assert from 'uvu/assert'
import * as v from 'valibot'
import { VmSpec } from '../../actors/contract/vm.ts'
import { domainXml, installerXml, networkXml, poolXml, volumeXml } from '../../hypervisor-agent/libvirt/domain-xml.ts'
import { readMetadata, vmMetadata } from '../../hypervisor-agent/libvirt/vm-metadata.ts'
import { escapeXml, unescapeXml, xml } from '../../hypervisor-agent/libvirt/xml.ts'
import { readDomain, readNetwork, readPoolPath, readVolume } from '../../hypervisor-agent/libvirt/xml-reading.ts'
import { targetOf } from '../../hypervisor-agent/shape.ts'
import { suite } from '../suite.ts'

const test = suite('libvirt xml')
const seed = Number(process.env['FC_SEED'] ?? Date.now() % 2 ** 31)
console.log(`seed ${seed} (FC_SEED repeats it)`)

test('any text comes back from escaping, but for characters that XML cannot hold', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), text => {
      const escaped = escapeXml(text)
      assert.not.match(escaped, /[<>"']/)
      const held = text.replace(/[^\t\n\r\u{20}-\u{d7ff}\u{e000}-\u{fffd}\u{10000}-\u{10ffff}]/gu, '\ufffd')
      assert.is(unescapeXml(escaped), held)
    }),
    { seed, numRuns: 500 },
  )
})

test('numbered entities are read, and what is no entity stays', () => {
  assert.is(unescapeXml('&#65;&#x42;&amp;lt; &unknown; & &amp'), 'AB&lt; &unknown; & &amp')
})

test('only Xml is markup in the template; undefined is nothing', () => {
  const rows = ['<a>', 'b'].map(text => xml`<row>${text}</row>`)
  assert.is(
    xml`<x n="${1}">${rows}${undefined}${xml`<y/>`}</x>`.text,
    '<x n="1"><row>&lt;a&gt;</row>\n<row>b</row><y/></x>',
  )
})

test('a domain is read back as it was written, whatever its alias and metadata say', () => {
  const words = fc.string({ unit: 'binary', maxLength: 40 })
  const values = fc.dictionary(words, fc.oneof(words, fc.integer(), fc.boolean(), fc.constant(null)), {
    noNullPrototype: true,
  })
  fc.assert(
    fc.property(
      words,
      values,
      values,
      fc.array(fc.integer({ min: 1, max: 1e6 }), { maxLength: 30 }),
      (alias, customer, tags, sizes) => {
        const wanted = spec({
          alias,
          customer_metadata: customer,
          tags,
          disks: sizes.map(size_mib => ({ size_mib, image: 'debian-12' })),
          nics: [
            { mac: '52:54:00:AA:BB:CC', network: 'v10' },
            { mac: '52:54:00:aa:bb:cd', nic_tag: 'external', vlan_id: 7 },
          ],
        })
        const read = readDomain(built(wanted))
        assert.is(read.name, wanted.name)
        assert.is(read.uuid, wanted.uuid)
        assert.is(read.memoryMib, wanted.memory_mib)
        assert.is(read.vcpus, wanted.vcpus)
        assert.equal(read.metadata, metadata(wanted))
        assert.equal(
          read.disks,
          sizes.map((_, n) => ({ target: targetOf(n), path: `/pool/disk <${n}>&"'.qcow2` })),
        )
        assert.equal(read.nics, [
          { mac: '52:54:00:aa:bb:cc', network: 'v10', model: 'virtio' },
          { mac: '52:54:00:aa:bb:cd', bridge: 'br0', vlan: 7, model: 'virtio' },
        ])
      },
    ),
    { seed, numRuns: 150 },
  )
})

test('every disk has its own target on one virtio-scsi controller, in the order asked for', () => {
  const text = built(spec({ disks: Array.from({ length: 60 }, () => ({ size_mib: 1 })) }))
  const addresses = [
    ...text.matchAll(
      /<target dev="(\w+)" bus="scsi"\/>\n<address type="drive" controller="0" bus="0" target="(\d+)" unit="0"\/>/g,
    ),
  ]
  assert.equal(
    addresses.map(match => [match[1], Number(match[2])]),
    Array.from({ length: 60 }, (_, n) => [targetOf(n), n]),
  )
  assert.is(text.match(/type="scsi"/g)?.length, 1)
})

test('disks are named as the kernel names them', () => {
  assert.equal([0, 25, 26, 51, 52, 255, 701, 702].map(targetOf), [
    'sda',
    'sdz',
    'sdaa',
    'sdaz',
    'sdba',
    'sdiv',
    'sdzz',
    'sdaaa',
  ])
})

test('there are spare PCIe ports beyond those the devices take', () => {
  const ports = (nics: number) =>
    built(
      spec({ nics: Array.from({ length: nics }, (_, n) => ({ mac: `52:54:00:00:00:0${n}`, network: 'a' })) }),
    ).match(/pcie-root-port/g)?.length
  assert.is(ports(0), 11)
  assert.is(ports(3), 14)
})

test('VNC listens on the loopback, the console is logged and appended to', () => {
  const text = built(spec())
  assert.match(text, /<graphics type="vnc" port="-1" autoport="yes" listen="127.0.0.1">/)
  assert.match(text, /<log file="\/logs\/console.log" append="on"\/>/)
  assert.is(readDomain(text).vnc, undefined)
  assert.is(readDomain(text).consoleLog, '/logs/console.log')
})

test('an alias becomes a title without line breaks, and an empty one no title', () => {
  assert.is(readDomain(built(spec({ alias: ' two\r\nlines ' }))).title, 'two lines')
  assert.not.match(built(spec({ alias: ' \n' })), /<title>/)
})

test('the installer’s domain boots its kernel once and stops on reboot; the rest is as defined', () => {
  const definition = built(spec({ alias: '<os><boot dev="hd"/></os> <on_reboot>restart</on_reboot>' }))
  const cmdline = 'url=http://example.com/$&?a=1&b=<2> $1 $`'
  const text = installerXml(definition, { kernelPath: '/k', initrdPath: '/i', cmdline })
  assert.match(text, /<kernel>\/k<\/kernel>\n<initrd>\/i<\/initrd>/)
  assert.ok(text.includes(`<cmdline>${escapeXml(cmdline)}</cmdline>\n</os>`))
  assert.not.match(text, /<boot /)
  assert.match(text, /<on_reboot>destroy<\/on_reboot>/)
  assert.is(readDomain(text).title, '<os><boot dev="hd"/></os> <on_reboot>restart</on_reboot>')
  assert.throws(() => installerXml('<domain/>', { kernelPath: '/k', initrdPath: '/i', cmdline: '' }), /no <os>/)
})

test('a running domain as libvirt shows it gives VNC port, interfaces and sizes', () => {
  const read = readDomain(`<domain type='qemu' id='3'><name>web</name><uuid>0c9f8d8e-7b5b-4a53-9c52-1a2f2f0a0001</uuid>
    <title>a &amp; b</title><memory unit='KiB'>131072</memory><currentMemory unit='KiB'>98304</currentMemory>
    <vcpu placement='static'>2</vcpu>
    <devices>
      <disk type='file' device='cdrom'><source file='/iso'/><target dev='sdz' bus='sata'/></disk>
      <disk type='file' device='disk'><source file='/a.qcow2' index='1'/><target dev='sda' bus='scsi'/></disk>
      <disk type='block' device='disk'><source dev='/dev/zd0' index='2'/><target dev='sdb' bus='scsi'/></disk>
      <interface type='network'><mac address='52:54:00:00:00:01'/><source network='v10' portgroup='x' bridge='br0'/>
        <vlan><tag id='10'/></vlan><target dev='vnet4'/><model type='virtio'/></interface>
      <interface type='bridge'><mac address='52:54:00:00:00:02'/><source bridge='br1'/>
        <vlan trunk='yes'><tag id='1'/><tag id='2'/></vlan><target dev='vnet5'/></interface>
      <serial type='pty'><source path='/dev/pts/1'/><log file='/c.log' append='on'/></serial>
      <graphics type='vnc' port='5903' autoport='yes' listen='127.0.0.1'><listen type='address' address='127.0.0.1'/></graphics>
    </devices></domain>`)
  assert.equal(read, {
    name: 'web',
    uuid: '0c9f8d8e-7b5b-4a53-9c52-1a2f2f0a0001',
    title: 'a & b',
    memoryMib: 128,
    vcpus: 2,
    disks: [
      { target: 'sda', path: '/a.qcow2' },
      { target: 'sdb', path: '/dev/zd0' },
    ],
    nics: [
      { mac: '52:54:00:00:00:01', network: 'v10', bridge: 'br0', vlan: 10, model: 'virtio', interface: 'vnet4' },
      { mac: '52:54:00:00:00:02', bridge: 'br1', interface: 'vnet5' },
    ],
    vnc: { host: '127.0.0.1', port: 5903 },
    consoleLog: '/c.log',
  })
})

test('metadata of others, or broken, is none', () => {
  assert.is(readMetadata(undefined), undefined)
  assert.is(readMetadata('{"task_id":'), undefined)
  assert.is(readMetadata('{"task_id":"a"}'), undefined)
})

test('networks, volumes and pools escape what they are told, and are read back', () => {
  assert.equal(readNetwork(networkXml({ name: 'v10', bridge: 'br0', vlan: 10 })), { bridge: 'br0', vlan: 10 })
  const path = `/p/<&'">`
  const text = volumeXml({ name: '<n>', capacityBytes: 2 ** 40, backing: { path, format: 'raw' } })
  assert.ok(text.includes(`<path>${escapeXml(path)}</path>`))
  assert.ok(text.includes('<name>&lt;n&gt;</name>'))
  assert.equal(
    readVolume(
      `<volume><capacity unit='bytes'>7</capacity><target><path>/v</path><format type='raw'/></target></volume>`,
    ),
    {
      path: '/v',
      format: 'raw',
      capacityBytes: 7,
      allocationBytes: 0,
    },
  )
  assert.is(readPoolPath(poolXml({ name: 'x', path })), path)
})

test.run()

function spec(more: Partial<v.InferInput<typeof VmSpec>> = {}): VmSpec {
  const uuid = '0c9f8d8e-7b5b-4a53-9c52-1a2f2f0a0009'
  return v.parse(VmSpec, { uuid, name: uuid, memory_mib: 512, vcpus: 2, disks: [], nics: [], ...more })
}

function metadata(wanted: VmSpec) {
  return vmMetadata(wanted, { taskId: 'task', createdAtMs: 1_780_000_000_000, complete: true })
}

function built(wanted: VmSpec): string {
  return domainXml(wanted, {
    type: 'qemu',
    diskPaths: wanted.disks.map((_, n) => `/pool/disk <${n}>&"'.qcow2`),
    nics: wanted.nics.map(nic => (nic.network ? { network: nic.network } : { bridge: 'br0', vlan: nic.vlan_id ?? 1 })),
    consoleLog: '/logs/console.log',
    metadata: metadata(wanted),
  })
}
