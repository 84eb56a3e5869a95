/**
 * The tasks about snapshots and images on libvirt's test driver behind a private unprivileged libvirtd: they survive a crash of the agent at each
 * of their calls, and leave nothing that was not there. Its volumes have no bytes, so an image ends as a failure there: with nothing left.
 */
import { randomUUID } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { Hypervisor as Libvirt } from 'node-libvirt'
import * as assert from 'uvu/assert'
import type { TaskName } from '../../actors/contract/task.ts'
import type { Hypervisor } from '../../hypervisor-agent/hypervisor.ts'
import { libvirtHypervisor } from '../../hypervisor-agent/libvirt/libvirt.ts'
import { libvirtdMissing, PrivateLibvirtd } from '../../hypervisor-agent/node-libvirt/test/private-libvirtd.ts'
import { eventually } from '../eventually.ts'
import { suite } from '../suite.ts'
import { offer, simulatedNode, vmSpec } from '../unit/agent-fixture.ts'

const test = suite('keeping VMs on libvirt’s test driver')
const missing = libvirtdMissing()
const pool = 'muster'
const name = 'kept'

interface Case {
  task: TaskName
  claim: string
  params: object
  prepare?: (uuid: string) => Promise<void>
  failure?: string
  check: (uuid: string) => Promise<void>
}

const daemon = new PrivateLibvirtd()
let keeper: Libvirt
let hypervisor: Hypervisor

const snapshots = async (uuid: string) => (await hypervisor.listSnapshots(uuid)).map(one => one.name)
const state = async (uuid: string) => (await hypervisor.listVms()).find(vm => vm.uuid === uuid)?.state
const take = (uuid: string, called: string) => hypervisor.createSnapshot(uuid, { name: called, taskId: randomUUID() })
const volumes = async () =>
  (await (await keeper.lookupStoragePoolByName(pool)).listVolumes()).map(volume => volume.name)

const cases: Case[] = [
  {
    task: 'machine_create_snapshot',
    claim: 'a snapshot is taken once and the VM runs on',
    params: { snapshot_name: name },
    check: async uuid => {
      assert.equal(await snapshots(uuid), [name])
      assert.is(await state(uuid), 'running')
    },
  },
  {
    task: 'machine_create_snapshot',
    claim:
      'what an agent told libvirt before it died, to remove what the disks may hold, is no snapshot and in nobody’s way',
    params: { snapshot_name: name },
    prepare: async uuid => {
      const domain = await keeper.lookupDomainByUuid(uuid)
      const told = `<name>${name}</name><state>shutoff</state><creationTime>0</creationTime>`
      const definition = await domain.getXml({ inactive: true })
      await domain.createSnapshot(`<domainsnapshot>${told}${definition}</domainsnapshot>`, { redefine: true })
      assert.equal(await snapshots(uuid), [])
    },
    check: async uuid => {
      assert.equal(await snapshots(uuid), [name])
      assert.is(await state(uuid), 'running')
    },
  },
  {
    task: 'machine_create_snapshot',
    claim: 'a snapshot under a name in use leaves that one',
    params: { snapshot_name: name },
    prepare: uuid => take(uuid, name),
    failure: 'SnapshotExists',
    check: async uuid => assert.equal(await snapshots(uuid), [name]),
  },
  {
    task: 'machine_rollback_snapshot',
    claim: 'a rollback ends running, with every snapshot still there',
    params: { snapshot_name: name },
    prepare: async uuid => {
      await take(uuid, name)
      await take(uuid, 'later')
      await hypervisor.powerOff(uuid, { graceful: false })
    },
    check: async uuid => {
      assert.is(await state(uuid), 'running')
      assert.equal((await snapshots(uuid)).sort(), [name, 'later'])
    },
  },
  {
    task: 'machine_delete_snapshot',
    claim: 'a snapshot is deleted and the others stay',
    params: { snapshot_name: name },
    prepare: async uuid => {
      await take(uuid, name)
      await take(uuid, 'later')
    },
    check: async uuid => assert.equal(await snapshots(uuid), ['later']),
  },
  {
    task: 'machine_create_image',
    claim: 'an image whose bytes cannot be read leaves no volume, no mark and no file',
    params: { manifest: { uuid: 'made-here' } },
    prepare: uuid => hypervisor.powerOff(uuid, { graceful: false }),
    failure: 'HypervisorError',
    check: async uuid => {
      assert.equal(
        (await volumes()).filter(volume => volume.includes('made-here')),
        [],
      )
      assert.is(await state(uuid), 'stopped')
    },
  },
  {
    task: 'machine_create_image',
    claim: 'a script for a running VM without a guest agent is refused, and the VM runs on',
    params: { manifest: { uuid: 'made-here' }, prepare_image_script: 'true' },
    failure: 'GuestAgentNotConnected',
    check: async uuid => {
      assert.is(await state(uuid), 'running')
      assert.equal(await snapshots(uuid), [])
    },
  },
]

const forgetful = 'what is known of a VM survives an agent that dies while libvirt brings the VM back'

if (missing) {
  for (const { task, claim } of cases) test.skip(`${task}: ${claim}`, missing)
  test.skip(forgetful, missing)
} else {
  test.before(async () => {
    await daemon.start()
    const { socketPath } = daemon
    const uri = 'test:///default'
    // The test driver forgets everything with its last connection.
    keeper = await Libvirt.connect({ uri, socketPath })
    const made = await keeper.defineStoragePool(
      `<pool type="dir"><name>${pool}</name><target><path>/no/such/folder</path></target></pool>`,
    )
    await made.create()
    hypervisor = libvirtHypervisor({
      ...{ uri, socketPath, domainType: 'test', pool, poolPath: '/no/such/folder', consoleFolder: '/no/such/consoles' },
      nicTags: { external: 'br0' },
      openvswitch: { bridges: async () => ['br0'], ports: async () => ({}), version: async () => '3.1.0' },
    })
    await hypervisor.open()
  })
  test.after(async () => {
    await hypervisor?.close()
    await keeper?.close()
    await daemon.remove()
  })
  for (const one of cases) {
    test(
      `${one.task}: ${one.claim}, whenever its agent dies`,
      async () => {
        assert.is(await crashed(one, 'before', Number.POSITIVE_INFINITY), false)
        for (const when of ['before', 'after'] as const) {
          let call = 1
          while (await crashed(one, when, call)) call += 1
          assert.ok(call > 1, 'it was interrupted')
        }
      },
      { limitMs: 60_000 },
    )
  }
  test(forgetful, dyingInTheMiddle, { limitMs: 60_000 })
}

/** The definition of then has come back, its metadata with it, and nobody has written yet what is known now. */
async function dyingInTheMiddle(): Promise<void> {
  const node = await simulatedNode()
  const spec = vmSpec({ alias: 'old' })
  const { uuid } = spec
  try {
    for (const isTaken of [true, false]) {
      await hypervisor.defineVm(spec, { taskId: randomUUID() })
      await take(uuid, name)
      const then = await hypervisor.shapeOf(uuid)
      const now = { ...then, memory_mib: then.memory_mib + 32, alias: 'new', customer_metadata: { key: 'value' } }
      await hypervisor.reshapeVm(uuid, { ...now, tags: { role: 'web' } }, { parts: [] })
      const wanted = offer('machine_rollback_snapshot', { uuid, snapshot_name: name })
      let isReached = false
      const rollbackSnapshot = async () => {
        await (await (await keeper.lookupDomainByUuid(uuid)).lookupSnapshot(name)).revert()
        isReached = true
        return new Promise<never>(() => {})
      }
      const first = await node.agent({ through: () => Object.assign(Object.create(hypervisor), { rollbackSnapshot }) })
      await first.executor.accept(wanted)
      await eventually(() => isReached, { what: 'the rollback', everyMs: 2 })
      await first.kill()
      // Taken up again, or ended by its owner meanwhile: then it is taken back.
      if (!isTaken) node.owner.answer = () => ({ go: false })
      const second = await node.agent({ through: () => hypervisor })
      second.executor.resume()
      if (isTaken) await node.owner.end(wanted.id)
      const known = async () => {
        const { memory_mib, alias, tags, customer_metadata } = await hypervisor.shapeOf(uuid)
        return JSON.stringify([memory_mib, alias, tags, customer_metadata])
      }
      const expected = JSON.stringify([then.memory_mib, 'new', { role: 'web' }, { key: 'value' }])
      await eventually(async () => (await known()) === expected, { what: `${await known()} becoming ${expected}` })
      await second.kill()
      await hypervisor.removeVm(uuid)
      node.owner.answer = () => ({ go: true })
    }
  } finally {
    await hypervisor.removeVm(uuid)
    await node.remove()
  }
}

/** Runs a task on a fresh VM with an agent that dies at its nth call, and another that goes on. False if there is no such call. */
async function crashed(one: Case, when: 'before' | 'after', nth: number): Promise<boolean> {
  const node = await simulatedNode()
  const spec = vmSpec()
  const { uuid } = spec
  try {
    await hypervisor.defineVm(spec, { taskId: randomUUID() })
    await hypervisor.startVm(uuid)
    await one.prepare?.(uuid)
    const wanted = offer(one.task, { uuid, ...one.params })
    let isReached = false
    const through = () =>
      dyingAt(when, nth, () => {
        isReached = true
      })
    const first = await node.agent({ through })
    await first.executor.accept(wanted)
    await eventually(() => isReached || node.owner.ends(wanted.id).length > 0, {
      what: 'the crash or the end',
      everyMs: 2,
    })
    await first.kill()
    const second = isReached ? await node.agent({ through: () => hypervisor }) : undefined
    second?.executor.resume()
    const end = await node.owner.end(wanted.id)
    assert.equal(
      [end.status, end.error?.code],
      [one.failure ? 'failure' : 'complete', one.failure],
      JSON.stringify(end),
    )
    await one.check(uuid)
    assert.equal(readdirSync(join(node.stateDir, 'image-parts')), [])
    await second?.kill()
    return isReached
  } finally {
    await hypervisor.removeVm(uuid)
    await node.remove()
  }
}

/** libvirt's hypervisor, whose nth call never answers. */
function dyingAt(when: 'before' | 'after', nth: number, reached: () => void): Hypervisor {
  let calls = 0
  return new Proxy(hypervisor, {
    get: (target, key, receiver) => {
      const member: unknown = Reflect.get(target, key, receiver)
      if (typeof member !== 'function' || key === 'onChange') return member
      return async (...args: unknown[]) => {
        calls += 1
        if (calls !== nth) return Reflect.apply(member, target, args)
        if (when === 'after') await Promise.resolve(Reflect.apply(member, target, args)).catch(() => {})
        reached()
        return new Promise<never>(() => {})
      }
    },
  })
}

test.run()
