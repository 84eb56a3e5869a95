/** Cases of the task that makes images, for the suite of all tasks: with every fault the VM is as it was and nothing is left. */
import { randomUUID } from 'node:crypto'
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import type { TaskReport } from '../../actors/contract/messages.ts'
import type { Case, Scene } from './task-suite.ts'

const name = 'made-here'
const worldOf = ({ node }: Scene) => node.hypervisor.world
const contentOf = (scene: Scene) => worldOf(scene).content(scene.spec.uuid)
const guestOf = (scene: Scene) => worldOf(scene).guest(scene.spec.uuid)
const imagesOf = ({ node }: Scene) => node.hypervisor.listImages()

async function stopped(scene: Scene): Promise<void> {
  worldOf(scene).addImage('base', 16)
  scene.spec = { ...scene.spec, disks: [{ size_mib: 64, image: 'base' }] }
  await scene.node.hypervisor.defineVm(scene.spec, { taskId: randomUUID() })
  worldOf(scene).write(scene.spec.uuid, { disk: 'installed' })
}
async function running(scene: Scene): Promise<void> {
  await stopped(scene)
  await scene.node.hypervisor.startVm(scene.spec.uuid)
  worldOf(scene).write(scene.spec.uuid, { memory: 'counted to 7' })
}
async function withAgent(scene: Scene): Promise<void> {
  worldOf(scene).setGuestAgent(scene.spec.uuid, true)
}

const order = (more: object) => (scene: Scene) => ({
  uuid: scene.spec.uuid,
  manifest: { uuid: name, name: 'web', version: '1.0' },
  ...more,
})

/** What the image holds, and that nothing else of its making is left. */
async function made(scene: Scene, end: TaskReport, disk: string, origin: string | null): Promise<void> {
  const { node } = scene
  const found = (await imagesOf(scene)).find(image => image.name === name)
  assert.ok(found, 'the image is in the pool')
  const pieces: Uint8Array[] = []
  for await (const piece of await node.hypervisor.readImage(name)) pieces.push(piece)
  assert.equal(JSON.parse(Buffer.concat(pieces).toString()), { content: disk, origin })
  const { image } = end.result as { image: { uuid: string; origin?: string; files: { size: number; sha1: string }[] } }
  assert.equal([image.uuid, image.origin ?? null], [name, origin])
  assert.match(image.files[0]?.sha1 ?? '', /^[0-9a-f]{40}$/)
  await nothingLeft(scene)
}

async function nothingLeft(scene: Scene): Promise<void> {
  assert.equal(await scene.node.hypervisor.listSnapshots(scene.spec.uuid), [])
  const parts = join(scene.node.stateDir, 'image-parts')
  assert.equal(existsSync(parts) ? readdirSync(parts) : [], [])
}

async function none(scene: Scene): Promise<void> {
  assert.not.ok((await imagesOf(scene)).some(image => image.name === name))
  assert.not.ok(existsSync(join(scene.node.stateDir, 'images', `${name}.json`)))
  await nothingLeft(scene)
}

export const IMAGE_CASES: Case[] = [
  {
    task: 'machine_create_image',
    name: 'makes a whole image of a stopped VM and leaves it stopped',
    prepare: stopped,
    params: order({}),
    check: async (scene, end) => {
      await made(scene, end, 'installed', null)
      assert.is(guestOf(scene)?.state, 'stopped')
    },
  },
  {
    task: 'machine_create_image',
    name: 'makes an incremental image that keeps the one it stands on',
    prepare: stopped,
    params: order({ incremental: true }),
    check: async (scene, end) => {
      await made(scene, end, 'installed', 'base')
      const base = (await imagesOf(scene)).find(image => image.name === 'base')
      assert.ok(base?.used_by.includes(name))
    },
  },
  {
    task: 'machine_create_image',
    name: 'with a script prepares a running VM, which then goes on with its memory',
    prepare: async scene => {
      await running(scene)
      await withAgent(scene)
    },
    params: order({ prepare_image_script: 'rm keys' }),
    check: async (scene, end) => {
      await made(scene, end, 'installed+rm keys', null)
      assert.is(guestOf(scene)?.state, 'running')
      assert.equal(contentOf(scene), { disk: 'installed', memory: 'counted to 7' })
    },
  },
  {
    task: 'machine_create_image',
    name: 'with a script boots a stopped VM, which then is stopped as it was',
    prepare: async scene => {
      await stopped(scene)
      await withAgent(scene)
    },
    params: order({ prepare_image_script: 'rm keys' }),
    check: async (scene, end) => {
      await made(scene, end, 'installed+rm keys', null)
      assert.is(guestOf(scene)?.state, 'stopped')
      assert.is(contentOf(scene).disk, 'installed')
    },
  },
  {
    task: 'machine_create_image',
    name: 'without a guest agent that comes up says so, and the VM is as it was',
    prepare: stopped,
    params: order({ prepare_image_script: 'rm keys' }),
    failure: 'GuestAgentNotConnected',
    check: async scene => {
      await none(scene)
      assert.is(guestOf(scene)?.state, 'stopped')
      assert.is(contentOf(scene).disk, 'installed')
    },
  },
  {
    task: 'machine_create_image',
    name: 'with a script that fails leaves no image, and the VM runs on as it was',
    prepare: async scene => {
      await running(scene)
      await withAgent(scene)
    },
    params: order({ prepare_image_script: 'exit 3' }),
    failure: 'PrepareScriptFailed',
    check: async scene => {
      await none(scene)
      assert.is(guestOf(scene)?.state, 'running')
      assert.equal(contentOf(scene), { disk: 'installed', memory: 'counted to 7' })
    },
  },
  {
    task: 'machine_create_image',
    name: 'whose copy fails leaves no image and brings a prepared VM back',
    prepare: async scene => {
      await running(scene)
      await withAgent(scene)
      scene.node.hypervisor.faults.add({ call: 'captureImage', when: 'after', fail: 'InsufficientStorage' })
    },
    params: order({ prepare_image_script: 'rm keys' }),
    failure: 'InsufficientStorage',
    check: async scene => {
      await none(scene)
      assert.equal(contentOf(scene), { disk: 'installed', memory: 'counted to 7' })
    },
  },
  {
    task: 'machine_create_image',
    name: 'that fails and cannot be removed, because a VM stands on it, brings a prepared VM back all the same',
    prepare: async scene => {
      await running(scene)
      await withAgent(scene)
      scene.node.hypervisor.faults.add({ call: 'captureImage', when: 'after', fail: 'HypervisorError' })
      scene.node.hypervisor.faults.add({ call: 'removeImage', when: 'before', fail: 'ImageInUse' })
    },
    params: order({ prepare_image_script: 'rm keys' }),
    failure: 'HypervisorError',
    check: async scene => {
      await nothingLeft(scene)
      assert.is(guestOf(scene)?.state, 'running')
      assert.equal(contentOf(scene), { disk: 'installed', memory: 'counted to 7' })
    },
  },
  {
    task: 'machine_create_image',
    name: 'for a service that cannot be reached leaves no image',
    prepare: stopped,
    params: order({ imgapi_url: 'http://127.0.0.1:1', compression: 'gzip' }),
    failure: 'ImageServiceFailed',
    check: none,
  },
  {
    task: 'machine_create_image',
    name: 'of a running VM without a script is refused',
    prepare: running,
    params: order({}),
    failure: 'VmNotStopped',
    check: async scene => {
      await none(scene)
      assert.is(guestOf(scene)?.boots, 1)
    },
  },
  {
    task: 'machine_create_image',
    name: 'under the name of an image that exists leaves that one alone',
    prepare: async scene => {
      await stopped(scene)
      await scene.node.hypervisor.captureImage(scene.spec.uuid, { name })
    },
    params: order({}),
    failure: 'ImageExists',
    check: async scene => assert.ok((await imagesOf(scene)).some(image => image.name === name)),
  },
  {
    task: 'machine_create_image',
    name: 'that is to be incremental needs a disk that was made from an image',
    prepare: async ({ node, spec }) => node.hypervisor.defineVm(spec, { taskId: randomUUID() }),
    params: order({ incremental: true }),
    failure: 'ImageHasNoOrigin',
    check: none,
  },
]
