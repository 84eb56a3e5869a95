/** How the payloads of both APIs become what an agent makes a domain from. */

import * as assert from 'uvu/assert'
import * as v from 'valibot'
import { VmSpec } from '../../actors/contract/vm.ts'
import { derivedIds, fingerprint, hostKey, randomIds } from '../../gateway/ids.ts'
import { checkHostPayload, hostPayload, hostSpecOf, ROOT_DISK_MIB, vmPayload, vmSpecOf } from '../../gateway/vm-spec.ts'
import { suite } from '../suite.ts'

const test = suite('payload to VmSpec')

const ids = { ...randomIds, vm: () => made, task: () => made, mac: (index: number) => `52:54:00:00:00:0${index}` }
const made = '66666666-6666-4666-8666-666666666666'
const image = '77777777-7777-4777-8777-777777777777'

function spec(payload: Record<string, unknown>): VmSpec {
  const mapped = vmSpecOf(v.parse(v.object(vmPayload), payload), ids)
  if ('errors' in mapped) throw new Error(JSON.stringify(mapped.errors))
  return mapped.spec
}
const errors = (payload: Record<string, unknown>) => {
  const mapped = vmSpecOf(v.parse(v.object(vmPayload), payload), ids)
  return 'errors' in mapped ? mapped.errors : []
}

test('memory alone makes a diskless kvm VM with one vcpu, named by a made uuid, that boots', () => {
  assert.equal(spec({ ram: 512 }), {
    uuid: made,
    name: made,
    brand: 'kvm',
    memory_mib: 512,
    vcpus: 1,
    disks: [],
    nics: [],
    autoboot: true,
  })
})

test('ram goes before max_physical_memory, and one of them is needed', () => {
  assert.is(spec({ max_physical_memory: 256 }).memory_mib, 256)
  assert.is(spec({ ram: '512', max_physical_memory: 256 }).memory_mib, 512)
  assert.equal(errors({ vcpus: 1 }), [{ field: 'ram', code: 'Invalid', message: 'value was not a number' }])
})

test('vcpus go before cpu_cap; cpu_cap is rounded up to whole cores', () => {
  const cases: [object, number][] = [
    [{}, 1],
    [{ cpu_cap: 1 }, 1],
    [{ cpu_cap: 100 }, 1],
    [{ cpu_cap: 101 }, 2],
    [{ cpu_cap: 350 }, 4],
    [{ vcpus: 3, cpu_cap: 100 }, 3],
    [{ vcpus: 0.25 }, 1],
    [{ vcpus: 1.5 }, 2],
    [{ cpu_cap: 1_000_000 }, 255],
  ]
  for (const [payload, vcpus] of cases) assert.is(spec({ ram: 1, ...payload }).vcpus, vcpus, JSON.stringify(payload))
})

test('an image without disks becomes the root disk, as large as the quota or the default', () => {
  assert.equal(spec({ ram: 1, image_uuid: image, quota: 20 }).disks, [{ size_mib: 20 * 1024, image }])
  assert.equal(spec({ ram: 1, image_uuid: image, quota: 0 }).disks, [{ size_mib: ROOT_DISK_MIB, image }])
  assert.equal(spec({ ram: 1, image: { uuid: image, files: [] } }).disks, [{ size_mib: ROOT_DISK_MIB, image }])
})

test('a quota without an image is a blank disk', () => {
  assert.equal(spec({ ram: 1, quota: 0.5 }).disks, [{ size_mib: 512 }])
})

test('disks keep their order, sizes and images; the first takes the image named beside them', () => {
  const disks = [{ image_size: 1024 }, { size: 2048 }, { image_name: 'debian', size: 4096 }]
  assert.equal(spec({ ram: 1, image_uuid: image, disks }).disks, [
    { size_mib: 1024, image },
    { size_mib: 2048 },
    { size_mib: 4096, image: 'debian' },
  ])
  const own = [{ image_uuid: image, image_name: 'ignored', image_size: 512 }]
  assert.equal(spec({ ram: 1, disks: own }).disks, [{ size_mib: 512, image }])
  assert.equal(spec({ ram: 1, quota: 1, disks: [{ image_uuid: image }, {}] }).disks, [
    { size_mib: 1024, image },
    { size_mib: ROOT_DISK_MIB },
  ])
})

test('no image anywhere means blank disks', () => {
  assert.equal(spec({ ram: 1, disks: [{ size: 10 }] }).disks, [{ size_mib: 10 }])
})

test('nics keep what they are given and get an address each; VLAN 0 is untagged', () => {
  const nics = [
    { nic_tag: 'admin', vlan_id: 0, ip: 'dhcp', primary: true, netmask: 'x' },
    { network: 'net0' },
    { mac: '52:54:00:AB:CD:EF', bridge: 'br0', vlan_id: 10 },
  ]
  assert.equal(spec({ ram: 1, nics }).nics, [
    { mac: '52:54:00:00:00:00', nic_tag: 'admin', ip: 'dhcp', primary: true },
    { mac: '52:54:00:00:00:01', network: 'net0' },
    { mac: '52:54:00:ab:cd:ef', bridge: 'br0', vlan_id: 10 },
  ])
})

test('a nic that leads nowhere is refused by name, and so is a malformed bridge', () => {
  assert.is(errors({ ram: 1, nics: [{ nic_tag: 'a' }, { ip: '10.0.0.1' }] })[0]?.field, 'nics.1.nic_tag')
  assert.is(errors({ ram: 1, nics: [{ bridge: 'a bridge' }] })[0]?.field, 'nics.0.bridge')
})

test('everything else of the client library\u2019s payload is taken over or ignored', () => {
  const payload = {
    uuid: 'AAAAAAAA-6666-4666-8666-666666666666',
    alias: 'web',
    owner_uuid: image,
    brand: 'joyent',
    ram: 128,
    cpu_cap: 100,
    autoboot: 'false',
    image: { uuid: image, files: [{ sha1: 'x', size: 1, compression: 'gzip' }] },
    customer_metadata: { a: 1 },
    internal_metadata: { b: 'c' },
    tags: { d: true },
    max_lwps: 2000,
    resolvers: ['8.8.8.8'],
  }
  const made = spec(payload)
  assert.is(made.uuid, payload.uuid.toLowerCase())
  assert.is(made.name, payload.uuid.toLowerCase())
  assert.equal([made.alias, made.owner_uuid, made.brand, made.autoboot], ['web', image, 'joyent', false])
  assert.equal([made.customer_metadata, made.internal_metadata, made.tags], [{ a: 1 }, { b: 'c' }, { d: true }])
  assert.equal(v.parse(VmSpec, made), made)
})

test('a host is named by its hostname in lower case, its disks are in GB and its networks by name', () => {
  const payload = v.parse(v.object(hostPayload), { memory: 512, disks: [8, 1], networks: ['a', 'b'] })
  assert.equal(hostSpecOf('NS.Example.com', payload, ids), {
    spec: {
      uuid: made,
      name: 'ns.example.com',
      brand: 'kvm',
      memory_mib: 512,
      vcpus: 1,
      disks: [{ size_mib: 8192 }, { size_mib: 1024 }],
      nics: [
        { mac: '52:54:00:00:00:00', network: 'a' },
        { mac: '52:54:00:00:00:01', network: 'b' },
      ],
      autoboot: true,
    },
  })
})

test('an install has its location, arguments and console; without install there is none, whatever else is said', () => {
  const base = { memory: 1, disks: [], networks: [], location: 'http://mirror/dists/x' }
  const install = (more: object) => {
    const mapped = hostSpecOf('h', v.parse(v.object(hostPayload), { ...base, ...more }), ids)
    return 'spec' in mapped ? mapped.spec.install : mapped
  }
  assert.equal(install({ install: true, cmdline: 'a=b' }), { location: base.location, cmdline: 'a=b', console: false })
  assert.equal(install({ install: true, console: true }), { location: base.location, console: true })
  assert.is(install({ install: false }), undefined)
  assert.is(install({}), undefined)
  const missing = checkHostPayload(v.parse(v.object(hostPayload), { ...base, location: undefined, install: true }))
  assert.is(missing[0]?.field, 'location')
})

test('derived ids are UUIDs and unicast addresses, the same for the same key only', () => {
  const [one, same, other] = [derivedIds('k', 'POST /a'), derivedIds('k', 'POST /a'), derivedIds('l', 'POST /a')]
  assert.equal([one.vm(), one.task(), one.mac(0)], [same.vm(), same.task(), same.mac(0)])
  assert.is(derivedIds('k', 'POST /b').vm(), one.vm())
  assert.is.not(derivedIds('k', 'POST /b').task(), one.task())
  assert.is.not(other.vm(), one.vm())
  assert.is.not(one.mac(0), one.mac(1))
  for (const source of [one, randomIds]) {
    assert.match(source.vm(), /^[0-9a-f]{8}-[0-9a-f]{4}-[48][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
    assert.match(source.mac(0), /^52:54:00(:[0-9a-f]{2}){3}$/)
  }
})

test('a digest tells apart where method ends and path begins; a hostname has one actor whatever its case', () => {
  assert.is.not(fingerprint('POST', '/a', 'b'), fingerprint('POST', '/', 'ab'))
  assert.is(hostKey('NS.example.com'), hostKey('ns.example.com'))
  assert.match(hostKey('a'), /^[0-9a-f]{32}$/)
})

test.run()
