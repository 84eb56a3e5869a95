/** Definitions and disks on libvirt's test driver: what a crash leaves is completed by its own task, and by nobody else. */
import { randomUUID } from 'node:crypto'
import { Hypervisor as Libvirt, type StoragePool } from 'node-libvirt'
import * as assert from 'uvu/assert'
import * as v from 'valibot'
import type { ErrorCode } from '../../actors/contract/errors.ts'
import { VmSpec } from '../../actors/contract/vm.ts'
import { type Hypervisor, type HypervisorChange, HypervisorError } from '../../hypervisor-agent/hypervisor.ts'
import { domainXml, installerXml, networkXml, volumeXml } from '../../hypervisor-agent/libvirt/domain-xml.ts'
import { libvirtHypervisor } from '../../hypervisor-agent/libvirt/libvirt.ts'
import { vmMetadata } from '../../hypervisor-agent/libvirt/vm-metadata.ts'
import { readDomain } from '../../hypervisor-agent/libvirt/xml-reading.ts'
import { libvirtdMissing, PrivateLibvirtd } from '../../hypervisor-agent/node-libvirt/test/private-libvirtd.ts'
import { eventually } from '../eventually.ts'
import { suite } from '../suite.ts'

const test = suite('libvirt definitions')
const missing = libvirtdMissing()
const daemon = new PrivateLibvirtd()
const uri = 'test:///default'
let direct: Libvirt
let hypervisor: Hypervisor
const mib = 1024 * 1024

if (missing) test.skip('definitions and disks on the test driver', missing)
else describe()

test.after(async () => {
  await hypervisor?.close()
  await direct?.close()
  await daemon.remove()
})
test.run()

function describe(): void {
  test.before(async () => {
    await daemon.start()
    direct = await Libvirt.connect({ uri, socketPath: daemon.socketPath })
    hypervisor = libvirtHypervisor({
      uri,
      socketPath: daemon.socketPath,
      domainType: 'test',
      pool: 'vms',
      poolPath: '/no/such/folder',
      consoleFolder: '/no/such/consoles',
      nicTags: { external: 'br0' },
      openvswitch: { bridges: async () => ['br0'], ports: async () => ({}), version: async () => undefined },
      deadlines: { returnWithinMs: 5_000 },
    })
    await hypervisor.open()
  })

  test('opening makes the pool where there is none, autostarted, and twice is once', async () => {
    const pool = await vmPool()
    assert.equal([await pool.isActive(), await pool.isPersistent(), await pool.getAutostart()], [true, true, true])
    await pool.destroy()
    const again = libvirtHypervisor({
      uri,
      socketPath: daemon.socketPath,
      domainType: 'test',
      pool: 'vms',
      poolPath: '/no/such/folder',
      consoleFolder: '/c',
      nicTags: {},
      openvswitch: { bridges: async () => [], ports: async () => ({}), version: async () => undefined },
    })
    await again.open()
    assert.is(await pool.isActive(), true)
    await again.close()
  })

  test('the pool is autostarted again, and disks without a VM are removed, no others', async () => {
    const pool = await vmPool()
    await pool.setAutostart(false)
    await hypervisor.makePool()
    assert.is(await pool.getAutostart(), true)
    const { uuid } = spec()
    const kept = spec({ disks: [{ size_mib: 1 }] })
    await hypervisor.defineVm(kept, { taskId: 'x' })
    const left = [`${uuid}-disk0.qcow2`, `${uuid}-disk1.qcow2`]
    const others = ['debian-12', `${uuid}-disk0.qcow2.bak`, `${uuid.slice(1)}-disk0.qcow2`]
    for (const name of [...left, ...others]) await pool.createVolume(volumeXml({ name, capacityBytes: mib }))
    assert.equal((await hypervisor.removeLeftovers()).sort(), left)
    assert.equal(await hypervisor.removeLeftovers(), [])
    const names = (await pool.listVolumes()).map(volume => volume.name)
    for (const name of [...others, `${kept.uuid}-disk0.qcow2`]) assert.ok(names.includes(name), name)
    for (const name of others) await (await pool.lookupVolume(name)).delete()
    await hypervisor.removeVm(kept.uuid)
  })

  test('every definition that is built is valid by libvirt’s schema', async () => {
    const many = Array.from({ length: 40 }, (_, n) => ({ size_mib: n + 1, ...(n % 2 ? { image: 'i' } : {}) }))
    const alias = '<Ümläut> & "quotes" \u0007 \ud800 😀'
    const wanted = [
      spec(),
      spec({
        name: `a.${'b'.repeat(60)}.example.com`,
        alias,
        disks: many,
        customer_metadata: { 'root_authorized_keys<': alias },
      }),
      spec({
        nics: [
          { mac: '52:54:00:00:00:01', network: 'v' },
          { mac: '52:54:00:00:00:02', bridge: 'br0', vlan_id: 4094 },
          { mac: '52:54:00:00:00:03', bridge: 'br0' },
        ],
      }),
    ]
    for (const one of wanted) {
      const text = built(one, { taskId: 'x', complete: false })
      const domain = await direct.defineDomain(text, { validate: true })
      const read = readDomain(await domain.getXml({ inactive: true }))
      assert.equal(read.metadata, vmMetadata(one, { taskId: 'x', createdAtMs: 1, complete: false }))
      assert.is(read.disks.length, one.disks.length)
      await direct.defineDomain(
        installerXml(await domain.getXml({ inactive: true }), {
          kernelPath: '/k<',
          initrdPath: '/i',
          cmdline: 'a=<b> & "c"',
        }),
        { validate: true },
      )
      await domain.undefine()
    }
    const network = await direct.defineNetwork(networkXml({ name: 'valid', bridge: 'br0', vlan: 4094 }))
    await network.undefine()
  })

  test('a creation that was cut off is completed by its own task, and refused to another and to start', async () => {
    const wanted = spec({ disks: [{ size_mib: 10 }, { size_mib: 20 }], customer_metadata: { note: 'a & b' } })
    const taskId = randomUUID()
    await direct.defineDomain(built(wanted, { taskId, complete: false }))
    await (await vmPool()).createVolume(volumeXml({ name: `${wanted.uuid}-disk0.qcow2`, capacityBytes: 1 * mib }))
    await refuses('VmBusy', hypervisor.startVm(wanted.uuid))
    await refuses('VmExists', hypervisor.defineVm(wanted, { taskId: randomUUID() }))
    await hypervisor.defineVm(wanted, { taskId })
    assert.equal(await sizes(wanted.uuid), { disk0: 10, disk1: 20 })
    await hypervisor.startVm(wanted.uuid)
    assert.equal((await hypervisor.loadVm(wanted.uuid))?.['customer_metadata'], { note: 'a & b' })
    await hypervisor.removeVm(wanted.uuid)
  })

  test('a repeated creation leaves the disks of a complete VM alone', async () => {
    const wanted = spec({ disks: [{ size_mib: 10 }] })
    const taskId = randomUUID()
    await hypervisor.defineVm(wanted, { taskId })
    const pool = await vmPool()
    await (await pool.lookupVolume(`${wanted.uuid}-disk0.qcow2`)).delete()
    await pool.createVolume(volumeXml({ name: `${wanted.uuid}-disk0.qcow2`, capacityBytes: 33 * mib }))
    await hypervisor.defineVm(wanted, { taskId })
    assert.equal(await sizes(wanted.uuid), { disk0: 33 })
    await hypervisor.removeVm(wanted.uuid)
  })

  test('disks that an earlier VM left are not taken: the creation is refused until they are destroyed', async () => {
    const wanted = spec({ disks: [{ size_mib: 10 }] })
    await (await vmPool()).createVolume(volumeXml({ name: `${wanted.uuid}-disk0.qcow2`, capacityBytes: 5 * mib }))
    const refusal = await refuses('VmExists', hypervisor.defineVm(wanted, { taskId: randomUUID() }))
    assert.match(refusal.message, /destroy that VM first/)
    assert.equal(await sizes(wanted.uuid), { disk0: 5 })
    await hypervisor.removeVm(wanted.uuid)
    assert.equal(await sizes(wanted.uuid), {})
    await hypervisor.defineVm(wanted, { taskId: randomUUID() })
    await hypervisor.removeVm(wanted.uuid)
  })

  test('removing a VM takes its own volumes and no others, whatever their names and whatever its definition says', async () => {
    const kept = spec({ disks: [{ size_mib: 5 }] })
    await hypervisor.defineVm(kept, { taskId: randomUUID() })
    const gone = spec({ disks: [{ size_mib: 5 }] })
    await hypervisor.defineVm(gone, { taskId: randomUUID() })
    const pool = await vmPool()
    const others = [`${gone.uuid}-disk0.qcow2.bak`, `${gone.uuid}`, `x${gone.uuid}-disk0.qcow2`, 'debian-13']
    for (const name of others) await pool.createVolume(volumeXml({ name, capacityBytes: mib }))
    // Somebody has pointed the domain at another VM's disk and an image.
    const stolen = built(gone, { taskId: 't', complete: true }).replace(
      /<source file="[^"]*"\/>/,
      `<source file="/no/such/folder/${kept.uuid}-disk0.qcow2"/>`,
    )
    await direct.defineDomain(stolen)
    await hypervisor.removeVm(gone.uuid)
    assert.equal(await sizes(gone.uuid), {})
    assert.equal(await sizes(kept.uuid), { disk0: 5 })
    const left = (await pool.listVolumes()).map(volume => volume.name)
    for (const name of others) {
      assert.ok(left.includes(name), name)
      await (await pool.lookupVolume(name)).delete()
    }
    await hypervisor.removeVm(kept.uuid)
  })

  test('a domain that nobody ordered is listed without a task, and removing it leaves its disks', async () => {
    const uuid = randomUUID()
    await direct.defineDomain(
      `<domain type='test'><name>by-hand</name><uuid>${uuid}</uuid><title>hand made</title><memory unit='MiB'>64</memory><os><type>hvm</type></os>
       <devices><disk type='file'><source file='/no/such/folder/by-hand.img'/><target dev='sda' bus='scsi'/></disk></devices></domain>`,
    )
    await (await vmPool()).createVolume(volumeXml({ name: 'by-hand.img', capacityBytes: mib }))
    const vm = (await hypervisor.listVms()).find(one => one.uuid === uuid)
    assert.is(vm?.name, 'by-hand')
    assert.is(vm?.alias, 'hand made')
    assert.is(vm?.created_by, undefined)
    await refuses('VmExists', hypervisor.defineVm(spec({ uuid }), { taskId: randomUUID() }))
    await hypervisor.removeVm(uuid)
    const volume = await (await vmPool()).lookupVolume('by-hand.img')
    await volume.delete()
  })

  test('names that libvirt would take and be harmed by are refused before it', async () => {
    for (const name of ['.', '..', 'a/b', 'a\nb', '']) {
      const wanted = { ...spec(), name } as VmSpec
      await refuses('InvalidArgument', hypervisor.defineVm(wanted, { taskId: randomUUID() }))
    }
    for (const name of ['..', '.', '/', 'a\0b', '']) {
      await refuses('InvalidArgument', hypervisor.createNetwork({ name, bridge: 'br0', vlan: 10 }))
      await refuses('NetworkNotFound', hypervisor.deleteNetwork(name))
    }
    for (const vlan of [0, 4095, 1.5, -1]) {
      await refuses('InvalidArgument', hypervisor.createNetwork({ name: 'n', bridge: 'br0', vlan }))
    }
  })

  test('a disk smaller than its image is refused', async () => {
    await (await vmPool()).createVolume(volumeXml({ name: 'big', capacityBytes: 100 * mib }))
    await refuses(
      'InvalidArgument',
      hypervisor.defineVm(spec({ disks: [{ size_mib: 99, image: 'big' }] }), { taskId: randomUUID() }),
    )
    await (await (await vmPool()).lookupVolume('big')).delete()
  })

  test('a creation that fails half-way leaves neither definition nor disks', async () => {
    const wanted = spec({
      disks: [{ size_mib: 5 }, { size_mib: 5 }],
      nics: [{ mac: '52:54:00:00:00:01', network: 'default' }],
    })
    // The last step fails, after the disks were made.
    const original = Libvirt.prototype.defineDomain
    Libvirt.prototype.defineDomain = async function (text, flags, options) {
      const domain = await original.call(this, text, flags, options)
      domain.setAutostart = async () => {
        await direct.lookupDomainByName('no such domain')
      }
      return domain
    }
    try {
      await refuses('VmNotFound', hypervisor.defineVm(wanted, { taskId: randomUUID() }))
    } finally {
      Libvirt.prototype.defineDomain = original
    }
    assert.is(await hypervisor.loadVm(wanted.uuid), undefined)
    assert.equal(await sizes(wanted.uuid), {})
  })

  test('a network that is there inactive is completed', async () => {
    const network = await direct.defineNetwork(networkXml({ name: 'half', bridge: 'br0', vlan: 12 }))
    await hypervisor.createNetwork({ name: 'half', bridge: 'br0', vlan: 12 })
    assert.equal([await network.isActive(), await network.getAutostart()], [true, true])
    await hypervisor.deleteNetwork('half')
  })

  test('a running VM’s network stays in use when its stored definition has none', async () => {
    await hypervisor.createNetwork({ name: 'live', bridge: 'br0', vlan: 13 })
    const wanted = spec({ nics: [{ mac: '52:54:00:00:00:01', network: 'live' }] })
    const taskId = randomUUID()
    await hypervisor.defineVm(wanted, { taskId })
    await hypervisor.startVm(wanted.uuid)
    await direct.defineDomain(built({ ...wanted, nics: [] }, { taskId, complete: true }))
    const refusal = await refuses('NetworkInUse', hypervisor.deleteNetwork('live'))
    assert.match(refusal.message, new RegExp(wanted.name))
    await hypervisor.removeVm(wanted.uuid)
    await hypervisor.deleteNetwork('live')
  })

  test('a restart of libvirtd is told to listeners, and calls made meanwhile succeed after it', async () => {
    const heard: HypervisorChange[] = []
    hypervisor.onChange(change => void heard.push(change))
    await daemon.stop('SIGKILL')
    const listing = hypervisor.listVms()
    const networks = hypervisor.listNetworks()
    await daemon.start()
    assert.ok((await listing).some(vm => vm.name === 'test'))
    assert.ok((await networks).some(network => network.name === 'default'))
    await eventually(() => heard.some(change => change.what === 'reconnected' && change.uuid === undefined))
    await hypervisor.ping()
  })
}

function vmPool(): Promise<StoragePool> {
  return direct.lookupStoragePoolByName('vms')
}

async function sizes(uuid: string): Promise<Record<string, number>> {
  const found: Record<string, number> = {}
  for (const volume of await (await vmPool()).listVolumes()) {
    const part = new RegExp(`^${uuid}-(disk\\d+)\\.qcow2$`).exec(volume.name)?.[1]
    if (part) found[part] = (await volume.getInfo()).capacityBytes / mib
  }
  return found
}

function spec(more: Partial<v.InferInput<typeof VmSpec>> = {}): VmSpec {
  const uuid = more.uuid ?? randomUUID()
  return v.parse(VmSpec, { uuid, name: uuid, memory_mib: 64, vcpus: 1, disks: [], nics: [], ...more })
}

function built(wanted: VmSpec, made: { taskId: string; complete: boolean }): string {
  return domainXml(wanted, {
    type: 'test',
    diskPaths: wanted.disks.map((_, n) => `/no/such/folder/${wanted.uuid}-disk${n}.qcow2`),
    nics: wanted.nics.map(nic =>
      nic.network
        ? { network: nic.network }
        : { bridge: nic.bridge ?? 'br0', ...(nic.vlan_id ? { vlan: nic.vlan_id } : {}) },
    ),
    consoleLog: '/no/such/consoles/console.log',
    metadata: vmMetadata(wanted, { ...made, createdAtMs: 1 }),
  })
}

async function refuses(code: ErrorCode, call: Promise<unknown>): Promise<HypervisorError> {
  const error = await call.then(
    () => new Error(`it should have been refused as ${code}`),
    (reason: unknown) => reason,
  )
  if (!(error instanceof HypervisorError)) throw error
  assert.is(error.code, code, error.message)
  return error
}
