/**
 * A VM that is changed is never half changed: whichever call of an update or a reprovision fails, before or after its effect, the VM is
 * whole as it was or whole as it was wanted, its task says which, no volume is left over, and its record follows.
 */
import { randomUUID } from 'node:crypto'
import * as assert from 'uvu/assert'
import type { VmContext } from '../../actors/contract/vm.ts'
import type { HypervisorError } from '../../hypervisor-agent/hypervisor.ts'
import { changedShape, movedNic, targetOf } from '../../hypervisor-agent/shape.ts'
import { fleetVm } from '../../services/allocator/server.ts'
import { eventually } from '../eventually.ts'
import { suite } from '../suite.ts'
import { type Node, offer, simulatedNode, vmSpec } from './agent-fixture.ts'
import { failingAt } from './failing-calls.ts'
import { complete, type Fleet, fail, makeFleet, registered, SERVER, taskId, VM, withRunningVm } from './fleet.ts'

const test = suite('vm changes')

const mac = (n: number) => `52:54:00:00:00:0${n}`
const changes = {
  memory_mib: 96,
  alias: 'after',
  add_disks: [{ size_mib: 16 }],
  update_disks: [{ disk: 'sda', size_mib: 128 }],
  remove_disks: ['sdb'],
  add_nics: [{ mac: mac(3), nic_tag: 'external' }],
  remove_nics: [mac(1)],
}

async function changing(body: (node: Node, uuid: string) => Promise<void>): Promise<void> {
  const node = await simulatedNode({
    memoryMib: 8192,
    delays: { acpi: 2 },
    images: { 'debian-12': 32, 'debian-13': 32 },
  })
  const spec = vmSpec({
    disks: [{ size_mib: 64, image: 'debian-12' }, { size_mib: 32 }],
    nics: [{ mac: mac(1), nic_tag: 'external', vlan_id: 10 }],
    alias: 'before',
  })
  try {
    await node.hypervisor.defineVm(spec, { taskId: randomUUID() })
    await node.hypervisor.startVm(spec.uuid)
    await body(node, spec.uuid)
  } finally {
    await node.remove()
  }
}

/** What is seen of the VM from outside, without what only says when. */
async function seen({ hypervisor }: Node, uuid: string) {
  const { hardware, loose, state } = hypervisor.world.guest(uuid) ?? {}
  return { shape: await hypervisor.shapeOf(uuid), hardware, loose: loose ?? {}, state }
}

const tasks = {
  machine_update: { changes, ignored: [] },
  machine_reprovision: { image_uuid: 'debian-13' },
} as const

for (const [task, params] of Object.entries(tasks) as [keyof typeof tasks, object][]) {
  test(
    `${task} that fails at any call leaves the VM whole, and says so`,
    async () => {
      const failed: string[] = []
      for (const when of ['before', 'after'] as const) {
        for (let nth = 1, isReached = true; isReached; nth++) {
          isReached = false
          await changing(async (node, uuid) => {
            const before = await seen(node, uuid)
            const at = (name: string) => {
              isReached = true
              failed.push(`${when} ${name}`)
            }
            const agent = await node.agent({ through: failingAt(when, nth, at) })
            const wanted = offer(task, { uuid, ...params })
            await agent.executor.accept(wanted)
            const end = await node.owner.end(wanted.id)
            await eventually(() => agent.journal.open().length === 0, { what: 'the journal being empty' })
            const after = await seen(node, uuid)
            if (end.status === 'failure') {
              assert.equal(after.shape, before.shape, `${failed.at(-1)}: as it was`)
              assert.equal(after.hardware?.disks, before.hardware?.disks, `${failed.at(-1)}: the guest too`)
            } else {
              assert.not.equal(after.shape, before.shape, `${failed.at(-1)}: as wanted`)
            }
            // A sweep that fails is the one thing that may leave a volume, and then it is named.
            const leftOver = (end.result as { left_over?: string } | undefined)?.left_over
            if (leftOver === undefined) assert.equal(after.loose, {}, `${failed.at(-1)}: nothing left over`)
            assert.is(after.state, 'running', `${failed.at(-1)}: it runs`)
            await agent.kill()
          })
        }
      }
      assert.ok(failed.length >= 8, `failed at ${failed.join(', ')}`)
    },
    { limitMs: 60_000 },
  )
}

test('a change that can neither be made nor taken back says both, so that somebody looks', async () => {
  await changing(async (node, uuid) => {
    const agent = await node.agent()
    const { faults } = node.hypervisor
    faults.add({ call: 'resizeDisk', uuid, fail: 'HypervisorError', times: 1 })
    const wanted = offer('machine_update', {
      uuid,
      changes: { alias: 'x', update_disks: changes.update_disks },
      ignored: [],
    })
    faults.add({ call: 'sweepVolumes', uuid, fail: 'InsufficientStorage', times: 1 })
    await agent.executor.accept(wanted)
    const { error } = await node.owner.end(wanted.id)
    assert.is(error?.code, 'HypervisorError')
    assert.match(
      error?.message ?? '',
      /resizeDisk was told to fail; what was begun could not be taken back: sweepVolumes/,
    )
    await agent.kill()
  })
})

test('a change is decided before anything is touched: names, sizes and addresses are checked together', async () => {
  await changing(async (node, uuid) => {
    const before = await node.hypervisor.shapeOf(uuid)
    const refused = (wanted: Parameters<typeof changedShape>[2], why: RegExp) =>
      assert.throws(
        () => changedShape(uuid, before, wanted, randomUUID()),
        (error: HypervisorError) => error.code === 'InvalidArgument' && why.test(error.message),
      )
    refused({ update_disks: [{ disk: 'sda', size_mib: 63 }] }, /cannot shrink/)
    refused({ update_disks: [{ disk: 'sdq', size_mib: 99 }] }, /has no disk sdq: it has sda, sdb/)
    refused({ remove_nics: [mac(9)] }, /has no NIC/)
    refused({ add_nics: [{ mac: mac(1).toUpperCase(), bridge: 'br0' }] }, /has a NIC/)
    refused({ update_nics: [{ mac: mac(1), vlan_id: 3 }], remove_nics: [mac(1)] }, /both removed and changed/)
    const path = `/var/lib/libvirt/images/${uuid}-disk1.qcow2`
    for (const disk of ['sdb', '/dev/sdb', path]) {
      const wanted = changedShape(uuid, before, { remove_disks: [disk] }, randomUUID())
      assert.equal(
        wanted.disks.map(one => targetOf(one.slot)),
        ['sda'],
        disk,
      )
    }
  })
})

test('metadata and tags do not grow without bound, however many updates add to them, and may always shrink', async () => {
  await changing(async (node, uuid) => {
    const before = await node.hypervisor.shapeOf(uuid)
    const half = 'x'.repeat(60 * 1024)
    const changed = (shape: typeof before, wanted: Parameters<typeof changedShape>[2]) =>
      changedShape(uuid, shape, wanted, randomUUID())
    const full = changed(before, { set_customer_metadata: { a: half }, set_tags: { b: half } })
    assert.throws(
      () => changed(full, { set_internal_metadata: { c: half } }),
      (error: HypervisorError) => error.code === 'InvalidArgument' && /more than 131072/.test(error.message),
    )
    const made = { ...full, internal_metadata: { c: half, d: half } }
    assert.equal(changed(made, { remove_internal_metadata: ['c'] }).internal_metadata, { d: half })
    assert.is(changed(made, { memory_mib: 96 }).memory_mib, 96)
  })
})

test('a VM’s record stays small however large the updates are that wait in it', () => {
  const fleet = makeFleet()
  registered(fleet)
  withRunningVm(fleet)
  const remove_disks = Array.from({ length: 30 }, () => 'x'.repeat(4096))
  for (let n = 2; n < 12; n++) {
    const params = { changes: { memory_mib: 96, remove_disks }, ignored: [] }
    fleet.command('vm', VM, 'update', { task_id: taskId(n), params })
    fleet.settle()
  }
  const record = fleet.record('vm', VM)
  assert.is((record.snapshot.context as unknown as VmContext).waiting.length, 9)
  assert.ok(JSON.stringify(record).length < 64 * 1024, `${JSON.stringify(record).length} bytes`)
  const task = fleet.tasks.get(taskId(5))?.params as { changes: { remove_disks: string[] } }
  assert.is(task.changes.remove_disks.length, 30)
})

test('what the node has not is refused by its code, and memory beyond the start’s waits for the next boot', async () => {
  await changing(async (node, uuid) => {
    const agent = await node.agent()
    const update = async (wanted: object) => {
      const task = offer('machine_update', { uuid, changes: { alias: 'x', ...wanted }, ignored: [] })
      await agent.executor.accept(task)
      return node.owner.end(task.id)
    }
    const before = await seen(node, uuid)
    const refusals = {
      InsufficientMemory: { memory_mib: 8192 },
      InsufficientStorage: { add_disks: [{ size_mib: 64 * 1024 * 1024 }] },
      ImageNotInstalled: { add_disks: [{ size_mib: 1, image: 'none' }] },
      NicTagNotFound: { update_nics: [{ mac: mac(1), nic_tag: 'nowhere' }] },
      NetworkNotFound: { add_nics: [{ mac: mac(2), network: 'none' }] },
      InvalidArgument: { remove_disks: ['sdz'] },
    }
    for (const [code, wanted] of Object.entries(refusals)) {
      assert.is((await update(wanted)).error?.code, code)
      assert.equal(await seen(node, uuid), before)
    }
    await node.hypervisor.createSnapshot(uuid, { name: 'kept', taskId: randomUUID() })
    assert.is((await update({ remove_disks: ['sdb'] })).error?.code, 'SnapshotsExist')
    const grown = await update({ memory_mib: 512 })
    assert.equal((grown.result as { applied: object }).applied, { ram: 'next_boot', alias: 'live' })
    assert.is((await seen(node, uuid)).hardware?.memory_mib, 128)
    await agent.kill()
  })
})

test('a NIC that moves keeps what is not named, and a network takes the place of tag and VLAN', () => {
  const nic = { mac: mac(1), nic_tag: 'external', vlan_id: 10, ip: '10.0.0.1' }
  assert.equal(movedNic(nic, { mac: mac(1), vlan_id: 11 }), { ...nic, vlan_id: 11 })
  assert.equal(movedNic(nic, { mac: mac(1), vlan_id: 0 }), { mac: mac(1), nic_tag: 'external', ip: '10.0.0.1' })
  const onNetwork = { mac: mac(1), network: 'net0', ip: '10.0.0.1' }
  assert.equal(movedNic(nic, { mac: mac(1), network: 'net0' }), onNetwork)
  assert.equal(movedNic(onNetwork, { mac: mac(1), nic_tag: 'internal' }), {
    mac: mac(1),
    nic_tag: 'internal',
    ip: '10.0.0.1',
  })
  assert.throws(() => movedNic(onNetwork, { mac: mac(1), vlan_id: 4 }), /name a network/)
})

// The record.

const contextOf = (fleet: Fleet) => fleet.record('vm', VM).snapshot.context as unknown as VmContext
const wanted = { ram: 256, alias: 'after', disks: [{ size_mib: 2048 }], nics: [{ mac: mac(1) }], tags: { a: 1 } }
const running = () => {
  const fleet = makeFleet()
  registered(fleet)
  withRunningVm(fleet)
  return fleet
}
const order = { changes: { memory_mib: 256, set_customer_metadata: { secret: 'x'.repeat(1000) } }, ignored: [] }

test('a record adopts what an update has made of its VM, and nothing of one that failed', () => {
  const fleet = running()
  fleet.command('vm', VM, 'update', { task_id: taskId(2), params: order })
  fleet.settle()
  assert.is(fleet.record('vm', VM).state, 'updating')
  assert.is(fleet.record('vm', VM).status, 'running')
  fail(fleet, taskId(2))
  assert.equal([contextOf(fleet).ram, contextOf(fleet).alias], [128, null])
  fleet.command('vm', VM, 'update', { task_id: taskId(3), params: order })
  fleet.settle()
  complete(fleet, taskId(3), { vm: { uuid: VM, state: 'running' }, wanted, applied: { ram: 'next_boot' } })
  const { ram, alias, disks, nics, tags } = contextOf(fleet)
  assert.equal({ ram, alias, disks, nics, tags }, wanted)
  assert.is(fleet.record('vm', VM).state, 'running')
})

test('an update leaves a stopped VM stopped, also where its agent does not say', () => {
  const fleet = running()
  fleet.command('vm', VM, 'stop', { task_id: taskId(2) })
  fleet.settle()
  complete(fleet, taskId(2), { vm: { uuid: VM, state: 'stopped' } })
  fleet.command('vm', VM, 'update', { task_id: taskId(3), params: order })
  fleet.settle()
  complete(fleet, taskId(3), {})
  assert.is(fleet.record('vm', VM).state, 'stopped')
})

test('metadata goes to the task and is not kept in the record, in flight or waiting', () => {
  const fleet = running()
  fleet.command('vm', VM, 'reboot', {
    task_id: taskId(2),
    params: { update: { set_internal_metadata: { secret: 1 } } },
  })
  for (let n = 0; n < 16; n++) fleet.command('vm', VM, 'update', { task_id: taskId(10 + n), params: order })
  fleet.settle()
  assert.not.match(JSON.stringify(fleet.record('vm', VM).snapshot), /secret/)
  assert.match(JSON.stringify(fleet.tasks.get(taskId(2))?.params), /secret/)
  assert.match(JSON.stringify(fleet.tasks.get(taskId(25))?.params), /secret/)
  complete(fleet, taskId(2), { vm: { uuid: VM, state: 'running' } })
  assert.equal(fleet.offers.at(-1), taskId(10))
  assert.not.match(JSON.stringify(fleet.record('vm', VM).snapshot), /secret/)
})

test('what a task of the node made of a VM is adopted, unless the VM is on another node by now', () => {
  const fleet = running()
  const task = { task: 'machine_update_nics', params: {} }
  fleet.command('cn', SERVER, 'task_add', { task_id: taskId(2), ...task })
  fleet.settle()
  complete(fleet, taskId(2), { vms: [{ uuid: VM, wanted: { nics: [{ mac: mac(2), vlan_id: 21 }] }, applied: {} }] })
  assert.equal(contextOf(fleet).nics, [{ mac: mac(2), vlan_id: 21 }])
  fleet.command('vm', VM, 'adopt', { server_uuid: taskId(9), wanted: { nics: [] } })
  assert.is(contextOf(fleet).nics.length, 1)
})

test('placement counts memory that is being added, and no longer what was taken away', () => {
  const fleet = running()
  const counted = () => fleetVm(fleet.record('vm', VM).state, contextOf(fleet))?.max_physical_memory
  fleet.command('vm', VM, 'update', { task_id: taskId(2), params: order })
  assert.is(counted(), 256)
  fleet.settle()
  fail(fleet, taskId(2))
  assert.is(counted(), 128)
  fleet.command('vm', VM, 'update', { task_id: taskId(3), params: { changes: { memory_mib: 64 } } })
  assert.is(counted(), 128)
  fleet.settle()
  complete(fleet, taskId(3), { vm: { uuid: VM, state: 'running' }, wanted: { ram: 64 } })
  assert.is(counted(), 64)
})

test.run()
