/** What a step of a migration finds on its node, and what may hold after it: preparations and checks of migrate-cases.ts. */
import { randomUUID } from 'node:crypto'
import { createConnection } from 'node:net'
import * as assert from 'uvu/assert'
import type { TaskReport } from '../../actors/contract/messages.ts'
import type { DiskDigest } from '../../actors/contract/migration.ts'
import type { VmSpec } from '../../actors/contract/vm.ts'
import { digestOf, sendDisks } from '../../hypervisor-agent/streams/disks.ts'
import { openReceptions } from '../../hypervisor-agent/streams/receptions.ts'
import { connectStream, openStreams } from '../../hypervisor-agent/streams/streams.ts'
import { vmSpec } from './agent-fixture.ts'
import type { Scene } from './task-suite.ts'

export const migration = randomUUID()
export const another = randomUUID()
export const token = 'a1'.repeat(32)
export const text = 'what must arrive'
export const disks = [{ size_mib: 64 }, { size_mib: 32 }]

export const hypervisorOf = ({ node }: Scene) => node.hypervisor
export const guest = ({ node, spec }: Scene) => node.hypervisor.world.guest(spec.uuid)
export const step = ({ spec }: Scene) => ({ uuid: spec.uuid, migration })
export const gone = async (scene: Scene) => assert.is(guest(scene), undefined)
const codeOf = (call: Promise<unknown>) =>
  call.then(
    () => undefined,
    error => error.code,
  )
const cannotStart = async (scene: Scene) =>
  assert.is(await codeOf(hypervisorOf(scene).startVm(scene.spec.uuid)), 'VmBusy')
export const stateOf = (end: TaskReport) => (end.result as { vm: { state: string } }).vm.state

/** A stopped VM that starts with its node, and was made by another task than this migration. */
export async function defined(scene: Scene, by = another): Promise<void> {
  scene.spec = { ...scene.spec, disks }
  await hypervisorOf(scene).defineVm(scene.spec, { taskId: by })
  hypervisorOf(scene).world.write(scene.spec.uuid, { disk: text })
}
export async function running(scene: Scene, by = another): Promise<void> {
  await defined(scene, by)
  await hypervisorOf(scene).startVm(scene.spec.uuid)
}
export async function held(scene: Scene, by = migration): Promise<void> {
  await defined(scene)
  await hypervisorOf(scene).holdVm(scene.spec.uuid, by)
}

/** An empty VM that this migration made on the node. */
async function incoming(scene: Scene, spec: VmSpec): Promise<void> {
  await hypervisorOf(scene).defineVm({ ...spec, autoboot: false }, { taskId: migration, incoming: true })
}
export const digestsOf = async (scene: Scene, uuid: string): Promise<DiskDigest[]> =>
  Promise.all(disks.map(async (_, n) => digestOf(await hypervisorOf(scene).readDisk(uuid, n), () => {})))

/** What came with the disks of a VM elsewhere, by scene. */
export const arrived = new WeakMap<Scene, DiskDigest[]>()
export async function received(scene: Scene): Promise<void> {
  const from = vmSpec({ disks })
  scene.spec = { ...scene.spec, disks }
  await hypervisorOf(scene).defineVm(from, { taskId: another })
  hypervisorOf(scene).world.write(from.uuid, { disk: text })
  await incoming(scene, scene.spec)
  for (const n of disks.keys()) {
    await hypervisorOf(scene).writeDisk(scene.spec.uuid, n, await hypervisorOf(scene).readDisk(from.uuid, n))
  }
  arrived.set(scene, await digestsOf(scene, from.uuid))
}
export async function arrivedWhole(scene: Scene): Promise<void> {
  await received(scene)
  await hypervisorOf(scene).completeVm(scene.spec.uuid)
}

/** A VM that waits for the disks, and where they are taken for it, by scene. */
const targets = new WeakMap<Scene, { uuid: string; host: string; port: number }>()
export async function expected(scene: Scene): Promise<void> {
  const to = vmSpec({ disks })
  await incoming(scene, to)
  const streams = openStreams({ host: '127.0.0.1', port: 0 })
  scene.closing.push(() => streams.close())
  const receptions = openReceptions(streams, hypervisorOf(scene))
  const { host, port } = await receptions.expect({ uuid: to.uuid, disks: disks.length, token })
  targets.set(scene, { uuid: to.uuid, host, port })
}
export const target = (scene: Scene) => targets.get(scene) as { uuid: string; host: string; port: number }
export const send = (scene: Scene) => {
  const { host, port } = target(scene)
  return { ...step(scene), host, port, token }
}

/** A VM that waits for a guest that comes running. */
export async function expectedLive(scene: Scene): Promise<void> {
  const to = vmSpec({ disks })
  await incoming(scene, to)
  const streams = openStreams({ host: '127.0.0.1', port: 0 })
  scene.closing.push(() => streams.close())
  const wanted = { uuid: to.uuid, disks: disks.length, token }
  targets.set(scene, { uuid: to.uuid, ...(await openReceptions(streams, hypervisorOf(scene)).expectLive(wanted)) })
}

/** A running guest with something in its memory. */
export async function runningWith(scene: Scene, by = another): Promise<void> {
  await running(scene, by)
  hypervisorOf(scene).world.write(scene.spec.uuid, { memory: text })
}

/** It was held and copied to another node, and stands still here. */
export async function departed(scene: Scene): Promise<void> {
  await runningWith(scene)
  await hypervisorOf(scene).holdVm(scene.spec.uuid, migration, { live: true })
  cookies.set(scene, await copied(scene, scene.spec.uuid))
}
const copied = (scene: Scene, uuid: string) =>
  hypervisorOf(scene).performLive(uuid, { cookie: '' }, { signal: new AbortController().signal, progress: () => {} })

/** What came with a guest that ran elsewhere, by scene; there is room for it. */
export const cookies = new WeakMap<Scene, string>()
export async function roomMade(scene: Scene): Promise<void> {
  const from = vmSpec({ disks })
  scene.spec = { ...scene.spec, disks }
  await hypervisorOf(scene).defineVm(from, { taskId: another })
  await hypervisorOf(scene).startVm(from.uuid)
  hypervisorOf(scene).world.write(from.uuid, { disk: text, memory: text })
  await incoming(scene, scene.spec)
  await hypervisorOf(scene).prepareLive(scene.spec.uuid, await hypervisorOf(scene).beginLive(from.uuid))
  cookies.set(scene, await copied(scene, from.uuid))
  await hypervisorOf(scene).removeVm(from.uuid)
}

/** Streams the disks of a VM elsewhere to where they are taken. */
export async function filled(scene: Scene, stream: { host: string; port: number }): Promise<void> {
  const from = vmSpec({ disks })
  await hypervisorOf(scene).defineVm(from, { taskId: another })
  hypervisorOf(scene).world.write(from.uuid, { disk: text })
  const socket = await connectStream({ ...stream, token }, createConnection, new AbortController().signal)
  const sources = disks.map((_, n) => () => hypervisorOf(scene).readDisk(from.uuid, n))
  await sendDisks(socket, sources, () => {})
}

/** Whole, the node's own, stopped, and free to be started. */
export const isWhole = async (scene: Scene, end: TaskReport) => {
  assert.equal([guest(scene)?.incoming, guest(scene)?.state, stateOf(end)], [false, 'stopped', 'stopped'])
  assert.is(hypervisorOf(scene).world.content(scene.spec.uuid).disk, text)
  await hypervisorOf(scene).startVm(scene.spec.uuid)
}
export const isNotWhole = async (scene: Scene) => {
  assert.is(guest(scene)?.incoming, true)
  await cannotStart(scene)
}
export const isHeldBy = (by: string) => async (scene: Scene) => {
  assert.equal([guest(scene)?.held, guest(scene)?.state], [{ by, autoboot: true }, 'stopped'])
  assert.is(hypervisorOf(scene).world.content(scene.spec.uuid).disk, text)
  await cannotStart(scene)
}
export const runsOn = async (scene: Scene) => {
  assert.equal([guest(scene)?.state, guest(scene)?.boots, guest(scene)?.held ?? null], ['running', 1, null])
  assert.is(hypervisorOf(scene).world.content(scene.spec.uuid).disk, text)
}
/** The same boot, with what its memory held. */
export const runsOnUnnoticed = async (scene: Scene) => {
  await runsOn(scene)
  assert.is(hypervisorOf(scene).world.content(scene.spec.uuid).memory, text)
}
/** Held by this migration, and standing still. */
export const hasDeparted = async (scene: Scene) => {
  assert.equal([guest(scene)?.held?.by, guest(scene)?.state], [migration, 'stopped'])
  assert.ok(guest(scene)?.departed)
  await cannotStart(scene)
}
export const isStopped = async (scene: Scene) =>
  assert.equal([guest(scene)?.state, guest(scene)?.boots], ['stopped', 0])
