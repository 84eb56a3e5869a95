/** Cases of the snapshot tasks for the suite of all tasks: what is on disk and in memory is looked at each time. */
import { randomUUID } from 'node:crypto'
import * as assert from 'uvu/assert'
import { SNAPSHOTS_MAX } from '../../actors/contract/snapshot.ts'
import type { Case, Scene } from './task-suite.ts'

const name = 'before-upgrade'
const params = ({ spec }: Scene) => ({ uuid: spec.uuid, snapshot_name: name })
const worldOf = ({ node }: Scene) => node.hypervisor.world
const contentOf = (scene: Scene) => worldOf(scene).content(scene.spec.uuid)
const stateOf = (scene: Scene) => worldOf(scene).guest(scene.spec.uuid)?.state
const namesOf = async ({ node, spec }: Scene) =>
  (await node.hypervisor.listSnapshots(spec.uuid)).map(snapshot => snapshot.name)

async function defined(scene: Scene): Promise<void> {
  await scene.node.hypervisor.defineVm(scene.spec, { taskId: randomUUID() })
  worldOf(scene).write(scene.spec.uuid, { disk: 'old' })
}
async function running(scene: Scene): Promise<void> {
  await defined(scene)
  await scene.node.hypervisor.startVm(scene.spec.uuid)
  worldOf(scene).write(scene.spec.uuid, { memory: 'counted to 7' })
}
const taken = async ({ node, spec }: Scene, called = name) =>
  node.hypervisor.createSnapshot(spec.uuid, { name: called, taskId: randomUUID() })

export const SNAPSHOT_CASES: Case[] = [
  {
    task: 'machine_create_snapshot',
    name: 'of a running VM keeps its memory and lets it run on',
    prepare: running,
    params,
    check: async (scene, end) => {
      const [kept, ...more] = await scene.node.hypervisor.listSnapshots(scene.spec.uuid)
      assert.equal([kept?.name, kept?.state, kept?.memory, more.length], [name, 'running', true, 0])
      assert.is((end.result as { snapshot_name: string }).snapshot_name, name)
      assert.is(stateOf(scene), 'running')
      assert.equal(contentOf(scene), { disk: 'old', memory: 'counted to 7' })
    },
  },
  {
    task: 'machine_create_snapshot',
    name: 'of a stopped VM leaves it stopped',
    prepare: defined,
    params,
    check: async scene => {
      assert.equal(await namesOf(scene), [name])
      assert.is(stateOf(scene), 'stopped')
    },
  },
  {
    task: 'machine_create_snapshot',
    name: 'under a name in use fails and leaves that snapshot alone',
    prepare: async scene => {
      await running(scene)
      await taken(scene)
    },
    params,
    failure: 'SnapshotExists',
    check: async scene => assert.equal(await namesOf(scene), [name]),
  },
  {
    task: 'machine_create_snapshot',
    name: 'beyond the most a VM may have fails',
    prepare: async scene => {
      await defined(scene)
      for (let n = 0; n < SNAPSHOTS_MAX; n++) await taken(scene, `s${n}`)
    },
    params,
    failure: 'TooManySnapshots',
    check: async scene => assert.is((await namesOf(scene)).length, SNAPSHOTS_MAX),
  },
  {
    task: 'machine_create_snapshot',
    name: 'that the hypervisor refuses leaves the VM as it was, without a snapshot',
    prepare: async scene => {
      await running(scene)
      scene.node.hypervisor.faults.add({ call: 'createSnapshot', when: 'after', fail: 'HypervisorError' })
    },
    params,
    failure: 'HypervisorError',
    check: async scene => {
      assert.equal(await namesOf(scene), [])
      assert.is(stateOf(scene), 'running')
      assert.equal(contentOf(scene), { disk: 'old', memory: 'counted to 7' })
    },
  },
  {
    task: 'machine_create_snapshot',
    name: 'of a VM that is not there fails',
    params,
    failure: 'VmNotFound',
    check: async (_, end) => assert.is((end.result as { vm: null }).vm, null),
  },
  {
    task: 'machine_rollback_snapshot',
    name: 'to a running VM brings back disk and memory, from whatever it does now',
    prepare: async scene => {
      await running(scene)
      await taken(scene)
      worldOf(scene).write(scene.spec.uuid, { disk: 'new', memory: 'counted to 99' })
      await scene.node.hypervisor.powerOff(scene.spec.uuid, { graceful: false })
    },
    params,
    check: async (scene, end) => {
      assert.equal(contentOf(scene), { disk: 'old', memory: 'counted to 7' })
      assert.is(stateOf(scene), 'running')
      const { vm, wanted } = end.result as { vm: { state: string }; wanted: { ram: number } }
      assert.equal([vm.state, wanted.ram], ['running', scene.spec.memory_mib])
      assert.equal(await namesOf(scene), [name])
    },
  },
  {
    task: 'machine_rollback_snapshot',
    name: 'to a stopped VM leaves it stopped',
    prepare: async scene => {
      await defined(scene)
      await taken(scene)
      await scene.node.hypervisor.startVm(scene.spec.uuid)
      worldOf(scene).write(scene.spec.uuid, { disk: 'new' })
    },
    params,
    check: async scene => {
      assert.is(contentOf(scene).disk, 'old')
      assert.is(stateOf(scene), 'stopped')
    },
  },
  {
    task: 'machine_rollback_snapshot',
    name: 'to a snapshot that is not there fails and changes nothing',
    prepare: running,
    params,
    failure: 'SnapshotNotFound',
    check: async scene => assert.equal(contentOf(scene), { disk: 'old', memory: 'counted to 7' }),
  },
  {
    task: 'machine_delete_snapshot',
    name: 'deletes it and leaves the VM running',
    prepare: async scene => {
      await running(scene)
      await taken(scene, 'other')
      await taken(scene)
    },
    params,
    check: async scene => {
      assert.equal(await namesOf(scene), ['other'])
      assert.is(stateOf(scene), 'running')
    },
  },
  {
    task: 'machine_delete_snapshot',
    name: 'of a snapshot that is not there is success',
    prepare: defined,
    params,
    check: async scene => assert.equal(await namesOf(scene), []),
  },
]
