/** The object model against a real libvirtd with its test driver. */
import * as assert from 'uvu/assert'
import { eventually } from '../../../test/eventually.ts'
import { suite } from '../../../test/suite.ts'
import {
  type ConnectionError,
  type DomainLifecycleEvent,
  type ErrorCodeName,
  Hypervisor,
  LibvirtError,
  type NetworkLifecycleEvent,
  type PoolLifecycleEvent,
} from '../index.ts'
import { libvirtdMissing, PrivateLibvirtd } from './private-libvirtd.ts'

const test = suite('libvirt')
const missing = libvirtdMissing()
const daemon = new PrivateLibvirtd()

if (missing) test.skip('the object model against libvirtd', missing)
else describe()

test.after(() => daemon.remove())
test.run()

function describe(): void {
  test.before(() => daemon.start())

  test('the node of the file is described', async () => {
    await withNode(async hypervisor => {
      assert.is(await hypervisor.getType(), 'TEST')
      assert.match(await hypervisor.getLibVersion(), /^\d+\.\d+\.\d+$/)
      assert.match(await hypervisor.getVersion(), /^\d+\.\d+\.\d+$/)
      assert.ok((await hypervisor.getHostname()).length > 0)
      assert.is(await hypervisor.getUri(), daemon.nodeUri)
      assert.match(await hypervisor.getCapabilities(), /<capabilities>/)
      const { model, cpus, mhz, memoryKib } = await hypervisor.getNodeInfo()
      assert.equal({ model, cpus, mhz, memoryKib }, { model: 'x86_64', cpus: 6, mhz: 2400, memoryKib: 8388608 })
      await hypervisor.ping()
    })
  })

  test('a domain is found by name, UUID and number, and an absent one is NO_DOMAIN', async () => {
    await withNode(async hypervisor => {
      const [alpha] = await hypervisor.listDomains()
      assert.is(alpha?.name, 'alpha')
      assert.is(alpha?.uuid, '0c9f8d8e-7b5b-4a53-9c52-1a2f2f0a0001')
      assert.is((await hypervisor.lookupDomainByName('alpha')).uuid, alpha?.uuid)
      assert.is((await hypervisor.lookupDomainByUuid(alpha!.uuid)).name, 'alpha')
      assert.is((await hypervisor.lookupDomainById(alpha!.id!)).name, 'alpha')
      const error = await rejected(hypervisor.lookupDomainByName('absent'), 'NO_DOMAIN')
      assert.is(error.domainName, 'TEST')
      assert.is(error.procedure, 'domain_lookup_by_name')
    })
  })

  test('a domain lives: define, start, suspend, resume, reboot, reset, shut down, destroy, undefine', async () => {
    await withNode(async hypervisor => {
      const beta = await hypervisor.defineDomain(domainXml('beta'), { validate: true })
      assert.is(beta.id, null)
      assert.equal(await beta.getState(), { state: 'shutoff', reason: 'unknown' })
      assert.is(await beta.isPersistent(), true)
      await beta.create()
      assert.ok(beta.id! > 0)
      assert.equal(await beta.getState(), { state: 'running', reason: 'booted' })
      assert.is(await beta.isActive(), true)
      await rejected(beta.create(), 'INTERNAL_ERROR')
      await beta.suspend()
      assert.equal(await beta.getState(), { state: 'paused', reason: 'user' })
      await beta.resume()
      await beta.reboot()
      await beta.reset()
      assert.is((await beta.getState()).state, 'running')
      await beta.shutdown()
      assert.equal(await beta.getState(), { state: 'shutoff', reason: 'shutdown' })
      await beta.create()
      await beta.destroy({ graceful: true })
      assert.equal(await beta.getState(), { state: 'shutoff', reason: 'destroyed' })
      await beta.undefine({ managedSave: true, snapshotsMetadata: true })
      await rejected(beta.getState(), 'NO_DOMAIN')
    })
  })

  test('a transient domain vanishes when it stops', async () => {
    await withNode(async hypervisor => {
      const gamma = await hypervisor.createDomain(domainXml('gamma'))
      assert.is(await gamma.isPersistent(), false)
      await gamma.destroy()
      await rejected(hypervisor.lookupDomainByName('gamma'), 'NO_DOMAIN')
    })
  })

  test('memory, processors, autostart and metadata are changed and read back', async () => {
    await withNode(async hypervisor => {
      const alpha = await hypervisor.lookupDomainByName('alpha')
      await alpha.setMemory(262144, { affect: 'live' })
      await alpha.setVcpus(1, { affect: 'live' })
      const { memoryKib, maxMemoryKib, vcpus } = await alpha.getInfo()
      assert.equal({ memoryKib, maxMemoryKib, vcpus }, { memoryKib: 262144, maxMemoryKib: 1048576, vcpus: 1 })
      assert.is(await alpha.getAutostart(), false)
      await alpha.setAutostart(true)
      assert.is(await alpha.getAutostart(), true)
      await rejected(alpha.getMetadata('title'), 'NO_DOMAIN_METADATA')
      await alpha.setMetadata('title', 'Über <alpha> & "co"')
      assert.is(await alpha.getMetadata('title'), 'Über <alpha> & "co"')
      const uri = 'http://example.org/owner'
      await alpha.setMetadata('element', '<owner team="red"/>', { uri, key: 'x', affect: 'both' })
      assert.match(await alpha.getMetadata('element', { uri, affect: 'config' }), /team="red"/)
      await alpha.setMetadata('element', null, { uri, affect: 'both' })
      await rejected(alpha.getMetadata('element', { uri }), 'NO_DOMAIN_METADATA')
      assert.match(await alpha.getXml({ inactive: true }), /<memory unit='KiB'>1048576</)
    })
  })

  test('snapshots are made, listed, returned to and deleted', async () => {
    await withNode(async hypervisor => {
      const alpha = await hypervisor.lookupDomainByName('alpha')
      const first = await alpha.createSnapshot('<domainsnapshot><name>first</name></domainsnapshot>')
      assert.is(first.name, 'first')
      await rejected(alpha.createSnapshot('<domainsnapshot><name>first</name></domainsnapshot>'), 'OPERATION_FAILED')
      await alpha.destroy()
      assert.equal(
        (await alpha.listSnapshots()).map(one => one.name),
        ['first'],
      )
      await (await alpha.lookupSnapshot('first')).revert()
      assert.equal(await alpha.getState(), { state: 'running', reason: 'from snapshot' })
      assert.match(await first.getXml(), /<state>running<\/state>/)
      await first.delete()
      assert.equal(await alpha.listSnapshots(), [])
      await rejected(alpha.lookupSnapshot('first'), 'NO_DOMAIN_SNAPSHOT')
    })
  })

  test('memory and disk figures come for one domain, and statistics for all domains in one call', async () => {
    await withNode(async hypervisor => {
      const alpha = await hypervisor.lookupDomainByName('alpha')
      assert.ok((await alpha.getBlockInfo('sda')).capacityBytes > 2 ** 32)
      await rejected(alpha.getBlockInfo('sdz'), 'INVALID_ARG')
      assert.is((await alpha.memoryStats()).actualBalloon, 524288)
      const all = await hypervisor.getAllDomainStats({ stats: { state: true } })
      assert.equal(all, [{ name: 'alpha', uuid: alpha.uuid, stats: { 'state.state': 1, 'state.reason': 0 } }])
      assert.is((await hypervisor.getAllDomainStats({ domains: [alpha], filter: { nowait: true } })).length, 1)
    })
  })

  test('what the test driver cannot do is NO_SUPPORT, not a broken connection', async () => {
    await withNode(async hypervisor => {
      const alpha = await hypervisor.lookupDomainByName('alpha')
      const disk = "<disk type='file'><source file='/b'/><target dev='sdb' bus='scsi'/></disk>"
      const calls = [
        hypervisor.getMemoryStats(),
        alpha.attachDevice(disk),
        alpha.detachDevice(disk),
        alpha.updateDevice(disk),
        alpha.blockResize('sda', 2 ** 30),
      ]
      await Promise.all(calls.map(call => rejected(call, 'NO_SUPPORT')))
      await hypervisor.ping()
    })
  })

  test('networks are defined, started, autostarted, stopped and forgotten', async () => {
    await withNode(async hypervisor => {
      const xml =
        "<network><name>v10</name><forward mode='bridge'/><bridge name='br0'/>" +
        "<virtualport type='openvswitch'/><vlan><tag id='10'/></vlan></network>"
      const network = await hypervisor.defineNetwork(xml)
      assert.is(await network.isActive(), false)
      await network.create()
      await network.setAutostart(true)
      assert.equal(
        [await network.isActive(), await network.isPersistent(), await network.getAutostart()],
        [true, true, true],
      )
      assert.is(await network.getBridge(), 'br0')
      assert.match(await network.getXml(), /<tag id='10'\/>/)
      assert.is((await hypervisor.lookupNetworkByUuid(network.uuid)).name, 'v10')
      assert.equal((await hypervisor.listNetworks({ active: true })).map(one => one.name).sort(), ['plain', 'v10'])
      await network.destroy()
      await network.undefine()
      await rejected(hypervisor.lookupNetworkByName('v10'), 'NO_NETWORK')
      await (await hypervisor.createNetwork(xml)).destroy()
    })
  })

  test('pools and volumes: made, cloned, resized, wiped, listed, deleted', async () => {
    await withNode(async hypervisor => {
      const pool = await hypervisor.defineStoragePool(
        "<pool type='dir'><name>vms</name><target><path>/vms</path></target></pool>",
      )
      assert.is(await pool.isActive(), false)
      await pool.build()
      await pool.create()
      await pool.setAutostart(true)
      await pool.refresh()
      assert.equal([await pool.isActive(), await pool.isPersistent(), await pool.getAutostart()], [true, true, true])
      const info = await pool.getInfo()
      assert.is(info.state, 'running')
      assert.is(info.capacityBytes, info.allocationBytes + info.availableBytes)
      const disk = await pool.createVolume(volumeXml('disk0', 2 ** 31))
      assert.is(await disk.getPath(), '/vms/disk0')
      assert.is((await disk.getInfo()).capacityBytes, 2 ** 31)
      assert.is((await disk.getInfo()).type, 'file')
      await rejected(pool.createVolume(volumeXml('disk0', 1)), 'OPERATION_FAILED')
      const copy = await pool.cloneVolume(volumeXml('disk1', 2 ** 31), disk)
      assert.equal((await pool.listVolumes()).map(one => one.name).sort(), ['disk0', 'disk1'])
      assert.match(await copy.getXml(), /<name>disk1<\/name>/)
      await rejected(copy.resize(2 ** 32), 'NO_SUPPORT')
      await rejected(copy.wipe(), 'NO_SUPPORT')
      await copy.delete()
      await rejected(pool.lookupVolume('disk1'), 'NO_STORAGE_VOL')
      assert.is((await hypervisor.lookupStoragePoolByUuid(pool.uuid)).name, 'vms')
      assert.equal((await hypervisor.listStoragePools()).map(one => one.name).sort(), ['images', 'vms'])
      await pool.destroy()
      await pool.undefine()
      await rejected(hypervisor.lookupStoragePoolByName('vms'), 'NO_STORAGE_POOL')
    })
  })

  test('lifecycle, network and pool events arrive typed and in order', async () => {
    await withNode(async hypervisor => {
      const domains: DomainLifecycleEvent[] = []
      const networks: NetworkLifecycleEvent[] = []
      const pools: PoolLifecycleEvent[] = []
      const refreshed: string[] = []
      hypervisor.on('domain', event => domains.push(event))
      hypervisor.on('network', event => networks.push(event))
      hypervisor.on('pool', event => pools.push(event))
      hypervisor.on('poolRefresh', event => refreshed.push(event.name))
      await hypervisor.subscribe('domain', 'reboot', 'network', 'pool', 'poolRefresh')
      await hypervisor.subscribe('domain')
      const delta = await hypervisor.defineDomain(domainXml('delta'))
      await delta.create()
      await delta.suspend()
      await delta.resume()
      await delta.shutdown()
      await delta.undefine()
      const plain = await hypervisor.lookupNetworkByName('plain')
      await plain.destroy()
      await plain.create()
      const images = await hypervisor.lookupStoragePoolByName('images')
      await images.refresh()
      await images.destroy()
      await eventually(() => domains.length >= 6 && networks.length >= 2 && pools.length >= 1 && refreshed.length >= 1)
      assert.equal(
        domains.map(({ name, event, detail }) => `${name} ${event} ${detail}`),
        [
          'delta defined added',
          'delta started booted',
          'delta suspended paused',
          'delta resumed unpaused',
          'delta stopped shutdown',
          'delta undefined removed',
        ],
      )
      assert.is(domains[0]?.uuid, delta.uuid)
      assert.equal(
        networks.map(({ name, event }) => `${name} ${event}`),
        ['plain stopped', 'plain started'],
      )
      assert.equal(
        pools.map(({ name, event }) => `${name} ${event}`),
        ['images stopped'],
      )
      assert.equal(refreshed, ['images'])
    })
  })

  test('each error of many concurrent failures belongs to its own call', async () => {
    await withNode(async hypervisor => {
      const errors = await Promise.all(
        Array.from({ length: 40 }, (_, index) =>
          index % 2
            ? rejected(hypervisor.lookupNetworkByName(`n${index}`), 'NO_NETWORK')
            : rejected(hypervisor.lookupDomainByName(`d${index}`), 'NO_DOMAIN'),
        ),
      )
      assert.is(errors.length, 40)
    })
  })

  test('bad XML and a forbidden name are libvirt errors, also in long strings', async () => {
    await withNode(async hypervisor => {
      await rejected(hypervisor.defineDomain('<domain'), 'XML_DETAIL')
      await rejected(hypervisor.defineDomain(domainXml('a/b')), 'XML_ERROR')
      await rejected(
        hypervisor.defineDomain(domainXml('v'), {}).then(one => one.setVcpus(0)),
        'INVALID_ARG',
      )
      const long = 'x'.repeat(300_000)
      const alpha = await hypervisor.lookupDomainByName('alpha')
      await alpha.setMetadata('description', long)
      assert.is(await alpha.getMetadata('description'), long)
    })
  })

  test('two connections to test:///default see each other, events included', async () => {
    const connect = () => Hypervisor.connect({ uri: 'test:///default', socketPath: daemon.socketPath })
    const [one, other] = await Promise.all([connect(), connect()])
    const heard: string[] = []
    other.on('domain', ({ name, event }) => heard.push(`${name} ${event}`))
    await other.subscribe('domain')
    const shared = await one.defineDomain(domainXml('shared'))
    await shared.create()
    await eventually(() => heard.length === 2)
    assert.equal(heard, ['shared defined', 'shared started'])
    assert.is((await other.lookupDomainByName('shared')).uuid, shared.uuid)
    await Promise.all([one.close(), other.close()])
  })

  test('a read-only connection may look and not touch', async () => {
    const hypervisor = await Hypervisor.connect({
      uri: daemon.nodeUri,
      socketPath: daemon.socketPath,
      readOnly: true,
    })
    const alpha = await hypervisor.lookupDomainByName('alpha')
    await rejected(alpha.destroy(), 'OPERATION_DENIED')
    await hypervisor.close()
  })

  test('an unknown driver is refused with libvirt’s own words', async () => {
    await rejected(Hypervisor.connect({ uri: 'nosuch:///x', socketPath: daemon.socketPath }), 'NO_CONNECT')
  })

  test('after a restart of libvirtd calls work again and events still come', async () => {
    const hypervisor = await Hypervisor.connect({
      uri: 'test:///default',
      socketPath: daemon.socketPath,
      reconnect: { minMs: 20, maxMs: 200 },
    })
    const heard: string[] = []
    hypervisor.on('domain', ({ name, event }) => heard.push(`${name} ${event}`))
    await hypervisor.subscribe('domain')
    const lost = new Promise<ConnectionError>(resolve => hypervisor.once('disconnect', resolve))
    const back = new Promise<void>(resolve => hypervisor.once('reconnect', resolve))
    await daemon.stop('SIGKILL')
    assert.is((await lost).reason, 'lost')
    await daemon.start()
    await back
    await (await hypervisor.lookupDomainByName('test')).destroy()
    await eventually(() => heard.includes('test stopped'))
    await hypervisor.close()
  })

  test('a frozen libvirtd is noticed by keepalive, and a call’s deadline by the call', async () => {
    const hypervisor = await Hypervisor.connect({
      uri: 'test:///default',
      socketPath: daemon.socketPath,
      keepalive: { intervalMs: 100, count: 3 },
      reconnect: { minMs: 20, maxMs: 200 },
    })
    const lost = new Promise<ConnectionError>(resolve => hypervisor.once('disconnect', resolve))
    const back = new Promise<void>(resolve => hypervisor.once('reconnect', resolve))
    daemon.signal('SIGSTOP')
    try {
      const late = hypervisor.getHostname({ deadlineMs: 50 }).then(
        () => 'answered',
        (error: ConnectionError) => error.reason,
      )
      assert.is(await late, 'deadline')
      assert.match((await lost).message, /keepalive/)
    } finally {
      daemon.signal('SIGCONT')
    }
    await back
    await hypervisor.ping()
    await hypervisor.close()
  })
}

async function withNode(body: (hypervisor: Hypervisor) => Promise<void>): Promise<void> {
  const hypervisor = await Hypervisor.connect({ uri: daemon.nodeUri, socketPath: daemon.socketPath })
  try {
    await body(hypervisor)
  } finally {
    await hypervisor.close()
  }
}

async function rejected(promise: Promise<unknown>, codeName: ErrorCodeName): Promise<LibvirtError> {
  const error = await promise.then(
    () => new Error(`expected ${codeName}, but it worked`),
    (reason: unknown) => reason,
  )
  if (!(error instanceof LibvirtError)) throw error
  assert.is(error.codeName, codeName, `${error.codeName}: ${error.message}`)
  return error
}

function domainXml(name: string): string {
  return `<domain type='test'><name>${name}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu><os><type>hvm</type></os></domain>`
}

function volumeXml(name: string, bytes: number): string {
  return `<volume><name>${name}</name><capacity>${bytes}</capacity></volume>`
}
