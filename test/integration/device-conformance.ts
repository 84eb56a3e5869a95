/** The part of the conformance suite about changing VMs: shapes, volumes beside the definition, running guests, threads. */
import { randomUUID } from 'node:crypto'
import * as assert from 'uvu/assert'
import type * as v from 'valibot'
import type { ErrorCode } from '../../actors/contract/errors.ts'
import type { VmSpec } from '../../actors/contract/vm.ts'
import type { VmShape } from '../../hypervisor-agent/devices.ts'
import type { Hypervisor, HypervisorError } from '../../hypervisor-agent/hypervisor.ts'
import { changedParts, changedShape } from '../../hypervisor-agent/shape.ts'
import type { Suite } from '../suite.ts'

export interface DeviceSubject {
  test: Suite
  limit: { limitMs: number }
  can(capability: unknown, claim: string, reason: string, body: () => Promise<void>): void
  hypervisor(): Hypervisor
  define(more?: Partial<v.InferInput<typeof VmSpec>>): Promise<VmSpec>
  refuses(code: ErrorCode, call: Promise<unknown>): Promise<HypervisorError>
  nicTag: string
  bridge: string
  diskMib: number
  image?: { name: string; sizeMib: number } | undefined
  /** Disks can be resized, and a running guest can be given devices. */
  hasDevices: boolean
  storageIsCounted: boolean
  memoryIsCounted: boolean
}

const mac = (n: number) => `52:54:00:77:00:0${n}`

export function deviceClaims(subject: DeviceSubject): void {
  const { test, limit, can, hypervisor, define, refuses, nicTag, bridge, diskMib, hasDevices } = subject
  const shape = (uuid: string) => hypervisor().shapeOf(uuid)
  const change = async (uuid: string, changes: Parameters<typeof changedShape>[2]) => {
    const before = await shape(uuid)
    const wanted = changedShape(uuid, before, changes, randomUUID())
    await hypervisor().checkShape(uuid, wanted)
    await hypervisor().makeVolumes(uuid, wanted)
    const outcome = await hypervisor().reshapeVm(uuid, wanted, { parts: changedParts(before, wanted) })
    return { before, wanted, ...outcome }
  }
  const two = () =>
    define({
      disks: [{ size_mib: diskMib }, { size_mib: diskMib }],
      nics: [{ mac: mac(1), nic_tag: nicTag, vlan_id: 10, ip: '10.0.0.1', primary: true }],
      alias: 'as it was',
      tags: { a: 1 },
      customer_metadata: { text: '<&>"\u2028' },
    })

  test(
    'the shape of a VM is what it was made from',
    async () => {
      const spec = await two()
      const { disks, ...rest } = await shape(spec.uuid)
      assert.equal(rest, {
        ...{ memory_mib: spec.memory_mib, vcpus: 1, autoboot: true, alias: 'as it was', nics: spec.nics },
        ...{ customer_metadata: spec.customer_metadata, internal_metadata: {}, tags: { a: 1 } },
      })
      assert.equal(
        disks.map(disk => [disk.slot, disk.size_mib, disk.volume]),
        [0, 1].map(n => [n, diskMib, `${spec.uuid}-disk${n}.qcow2`]),
      )
      await hypervisor().removeVm(spec.uuid)
      await refuses('VmNotFound', shape(spec.uuid))
      await refuses('VmNotFound', hypervisor().sweepVolumes(spec.uuid))
    },
    limit,
  )

  test(
    'a stopped VM is reshaped whole, and back again, twice as once',
    async () => {
      const { uuid, memory_mib } = await two()
      const { before, wanted, running, pending } = await change(uuid, {
        ...{ memory_mib: memory_mib * 2, vcpus: 2, alias: 'as it is', autoboot: false, cpu_cap: 200, quota_gib: 3 },
        add_disks: [{ size_mib: diskMib + 1 }],
        remove_disks: ['sdb'],
        add_nics: [{ mac: mac(2), bridge }],
        update_nics: [{ mac: mac(1), vlan_id: 20 }],
        ...{ set_tags: { b: 2 }, remove_tags: ['a'], set_customer_metadata: { text: 'plain' } },
      })
      assert.equal([running, pending], [false, []])
      assert.equal(await shape(uuid), wanted)
      await hypervisor().makeVolumes(uuid, wanted)
      await hypervisor().reshapeVm(uuid, wanted, { parts: changedParts(before, wanted) })
      assert.equal(await shape(uuid), wanted)
      const vm = await hypervisor().loadVm(uuid)
      assert.equal([vm?.memory_mib, vm?.vcpus, vm?.alias, vm?.autostart], [memory_mib * 2, 2, 'as it is', false])
      assert.equal([vm?.cpu_cap, vm?.quota, vm?.['tags']], [200, 3, { b: 2 }])
      assert.equal(
        vm?.disks.map(disk => [disk.target, disk.size_bytes / 1024 ** 2]),
        [
          ['sda', diskMib],
          ['sdc', diskMib + 1],
        ],
      )
      assert.equal(vm?.nics.map(nic => nic.mac).sort(), [mac(1), mac(2)])
      await hypervisor().reshapeVm(uuid, before, { parts: changedParts(wanted, before) })
      assert.equal(await shape(uuid), before)
      await hypervisor().removeVm(uuid)
    },
    limit,
  )

  test(
    'volumes that neither definition nor guest uses are swept, the others stay',
    async () => {
      const { uuid } = await two()
      const used = async () => (await hypervisor().storage()).vm_capacity_bytes / 1024 ** 2
      const before = await used()
      const { wanted } = await change(uuid, { add_disks: [{ size_mib: diskMib }], remove_disks: ['sdb'] })
      assert.is(await used(), before + diskMib)
      await hypervisor().sweepVolumes(uuid)
      await hypervisor().sweepVolumes(uuid)
      assert.is(await used(), before)
      assert.equal((await shape(uuid)).disks, wanted.disks)
      await hypervisor().removeVm(uuid)
      assert.is(await used(), before - 2 * diskMib, 'the VM takes all of its volumes with it')
    },
    limit,
  )

  test(
    'what cannot be is refused by its code and changes nothing',
    async () => {
      const { uuid } = await two()
      const before = await shape(uuid)
      const check = (more: Partial<VmShape>) => hypervisor().checkShape(uuid, { ...before, ...more })
      const nic = { mac: mac(3) }
      await refuses('NetworkNotFound', check({ nics: [{ ...nic, network: 'none' }] }))
      await refuses('NicTagNotFound', check({ nics: [{ ...nic, nic_tag: 'none' }] }))
      await refuses('BridgeNotFound', check({ nics: [{ ...nic, bridge: 'nobr9' }] }))
      const disk = { slot: 2, volume: `${uuid}-disk2-12345678.qcow2`, size_mib: 1 }
      await refuses('ImageNotInstalled', check({ disks: [...before.disks, { ...disk, image: 'none' }] }))
      if (subject.image) {
        const image = { ...disk, image: subject.image.name, size_mib: 1 }
        await refuses('InvalidArgument', check({ disks: [...before.disks, image] }))
      }
      const huge = 64 * 1024 * 1024
      if (subject.storageIsCounted)
        await refuses('InsufficientStorage', check({ disks: [...before.disks, { ...disk, size_mib: huge }] }))
      if (subject.memoryIsCounted) await refuses('InsufficientMemory', check({ memory_mib: huge }))
      assert.equal(await shape(uuid), before)
      await hypervisor().removeVm(uuid)
    },
    limit,
  )

  test(
    'a running VM has what was changed, or it is pending until it is started again',
    async () => {
      const { uuid, memory_mib } = await two()
      assert.equal(await hypervisor().pendingParts(uuid), [])
      await hypervisor().startVm(uuid)
      assert.equal(await hypervisor().pendingParts(uuid), [])
      const { running, pending } = await change(uuid, { memory_mib: memory_mib + 32, alias: 'new', vcpus: 2 })
      assert.ok(running)
      assert.ok(pending.includes('ram'), `pending: ${pending.join(', ')}`)
      assert.not.ok(pending.includes('alias'))
      assert.equal((await hypervisor().pendingParts(uuid)).sort(), pending.sort())
      await hypervisor().powerOff(uuid, { graceful: false })
      await hypervisor().startVm(uuid)
      assert.equal(await hypervisor().pendingParts(uuid), [])
      await hypervisor().removeVm(uuid)
    },
    limit,
  )

  can(hasDevices, 'a running VM takes and loses disks and NICs, and a NIC moves', 'no devices here', async () => {
    const { uuid } = await two()
    await hypervisor().startVm(uuid)
    const { pending } = await change(uuid, {
      add_disks: [{ size_mib: diskMib }],
      remove_disks: ['sdb'],
      update_nics: [{ mac: mac(1), vlan_id: 20 }],
      add_nics: [{ mac: mac(2), nic_tag: nicTag }],
    })
    // A guest without an operating system lets go of no NIC; the rest needs none.
    assert.equal(pending, [])
    const now = await hypervisor().loadVm(uuid)
    assert.equal(
      now?.disks.map(disk => disk.target),
      ['sda', 'sdc'],
    )
    await hypervisor().removeVm(uuid)
  })

  can(hasDevices, 'a disk grows, running or not, and goes back to its size', 'disks here have one size', async () => {
    const { uuid } = await two()
    const sizes = async () => (await hypervisor().loadVm(uuid))?.disks.map(disk => disk.size_bytes / 1024 ** 2)
    await hypervisor().resizeDisk(uuid, 1, diskMib + 8)
    await hypervisor().resizeDisk(uuid, 1, diskMib + 8)
    assert.equal(await sizes(), [diskMib, diskMib + 8])
    await hypervisor().resizeDisk(uuid, 1, diskMib)
    await hypervisor().startVm(uuid)
    await hypervisor().resizeDisk(uuid, 0, diskMib + 8)
    assert.equal(await sizes(), [diskMib + 8, diskMib])
    assert.is((await shape(uuid)).disks[0]?.size_mib, diskMib + 8)
    await refuses('InvalidArgument', hypervisor().resizeDisk(uuid, 7, diskMib))
    await hypervisor().removeVm(uuid)
  })

  test(
    'a running VM has threads, a stopped one has none to show',
    async () => {
      const { uuid } = await define()
      await refuses('VmNotRunning', hypervisor().listThreads(uuid))
      await hypervisor().startVm(uuid)
      const threads = await hypervisor().listThreads(uuid)
      assert.ok(threads.length > 0 && threads.every(thread => thread.name !== '' && thread.cpu_ms >= 0))
      await hypervisor().removeVm(uuid)
      await refuses('VmNotFound', hypervisor().listThreads(uuid))
    },
    limit,
  )
}
