/**
 * What every `Hypervisor` must do, whatever is behind it: one suite, run against the simulated one, libvirt's test driver and QEMU.
 * What an environment cannot show (a guest that listens to ACPI, a pool with real sizes) is a capability, and skipped with its reason.
 */
import { randomBytes, randomUUID } from 'node:crypto'
import * as assert from 'uvu/assert'
import * as v from 'valibot'
import type { ErrorCode } from '../../actors/contract/errors.ts'
import { NetworkSummary } from '../../actors/contract/server.ts'
import { VmSpec, VmSummary } from '../../actors/contract/vm.ts'
import {
  type Hypervisor,
  type HypervisorChange,
  HypervisorError,
  type Installer,
} from '../../hypervisor-agent/hypervisor.ts'
import { eventually } from '../eventually.ts'
import { suite } from '../suite.ts'
import { deviceClaims } from './device-conformance.ts'
import { findingClaims } from './finding-conformance.ts'
import { guestProgramClaims } from './guest-program-conformance.ts'
import { imageClaims } from './image-conformance.ts'
import { migrationClaims } from './migration-conformance.ts'
import { nodeStorageClaims } from './node-storage-conformance.ts'
import { snapshotClaims } from './snapshot-conformance.ts'

export interface Subject {
  /** Opened. */
  hypervisor: Hypervisor
  /** Closes it and opens another on the same host, as a restarted agent does. */
  reopen?: () => Promise<Hypervisor>
  /** Kills the guest behind the hypervisor's back. */
  crash?: (uuid: string) => void | Promise<void>
  close(): Promise<void>
}

export interface Conformance {
  name: string
  /** Called once, before the first test. A throw fails the suite. */
  make: () => Promise<Subject>
  /** An Open vSwitch bridge of the host, and a nic tag that leads to it. */
  bridge: string
  nicTag: string
  /** A volume of the pool that may be used as an image, with its size. */
  image?: { name: string; sizeMib: number }
  /** Volumes have content: an image can be copied into the pool. */
  volumesHaveContent?: boolean
  /** Smallest memory and disk a guest is given, MiB. */
  memoryMib?: number
  diskMib?: number
  /** What a guest without an operating system does when its power button is pressed, and on `requestReboot`. */
  acpi?: 'listens' | 'ignores' | 'unknown'
  /** The pool refuses what does not fit; likewise the host's memory. */
  storageIsCounted?: boolean
  memoryIsCounted?: boolean
  /** Kernel and initrd that the hypervisor can really start. */
  installer?: () => Promise<Installer>
  /** The installer that is started ends by itself within this time, ms. */
  installerEndsWithinMs?: number
  /** `make` gives `reopen`; guests go on while no agent is there. */
  reopens?: boolean
  /** `make` gives `crash`. */
  crashes?: boolean
  /** Bound of every wait, ms. */
  withinMs?: number
}

/** Registers and runs the suite. */
export function conformance(subject: Conformance): void {
  const { bridge, nicTag, memoryMib = 128, diskMib = 64, acpi = 'unknown', withinMs = 10_000 } = subject
  const test = suite(`hypervisor: ${subject.name}`)
  const limit = { limitMs: Math.max(30_000, withinMs * 4) }
  const changes: HypervisorChange[] = []
  let made: Subject
  let hypervisor: Hypervisor

  test.before(async () => {
    made = await subject.make()
    hypervisor = made.hypervisor
    hypervisor.onChange(change => void changes.push(change))
  })
  test.after(async () => {
    await made?.close()
  })

  const spec = (more: Partial<v.InferInput<typeof VmSpec>> = {}): VmSpec => {
    const uuid = more.uuid ?? randomUUID()
    return v.parse(VmSpec, {
      uuid,
      name: uuid,
      memory_mib: memoryMib,
      vcpus: 1,
      disks: [{ size_mib: diskMib }],
      nics: [],
      ...more,
    })
  }
  const define = async (more: Partial<v.InferInput<typeof VmSpec>> = {}): Promise<VmSpec> => {
    const made = spec(more)
    await hypervisor.defineVm(made, { taskId: randomUUID() })
    return made
  }
  const listed = async (uuid: string) => (await hypervisor.listVms()).find(vm => vm.uuid === uuid)
  const becomes = (uuid: string, state: string) =>
    eventually(async () => (await listed(uuid))?.state === state, { withinMs, what: `state ${state} of ${uuid}` })
  const name = (prefix: string) => `${prefix}${randomBytes(4).toString('hex')}`
  const can = (capability: unknown, claim: string, reason: string, body: () => Promise<void>) => {
    if (capability) test(claim, body, limit)
    else test.skip(claim, reason)
  }

  test('it answers a ping', async () => {
    await hypervisor.ping()
  })

  test('the inventory is complete enough for a sysinfo', async () => {
    const host = await hypervisor.inventory()
    const running = host.platforms.filter(platform => platform.running).map(({ name }) => name)
    assert.equal(running, [host.versions.kernel])
    assert.ok(host.hostname.length > 0, 'hostname')
    assert.ok(host.cpu_cores > 0 && host.cpu_online > 0, 'cpus')
    assert.ok(host.memory_mib > 0 && host.memory_available_mib > 0, 'memory')
    assert.ok(host.memory_available_mib <= host.memory_mib, 'no more available than there is')
    assert.ok(host.boot_time_s > 1_000_000_000, 'boot time in seconds since the epoch')
    assert.ok(host.pools.length > 0 && host.pools.every(pool => pool.size_bytes > 0), 'pool')
    assert.ok(
      host.bridges.find(one => one.name === bridge)?.nic_tags.includes(nicTag),
      `bridge ${bridge} with ${nicTag}`,
    )
    for (const nic of host.nics) assert.match(nic.mac, /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/)
  })

  test('storage figures are whole numbers that fit together', async () => {
    const pool = await hypervisor.storage()
    for (const [key, value] of Object.entries(pool)) {
      if (key !== 'pool') assert.ok(Number.isInteger(value) && (value as number) >= 0, `${key} is ${value}`)
    }
    assert.ok(pool.available_bytes <= pool.size_bytes)
  })

  test(
    'a defined VM is listed as stopped with what was asked for',
    async () => {
      const taskId = randomUUID()
      const owner = randomUUID()
      const wanted = spec({ alias: 'web server', owner_uuid: owner, vcpus: 2, quota_gib: 7, cpu_cap: 150 })
      await hypervisor.defineVm(wanted, { taskId })
      const vm = await listed(wanted.uuid)
      assert.ok(vm, 'listed')
      v.parse(VmSummary, vm)
      assert.is(vm?.state, 'stopped')
      assert.is(vm?.name, wanted.name)
      assert.is(vm?.alias, 'web server')
      assert.is(vm?.owner_uuid, owner)
      assert.is(vm?.brand, 'kvm')
      assert.is(vm?.max_physical_memory, memoryMib)
      assert.is(vm?.quota, 7)
      assert.is(vm?.cpu_cap, 150)
      assert.is(vm?.vcpus, 2)
      assert.is(vm?.created_by, taskId)
      assert.is(vm?.domain_id ?? null, null)
      assert.is(vm?.domain_state, 'shut off')
      assert.ok(!Number.isNaN(Date.parse(vm?.last_modified ?? '')), 'last_modified is a time')
      await hypervisor.removeVm(wanted.uuid)
    },
    limit,
  )

  test(
    'disks are sda, sdb, ... in the order asked for, with their sizes',
    async () => {
      const sizes = [diskMib + 3, diskMib, diskMib + 2, diskMib + 1]
      const { uuid } = await define({ disks: sizes.map(size_mib => ({ size_mib })) })
      const vm = await hypervisor.loadVm(uuid)
      assert.equal(
        vm?.disks.map(disk => [disk.target, disk.size_bytes / 1024 ** 2]),
        sizes.map((size, n) => [`sd${'abcd'[n]}`, size]),
      )
      assert.is(vm?.memory_mib, memoryMib)
      await hypervisor.removeVm(uuid)
    },
    limit,
  )

  test(
    'the same definition by the same task is done once',
    async () => {
      const wanted = spec()
      const taskId = randomUUID()
      await hypervisor.defineVm(wanted, { taskId })
      await hypervisor.defineVm(wanted, { taskId })
      assert.is((await hypervisor.listVms()).filter(vm => vm.uuid === wanted.uuid).length, 1)
      await hypervisor.removeVm(wanted.uuid)
    },
    limit,
  )

  test(
    'a uuid or name in use is VmExists for another task, and the VM stays as it was',
    async () => {
      const first = await define({ name: `${name('host')}.example.com` })
      await refuses('VmExists', hypervisor.defineVm(spec({ uuid: first.uuid }), { taskId: randomUUID() }))
      await refuses('VmExists', hypervisor.defineVm(spec({ name: first.name }), { taskId: randomUUID() }))
      assert.is((await listed(first.uuid))?.name, first.name)
      await hypervisor.removeVm(first.uuid)
    },
    limit,
  )

  test('a name never reaches the host as a path: a VM named like a folder is refused or harmless', async () => {
    // Hostnames are checked by the contract; this holds the definition to it.
    assert.throws(() => spec({ name: '..' }))
    assert.throws(() => spec({ name: 'a/b' }))
  })

  test(
    'an absent image is ImageNotInstalled and leaves nothing behind',
    async () => {
      const wanted = spec({ disks: [{ size_mib: diskMib }, { size_mib: diskMib, image: 'no-such-image' }] })
      const before = await hypervisor.storage()
      await refuses('ImageNotInstalled', hypervisor.defineVm(wanted, { taskId: randomUUID() }))
      assert.is(await listed(wanted.uuid), undefined)
      assert.is((await hypervisor.storage()).vm_capacity_bytes, before.vm_capacity_bytes)
    },
    limit,
  )

  can(subject.image, 'a disk can begin as an image of the pool', 'no image here', async () => {
    const image = subject.image as { name: string; sizeMib: number }
    const { uuid } = await define({ disks: [{ size_mib: image.sizeMib + diskMib, image: image.name }] })
    const vm = await hypervisor.loadVm(uuid)
    assert.is(vm?.disks[0]?.image, image.name)
    assert.is(vm?.disks[0]?.size_bytes, (image.sizeMib + diskMib) * 1024 ** 2)
    await hypervisor.removeVm(uuid)
  })

  test(
    'unknown networks, nic tags and bridges are refused by their own codes',
    async () => {
      const mac = '52:54:00:12:34:56'
      const attempt = (nic: object) => hypervisor.defineVm(spec({ nics: [{ mac, ...nic }] }), { taskId: randomUUID() })
      await refuses('NetworkNotFound', attempt({ network: name('absent') }))
      await refuses('NicTagNotFound', attempt({ nic_tag: 'no-such-tag' }))
      await refuses('BridgeNotFound', attempt({ bridge: 'nobr9' }))
    },
    limit,
  )

  can(
    subject.storageIsCounted,
    'disks that do not fit are InsufficientStorage',
    'this pool has no real size',
    async () => {
      const { size_bytes } = await hypervisor.storage()
      const tooMuch = Math.min(64 * 1024 * 1024, Math.ceil(size_bytes / 1024 ** 2) + 1)
      const wanted = spec({ disks: [{ size_mib: tooMuch }] })
      await refuses('InsufficientStorage', hypervisor.defineVm(wanted, { taskId: randomUUID() }))
      assert.is(await listed(wanted.uuid), undefined)
    },
  )

  can(
    subject.memoryIsCounted,
    'a VM that does not fit is InsufficientMemory at start',
    'memory is not counted',
    async () => {
      const { memory_mib } = await hypervisor.inventory()
      const { uuid } = await define({ memory_mib: memory_mib + 1024 })
      await refuses('InsufficientMemory', hypervisor.startVm(uuid))
      assert.is((await listed(uuid))?.state, 'stopped')
      await hypervisor.removeVm(uuid)
    },
  )

  test(
    'start, stop and both again: what is done already is success',
    async () => {
      const { uuid } = await define()
      await hypervisor.startVm(uuid)
      await becomes(uuid, 'running')
      const first = await listed(uuid)
      assert.ok((first?.domain_id ?? 0) > 0, 'a running VM has a number')
      await hypervisor.startVm(uuid)
      assert.is((await listed(uuid))?.domain_id, first?.domain_id, 'it was not started twice')
      await hypervisor.powerOff(uuid, { graceful: false })
      await becomes(uuid, 'stopped')
      await hypervisor.powerOff(uuid, { graceful: false })
      await hypervisor.startVm(uuid)
      await hypervisor.powerOff(uuid, { graceful: true })
      await becomes(uuid, 'stopped')
      await hypervisor.removeVm(uuid)
    },
    limit,
  )

  test(
    'every change of state is told with the uuid',
    async () => {
      const { uuid } = await define()
      const heard = (what: string) =>
        eventually(() => changes.some(change => change.uuid === uuid && change.what === what), { withinMs, what })
      await heard('defined')
      await hypervisor.startVm(uuid)
      await heard('started')
      await hypervisor.resetVm(uuid)
      await heard('rebooted')
      await hypervisor.powerOff(uuid, { graceful: false })
      await heard('stopped')
      await hypervisor.removeVm(uuid)
      await heard('undefined')
    },
    limit,
  )

  test(
    'a listener that stopped listening hears nothing more',
    async () => {
      const heard: HypervisorChange[] = []
      hypervisor.onChange(change => void heard.push(change))()
      const { uuid } = await define()
      await hypervisor.removeVm(uuid)
      await eventually(() => changes.some(change => change.uuid === uuid && change.what === 'undefined'), { withinMs })
      assert.equal(heard, [])
    },
    limit,
  )

  can(acpi === 'listens', 'a guest that listens goes off by its power button', `ACPI here: ${acpi}`, async () => {
    const { uuid } = await define()
    await hypervisor.startVm(uuid)
    await eventually(
      async () => {
        await hypervisor.pressPowerButton(uuid)
        return (await listed(uuid))?.state === 'stopped'
      },
      { withinMs, everyMs: 200, what: 'the guest going off' },
    )
    await hypervisor.pressPowerButton(uuid)
    await hypervisor.removeVm(uuid)
  })

  can(acpi === 'listens', 'a guest that listens reboots on request', `ACPI here: ${acpi}`, async () => {
    const { uuid } = await define()
    await hypervisor.startVm(uuid)
    await eventually(
      async () => {
        await hypervisor.requestReboot(uuid)
        return changes.some(change => change.uuid === uuid && change.what === 'rebooted')
      },
      { withinMs, everyMs: 200, what: 'the reboot' },
    )
    assert.is((await listed(uuid))?.state, 'running')
    await hypervisor.removeVm(uuid)
  })

  can(
    acpi === 'ignores',
    'a deaf guest keeps running, and the calls return at once',
    `ACPI here: ${acpi}`,
    async () => {
      const { uuid } = await define()
      await hypervisor.startVm(uuid)
      await hypervisor.pressPowerButton(uuid)
      await hypervisor.requestReboot(uuid)
      assert.is((await listed(uuid))?.state, 'running')
      await hypervisor.removeVm(uuid)
    },
  )

  test(
    'a reset VM keeps running',
    async () => {
      const { uuid } = await define()
      await hypervisor.startVm(uuid)
      await hypervisor.resetVm(uuid)
      assert.is((await listed(uuid))?.state, 'running')
      await hypervisor.powerOff(uuid, { graceful: false })
      await refuses('VmNotRunning', hypervisor.resetVm(uuid))
      await refuses('VmNotRunning', hypervisor.requestReboot(uuid))
      await hypervisor.removeVm(uuid)
    },
    limit,
  )

  test(
    'every verb on an absent VM is VmNotFound, but removing it is success',
    async () => {
      const absent = randomUUID()
      await refuses('VmNotFound', hypervisor.startVm(absent))
      await refuses('VmNotFound', hypervisor.pressPowerButton(absent))
      await refuses('VmNotFound', hypervisor.powerOff(absent, { graceful: true }))
      await refuses('VmNotFound', hypervisor.requestReboot(absent))
      await refuses('VmNotFound', hypervisor.resetVm(absent))
      await hypervisor.removeVm(absent)
      assert.is(await hypervisor.loadVm(absent), undefined)
    },
    limit,
  )

  test(
    'removing a running VM takes definition and disks with it',
    async () => {
      const before = await hypervisor.storage()
      const { uuid } = await define({ disks: [{ size_mib: diskMib }, { size_mib: diskMib }] })
      assert.is((await hypervisor.storage()).vm_capacity_bytes, before.vm_capacity_bytes + 2 * diskMib * 1024 ** 2)
      await hypervisor.startVm(uuid)
      await hypervisor.removeVm(uuid)
      assert.is(await listed(uuid), undefined)
      assert.is((await hypervisor.storage()).vm_capacity_bytes, before.vm_capacity_bytes)
      await hypervisor.removeVm(uuid)
    },
    limit,
  )

  can(
    subject.installer,
    'the installer runs once; the VM then starts from its disks',
    'no kernel to start here',
    async () => {
      const installer = await (subject.installer as () => Promise<Installer>)()
      const { uuid } = await define()
      await hypervisor.startInstaller(uuid, installer)
      await becomes(uuid, 'running')
      if (subject.installerEndsWithinMs !== undefined) {
        await eventually(async () => (await listed(uuid))?.state === 'stopped', {
          withinMs: subject.installerEndsWithinMs,
          what: 'the end of the installer',
        })
      } else await hypervisor.powerOff(uuid, { graceful: false })
      await hypervisor.startVm(uuid)
      await becomes(uuid, 'running')
      await hypervisor.removeVm(uuid)
    },
  )

  can(subject.crashes, 'a guest killed behind its back is reported failed', 'nothing to kill here', async () => {
    const { uuid } = await define()
    await hypervisor.startVm(uuid)
    await (made.crash as (uuid: string) => Promise<void>)(uuid)
    await becomes(uuid, 'failed')
    await hypervisor.startVm(uuid)
    await becomes(uuid, 'running')
    await hypervisor.removeVm(uuid)
  })

  test(
    'a network is made active, autostarted and persistent, with bridge and VLAN',
    async () => {
      const network = { name: name('net'), bridge, vlan: 10 }
      await hypervisor.createNetwork(network)
      const found = (await hypervisor.listNetworks()).find(one => one.name === network.name)
      assert.equal(v.parse(NetworkSummary, found), { state: 'active', autostart: 'yes', persistent: 'yes', ...network })
      await hypervisor.createNetwork(network)
      await refuses('NetworkExists', hypervisor.createNetwork({ ...network, vlan: 11 }))
      await hypervisor.deleteNetwork(network.name)
      await refuses('NetworkNotFound', hypervisor.deleteNetwork(network.name))
      assert.not.ok((await hypervisor.listNetworks()).some(one => one.name === network.name))
    },
    limit,
  )

  test('a network on an absent bridge is BridgeNotFound', async () => {
    await refuses('BridgeNotFound', hypervisor.createNetwork({ name: name('net'), bridge: 'nobr9', vlan: 10 }))
  })

  test(
    'a network that a VM uses is NetworkInUse, naming the VM, also while it is stopped',
    async () => {
      const network = name('net')
      await hypervisor.createNetwork({ name: network, bridge, vlan: 20 })
      const vm = await define({ nics: [{ mac: '52:54:00:ab:cd:ee', network }] })
      const refusal = await refuses('NetworkInUse', hypervisor.deleteNetwork(network))
      assert.ok(refusal.message.includes(vm.name), refusal.message)
      assert.is((await hypervisor.loadVm(vm.uuid))?.nics[0]?.network, network)
      await hypervisor.removeVm(vm.uuid)
      await hypervisor.deleteNetwork(network)
    },
    limit,
  )

  test(
    'a NIC can name a nic tag and a VLAN instead of a network',
    async () => {
      const { uuid } = await define({ nics: [{ mac: '52:54:00:ab:cd:ec', nic_tag: nicTag, vlan_id: 30 }] })
      const [nic] = (await hypervisor.loadVm(uuid))?.nics ?? []
      assert.is(nic?.mac, '52:54:00:ab:cd:ec')
      assert.is(nic?.vlan, 30)
      await hypervisor.removeVm(uuid)
    },
    limit,
  )

  test(
    'calls for many VMs at once do not disturb each other',
    async () => {
      const many = Array.from({ length: 6 }, () => spec())
      await Promise.all(many.map(one => hypervisor.defineVm(one, { taskId: randomUUID() })))
      const uuids = new Set((await hypervisor.listVms()).map(vm => vm.uuid))
      assert.ok(many.every(one => uuids.has(one.uuid)))
      await Promise.all(many.map(one => hypervisor.removeVm(one.uuid)))
      const left = new Set((await hypervisor.listVms()).map(vm => vm.uuid))
      assert.not.ok(many.some(one => left.has(one.uuid)))
    },
    limit,
  )

  imageClaims({
    ...{ can, define, refuses, diskMib },
    hasContent: subject.volumesHaveContent ?? false,
    image: subject.image,
    hypervisor: () => hypervisor,
  })
  deviceClaims({
    ...{ test, limit, can, define, refuses, nicTag, bridge, diskMib },
    hypervisor: () => hypervisor,
    image: subject.image,
    hasDevices: subject.volumesHaveContent ?? false,
    storageIsCounted: subject.storageIsCounted ?? false,
    memoryIsCounted: subject.memoryIsCounted ?? false,
  })
  test(
    'a NIC tells the nic tag it was asked for by, and one that was not, its bridge',
    async () => {
      const nics = [
        { mac: '52:54:00:0A:0b:01', nic_tag: nicTag },
        { mac: '52:54:00:0a:0b:02', bridge },
      ]
      const { uuid } = await define({ nics })
      const [tagged, plain] = (await hypervisor.loadVm(uuid))?.nics ?? []
      assert.is(tagged?.nic_tag, nicTag)
      assert.equal([plain?.nic_tag, plain?.bridge], [undefined, bridge])
      await hypervisor.removeVm(uuid)
    },
    limit,
  )

  nodeStorageClaims({ test, limit, hypervisor: () => hypervisor, define })
  findingClaims({ test, limit, hypervisor: () => hypervisor, define, refuses, nicTag, diskMib })
  snapshotClaims({ test, limit, hypervisor: () => hypervisor, define, becomes, refuses })
  guestProgramClaims({ test, limit, hypervisor: () => hypervisor, define, becomes, refuses })
  migrationClaims({
    ...{ test, limit, hypervisor: () => hypervisor, spec, define, becomes, refuses, can },
    volumesHaveContent: subject.volumesHaveContent ?? false,
    image: subject.image,
  })

  can(subject.reopens, 'guests outlive the agent', 'a host that ends with its last connection', async () => {
    const { uuid } = await define()
    await hypervisor.startVm(uuid)
    const before = await listed(uuid)
    hypervisor = await (made.reopen as () => Promise<Hypervisor>)()
    hypervisor.onChange(change => void changes.push(change))
    const after = await listed(uuid)
    assert.is(after?.state, 'running')
    assert.is(after?.domain_id, before?.domain_id)
    assert.is(after?.created_by, before?.created_by)
    await hypervisor.removeVm(uuid)
  })

  test.run()
}

/** Checks the code of a refusal and hands it back. */
async function refuses(code: ErrorCode, call: Promise<unknown>): Promise<HypervisorError> {
  try {
    await call
  } catch (error) {
    assert.instance(error, HypervisorError)
    assert.is((error as HypervisorError).code, code, (error as Error).message)
    return error as HypervisorError
  }
  throw new Error(`it should have been refused as ${code}`)
}
