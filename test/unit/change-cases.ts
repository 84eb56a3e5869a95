/** Cases of the tasks that change what a VM is: update, another image, NICs of many VMs at once. See agent-tasks.test.ts. */
import { randomUUID } from 'node:crypto'
import * as assert from 'uvu/assert'
import type { TaskReport } from '../../actors/contract/messages.ts'
import type { VmShape } from '../../hypervisor-agent/devices.ts'
import { vmSpec } from './agent-fixture.ts'
import type { Case, Scene } from './task-suite.ts'

const mac = (n: number) => `52:54:00:00:00:0${n}`
const other = vmSpec({ nics: [{ mac: mac(7), nic_tag: 'external', vlan_id: 30 }] })

/** A VM of two disks and two NICs, running. */
const prepare = async (scene: Scene) => {
  const { hypervisor } = scene.node
  hypervisor.world.addImage('debian-12', 32)
  hypervisor.world.addImage('debian-13', 48)
  scene.spec = vmSpec({
    disks: [{ size_mib: 64, image: 'debian-12' }, { size_mib: 32 }],
    nics: [
      { mac: mac(1), nic_tag: 'external', vlan_id: 10, ip: '10.0.0.1', primary: true },
      { mac: mac(2), nic_tag: 'external', vlan_id: 20, ip: '10.1.0.2' },
    ],
    customer_metadata: { 'user-script': 'old', role: 'web' },
    alias: 'before',
  })
  await hypervisor.defineVm(scene.spec, { taskId: randomUUID() })
  await hypervisor.startVm(scene.spec.uuid)
}
const stopped = async (scene: Scene) => {
  await prepare(scene)
  await scene.node.hypervisor.powerOff(scene.spec.uuid, { graceful: false })
}
const two = async (scene: Scene) => {
  await prepare(scene)
  await scene.node.hypervisor.defineVm(other, { taskId: randomUUID() })
}
const shape = ({ node, spec }: Scene): Promise<VmShape> => node.hypervisor.shapeOf(spec.uuid)
const guest = ({ node, spec }: Scene) => node.hypervisor.world.guest(spec.uuid)
const resultOf = (end: TaskReport) => end.result as Record<string, Record<string, unknown>>
const nothingLoose = (scene: Scene) => assert.equal(guest(scene)?.loose ?? {}, {}, 'no volume is left over')

const everything = {
  memory_mib: 96,
  vcpus: 2,
  alias: 'after',
  autoboot: false,
  cpu_cap: 200,
  add_disks: [{ size_mib: 16 }],
  update_disks: [{ disk: 'sda', size_mib: 128 }],
  remove_disks: ['/dev/sdb'],
  add_nics: [{ mac: mac(3), nic_tag: 'external', vlan_id: 40 }],
  update_nics: [{ mac: mac(1), vlan_id: 11 }],
  remove_nics: [mac(2)],
  set_customer_metadata: { 'user-script': 'new' },
  remove_customer_metadata: ['role'],
  set_tags: { tier: 1 },
}

const changed = async (scene: Scene) => {
  const now = await shape(scene)
  assert.equal([now.memory_mib, now.vcpus, now.alias, now.autoboot, now.cpu_cap], [96, 2, 'after', false, 200])
  assert.equal(
    now.disks.map(({ slot, size_mib, image }) => [slot, size_mib, image]),
    [
      [0, 128, 'debian-12'],
      [2, 16, undefined],
    ],
  )
  assert.equal(now.nics, [
    { mac: mac(1), ip: '10.0.0.1', primary: true, nic_tag: 'external', vlan_id: 11 },
    { mac: mac(3), nic_tag: 'external', vlan_id: 40 },
  ])
  assert.equal([now.customer_metadata, now.tags], [{ 'user-script': 'new' }, { tier: 1 }])
  nothingLoose(scene)
}

const unchanged = async (scene: Scene) => {
  const now = await shape(scene)
  const { memory_mib, alias, customer_metadata } = scene.spec
  assert.equal([now.memory_mib, now.alias, now.customer_metadata], [memory_mib, alias, customer_metadata])
  assert.equal(
    now.disks.map(({ slot, size_mib, image }) => [slot, size_mib, image]),
    [
      [0, 64, 'debian-12'],
      [1, 32, undefined],
    ],
  )
  assert.equal(now.nics, scene.spec.nics)
  nothingLoose(scene)
}

const update = (name: string, changes: Record<string, unknown>, more: Partial<Case> = {}): Case => ({
  task: 'machine_update',
  name,
  prepare,
  params: ({ spec }) => ({ uuid: spec.uuid, changes, ignored: ['max_swap'] }),
  check: changed,
  ...more,
})
const refused = (name: string, changes: Record<string, unknown>, failure = 'InvalidArgument'): Case =>
  update(name, changes, { check: unchanged, failure })

export const CHANGE_CASES: Case[] = [
  update('changes a running VM and says what it has at once and what waits for its next boot', everything, {
    check: async (scene, end) => {
      await changed(scene)
      const { applied, wanted, ignored } = resultOf(end)
      assert.equal(applied, {
        ...{ ram: 'live', vcpus: 'next_boot', autoboot: 'live', alias: 'live', cpu_cap: 'live' },
        ...{ customer_metadata: 'live', tags: 'live', 'disks.sda': 'live', 'disks.sdb': 'live', 'disks.sdc': 'live' },
        ...{ [`nics.${mac(1)}`]: 'live', [`nics.${mac(2)}`]: 'live', [`nics.${mac(3)}`]: 'live' },
      })
      assert.equal(ignored, ['max_swap'])
      assert.equal(
        [wanted?.['ram'], wanted?.['alias'], wanted?.['disks']],
        [
          96,
          'after',
          [
            { size_mib: 128, image: 'debian-12' },
            { size_mib: 16, slot: 2 },
          ],
        ],
      )
      const { hardware } = guest(scene) ?? {}
      assert.equal(
        [hardware?.memory_mib, hardware?.vcpus, Object.keys(hardware?.disks ?? {}), hardware?.nics.map(nic => nic.mac)],
        [96, 1, ['0', '2'], [mac(1), mac(3)]],
      )
    },
  }),
  update('changes a stopped VM: what is the guest’s comes with its next boot', everything, {
    prepare: stopped,
    check: async (scene, end) => {
      await changed(scene)
      const { applied = {} } = resultOf(end)
      assert.equal([applied['ram'], applied['disks.sda'], applied['alias']], ['next_boot', 'next_boot', 'live'])
    },
  }),
  refused('refuses to shrink a disk', { memory_mib: 96, update_disks: [{ disk: 'sda', size_mib: 63 }] }),
  {
    task: 'machine_reprovision',
    name: 'gives a running VM another image and keeps all else',
    prepare,
    params: ({ spec }) => ({ uuid: spec.uuid, image_uuid: 'debian-13' }),
    check: async (scene, end) => {
      const now = await shape(scene)
      assert.equal(
        now.disks.map(({ size_mib, image }) => [size_mib, image]),
        [
          [64, 'debian-13'],
          [32, undefined],
        ],
      )
      assert.equal(now.nics, scene.spec.nics)
      assert.equal(now.customer_metadata, scene.spec.customer_metadata)
      assert.equal([guest(scene)?.state, guest(scene)?.boots], ['running', 2])
      assert.is(guest(scene)?.hardware?.disks[0], now.disks[0]?.volume)
      assert.is(resultOf(end)['wanted']?.['image_uuid'], 'debian-13')
      nothingLoose(scene)
    },
  },
  {
    task: 'machine_reprovision',
    name: 'leaves a stopped VM stopped',
    prepare: stopped,
    params: ({ spec }) => ({ uuid: spec.uuid, image_uuid: 'debian-13' }),
    check: async scene => {
      assert.equal([(await shape(scene)).disks[0]?.image, guest(scene)?.state], ['debian-13', 'stopped'])
      nothingLoose(scene)
    },
  },
  {
    task: 'machine_reprovision',
    name: 'is refused for an image that is not there, and the VM runs on',
    prepare,
    params: ({ spec }) => ({ uuid: spec.uuid, image_uuid: 'none' }),
    failure: 'ImageNotInstalled',
    check: async scene => {
      await unchanged(scene)
      assert.equal([guest(scene)?.state, guest(scene)?.boots], ['running', 1])
    },
  },
  {
    task: 'machine_update_nics',
    name: 'moves the NICs of every VM at that place and no others',
    prepare: two,
    params: () => ({
      from: { nic_tag: 'external', vlan_id: 20 },
      to: [
        { vlan_id: 22, subnet: '10.2.0.0/16' },
        { vlan_id: 21, subnet: '10.1.0.0/16' },
      ],
    }),
    check: async (scene, end) => {
      assert.equal(
        (await shape(scene)).nics.map(nic => nic.vlan_id),
        [10, 21],
      )
      assert.is((await scene.node.hypervisor.shapeOf(other.uuid)).nics[0]?.vlan_id, 30)
      const { vms } = end.result as { vms: Record<string, unknown>[] }
      assert.equal(
        vms.map(vm => [vm['uuid'], vm['applied']]),
        [[scene.spec.uuid, { [`nics.${mac(2)}`]: 'live' }]],
      )
    },
  },
  {
    task: 'machine_update_nics',
    name: 'lists a VM that cannot be changed with its reason',
    prepare: two,
    params: () => ({ from: { nic_tag: 'external', vlan_id: 20 }, to: [{ nic_tag: 'nowhere', vlan_id: 21 }] }),
    check: async (scene, end) => {
      await unchanged(scene)
      const { vms } = end.result as { vms: { error?: { code: string } }[] }
      assert.equal(
        vms.map(vm => vm.error?.code),
        ['NicTagNotFound'],
      )
    },
  },
]
