/**
 * A VM of libvirt is never half changed: whichever call of an update or a reprovision fails on the test driver, before or after its
 * effect, the VM is whole as it was or whole as it was wanted, and the pool holds its disks and no others.
 */
import { randomUUID } from 'node:crypto'
import { Hypervisor as Libvirt } from 'node-libvirt'
import * as assert from 'uvu/assert'
import type { Hypervisor } from '../../hypervisor-agent/hypervisor.ts'
import { libvirtHypervisor } from '../../hypervisor-agent/libvirt/libvirt.ts'
import { libvirtdMissing, PrivateLibvirtd } from '../../hypervisor-agent/node-libvirt/test/private-libvirtd.ts'
import { suite } from '../suite.ts'
import { type Node, offer, simulatedNode, vmSpec } from '../unit/agent-fixture.ts'
import { failingAt } from '../unit/failing-calls.ts'

const test = suite('vm changes on libvirt')
const missing = libvirtdMissing()
const uri = 'test:///default'
const daemon = new PrivateLibvirtd()
let keeper: Libvirt
let hypervisor: Hypervisor
let node: Node

test.before(async () => {
  if (missing) return
  await daemon.start()
  // The test driver forgets everything with its last connection.
  keeper = await Libvirt.connect({ uri, socketPath: daemon.socketPath })
  const folder = '/no/such/folder'
  const pool = await keeper.defineStoragePool(
    `<pool type="dir"><name>muster</name><target><path>${folder}</path></target></pool>`,
  )
  await pool.create()
  for (const name of ['debian-12', 'debian-13']) {
    await pool.createVolume(
      `<volume><name>${name}</name><capacity unit="MiB">32</capacity><target><format type="qcow2"/></target></volume>`,
    )
  }
  hypervisor = libvirtHypervisor({
    uri,
    socketPath: daemon.socketPath,
    domainType: 'test',
    pool: 'muster',
    poolPath: folder,
    consoleFolder: '/no/such/consoles',
    nicTags: { external: 'br0' },
    openvswitch: { bridges: async () => ['br0'], version: async () => undefined, ports: async () => ({}) },
  })
  await hypervisor.open()
  node = await simulatedNode()
})
test.after(async () => {
  if (missing) return
  await node?.remove()
  await hypervisor?.close()
  await keeper?.close()
  await daemon.remove()
})

const mac = (n: number) => `52:54:00:00:00:0${n}`
const changes = {
  memory_mib: 96,
  alias: 'after',
  add_disks: [{ size_mib: 16 }],
  remove_disks: ['sdb'],
  add_nics: [{ mac: mac(3), nic_tag: 'external' }],
  update_nics: [{ mac: mac(1), vlan_id: 20 }],
}
const tasks = {
  machine_update: { changes, ignored: [] },
  machine_reprovision: { image_uuid: 'debian-13' },
} as const

async function volumesOf(uuid: string): Promise<string[]> {
  const pool = await keeper.lookupStoragePoolByName('muster')
  return (await pool.listVolumes())
    .map(volume => volume.name)
    .filter(name => name.startsWith(uuid))
    .sort()
}

/** Runs the task with its n-th call failing; false where it makes fewer. */
async function failsAt(task: keyof typeof tasks, when: 'before' | 'after', nth: number): Promise<boolean> {
  let failed = ''
  const spec = vmSpec({
    disks: [{ size_mib: 64, image: 'debian-12' }, { size_mib: 32 }],
    nics: [{ mac: mac(1), nic_tag: 'external', vlan_id: 10 }],
    alias: 'before',
  })
  const { uuid } = spec
  await hypervisor.defineVm(spec, { taskId: randomUUID() })
  await hypervisor.startVm(uuid)
  const before = await hypervisor.shapeOf(uuid)
  const reached = (name: string) => {
    failed = `${when} ${name}`
  }
  const agent = await node.agent({ through: () => failingAt(when, nth, reached)(hypervisor) })
  const wanted = offer(task, { uuid, ...tasks[task] })
  await agent.executor.accept(wanted)
  const end = await node.owner.end(wanted.id)
  await agent.kill()
  const after = await hypervisor.shapeOf(uuid)
  if (end.status === 'failure') assert.equal(after, before, `${failed}: as it was`)
  else assert.not.equal(after, before, `${failed}: as wanted`)
  const state = (await hypervisor.listVms()).find(vm => vm.uuid === uuid)?.state
  assert.is(state, 'running', `${failed}: it runs`)
  // The test driver takes no disk from a running guest: one that was removed goes when the guest has let go of it.
  await hypervisor.powerOff(uuid, { graceful: false })
  if (end.status === 'complete') await hypervisor.sweepVolumes(uuid)
  const disks = after.disks.map(disk => disk.volume).sort()
  assert.equal(await volumesOf(uuid), disks, `${failed}: no other volumes`)
  await hypervisor.removeVm(uuid)
  assert.equal(await volumesOf(uuid), [], 'it takes all of its volumes with it')
  return failed !== ''
}

for (const task of Object.keys(tasks) as (keyof typeof tasks)[]) {
  const claim = `${task} that fails at any call leaves the VM whole and the pool without leftovers`
  if (missing) test.skip(claim, missing)
  else
    test(
      claim,
      async () => {
        for (const when of ['before', 'after'] as const) {
          let nth = 1
          while (await failsAt(task, when, nth)) nth += 1
          assert.ok(nth > 4, `it failed ${nth - 1} times`)
        }
      },
      { limitMs: 60_000 },
    )
}

const overlaid = 'a volume under an overlay that somebody else made is not swept, and goes when its disk does'
if (missing) test.skip(overlaid, missing)
else
  test(overlaid, async () => {
    const spec = vmSpec({ disks: [{ size_mib: 64 }, { size_mib: 32 }] })
    const { uuid } = spec
    await hypervisor.defineVm(spec, { taskId: randomUUID() })
    const before = await volumesOf(uuid)
    const domain = await keeper.lookupDomainByUuid(uuid)
    const definition = await domain.getXml({ inactive: true })
    await keeper.defineDomain(definition.replace(`${uuid}-disk0.qcow2`, `${uuid}-disk0.backup`))
    const agent = await node.agent({ through: () => hypervisor })
    const wanted = offer('machine_update', { uuid, changes: { alias: 'x', remove_disks: ['sdb'] }, ignored: [] })
    await agent.executor.accept(wanted)
    assert.is((await node.owner.end(wanted.id)).status, 'complete')
    await agent.kill()
    assert.equal(await volumesOf(uuid), before.slice(0, 1), 'that of the other disk is gone')
    await hypervisor.removeVm(uuid)
    assert.equal(await volumesOf(uuid), [])
  })

test.run()
