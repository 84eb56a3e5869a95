/** The part of the conformance suite about keeping VMs, as snapshots and as images: what every hypervisor says, whatever is in its guests. */
import { randomUUID } from 'node:crypto'
import * as assert from 'uvu/assert'
import * as v from 'valibot'
import type { ErrorCode } from '../../actors/contract/errors.ts'
import { VmSnapshot } from '../../actors/contract/snapshot.ts'
import type { VmSpec } from '../../actors/contract/vm.ts'
import type { Hypervisor, HypervisorError } from '../../hypervisor-agent/hypervisor.ts'
import type { Suite } from '../suite.ts'

export interface SnapshotSubject {
  test: Suite
  limit: { limitMs: number }
  hypervisor(): Hypervisor
  define(more?: { alias?: string; disks?: VmSpec['disks'] }): Promise<VmSpec>
  becomes(uuid: string, state: string): Promise<unknown>
  refuses(code: ErrorCode, call: Promise<unknown>): Promise<HypervisorError>
}

export function snapshotClaims({ test, limit, hypervisor, define, becomes, refuses }: SnapshotSubject): void {
  const take = (uuid: string, name: string, taskId: string = randomUUID()) =>
    hypervisor().createSnapshot(uuid, { name, taskId })
  const list = (uuid: string) => hypervisor().listSnapshots(uuid)
  const vm = async (uuid: string) => (await hypervisor().listVms()).find(one => one.uuid === uuid)

  test(
    'a snapshot of a stopped VM is listed with what it is, and the VM stays stopped',
    async () => {
      const { uuid } = await define()
      assert.equal(await list(uuid), [])
      const taskId = randomUUID()
      const before = Date.now()
      await take(uuid, 'first', taskId)
      const [first, ...more] = await list(uuid)
      assert.equal(more, [])
      v.parse(VmSnapshot, first)
      const { created_at, size_bytes, ...rest } = first ?? {}
      const expected = { name: 'first', state: 'stopped', memory: false, parent: null, current: true }
      assert.equal(rest, { ...expected, created_by: taskId })
      assert.ok(Math.abs(Date.parse(created_at ?? '') - before) < 60_000, `made at ${created_at}`)
      assert.ok((size_bytes ?? -1) >= 0, `its size is ${size_bytes}`)
      assert.is((await vm(uuid))?.state, 'stopped')
      await hypervisor().removeVm(uuid)
    },
    limit,
  )

  test(
    'a snapshot by the same task is taken once, by another one its name is in use',
    async () => {
      const { uuid } = await define()
      const taskId = randomUUID()
      await take(uuid, 'one', taskId)
      await take(uuid, 'one', taskId)
      assert.is((await list(uuid)).length, 1)
      await refuses('SnapshotExists', take(uuid, 'one'))
      assert.is((await list(uuid))[0]?.created_by, taskId)
      await hypervisor().removeVm(uuid)
    },
    limit,
  )

  test(
    'a running VM runs on with its snapshot, and comes back running from stopped, as the same VM',
    async () => {
      const { uuid } = await define({ alias: 'kept' })
      await hypervisor().startVm(uuid)
      await becomes(uuid, 'running')
      await take(uuid, 'running')
      assert.is((await vm(uuid))?.state, 'running')
      const [kept] = await list(uuid)
      assert.equal([kept?.state, kept?.memory], ['running', true])
      const made = (await vm(uuid))?.created_by
      await hypervisor().rollbackSnapshot(uuid, 'running')
      await becomes(uuid, 'running')
      await hypervisor().powerOff(uuid, { graceful: false })
      await becomes(uuid, 'stopped')
      await hypervisor().rollbackSnapshot(uuid, 'running')
      await becomes(uuid, 'running')
      const after = await vm(uuid)
      assert.equal([after?.alias, after?.created_by], ['kept', made])
      assert.is((await list(uuid)).length, 1, 'a rollback uses no snapshot up')
      await hypervisor().removeVm(uuid)
    },
    limit,
  )

  test(
    'a rollback to a stopped VM stops it, and what comes after knows where it came from',
    async () => {
      const { uuid } = await define()
      await take(uuid, 'a')
      await take(uuid, 'b')
      await hypervisor().startVm(uuid)
      await becomes(uuid, 'running')
      await hypervisor().rollbackSnapshot(uuid, 'a')
      await becomes(uuid, 'stopped')
      await take(uuid, 'c')
      const tree = Object.fromEntries((await list(uuid)).map(one => [one.name, [one.parent, one.current]]))
      assert.equal(tree, { a: [null, false], b: ['a', false], c: ['a', true] })
      await hypervisor().deleteSnapshot(uuid, 'a')
      const left = Object.fromEntries((await list(uuid)).map(one => [one.name, [one.parent, one.current]]))
      assert.equal(left, { b: [null, false], c: [null, true] })
      await hypervisor().removeVm(uuid)
    },
    limit,
  )

  test(
    'a rollback brings back what the VM was made of, and leaves what is known of it',
    async () => {
      const { uuid } = await define({ alias: 'old' })
      await take(uuid, 'small')
      const before = await hypervisor().shapeOf(uuid)
      const wanted = { ...before, memory_mib: before.memory_mib + 32, alias: 'new', tags: { role: 'web' } }
      await hypervisor().reshapeVm(uuid, wanted, { parts: ['ram', 'alias', 'tags'] })
      assert.is((await hypervisor().shapeOf(uuid)).memory_mib, before.memory_mib + 32)
      await hypervisor().rollbackSnapshot(uuid, 'small')
      const { memory_mib, alias, tags } = await hypervisor().shapeOf(uuid)
      assert.equal([memory_mib, alias, tags], [before.memory_mib, 'new', { role: 'web' }])
      assert.is((await vm(uuid))?.alias, 'new')
      await hypervisor().removeVm(uuid)
    },
    limit,
  )

  test(
    'an absent snapshot cannot be rolled back to, and deleting it is success, of a stopped and of a running VM',
    async () => {
      const { uuid } = await define()
      await refuses('SnapshotNotFound', hypervisor().rollbackSnapshot(uuid, 'absent'))
      await hypervisor().deleteSnapshot(uuid, 'absent')
      await hypervisor().startVm(uuid)
      await becomes(uuid, 'running')
      await hypervisor().deleteSnapshot(uuid, 'absent')
      assert.is((await vm(uuid))?.state, 'running')
      assert.equal(await list(uuid), [])
      await hypervisor().removeVm(uuid)
    },
    limit,
  )

  test(
    'snapshots survive a stop and go with their VM',
    async () => {
      const wanted = await define()
      const { uuid } = wanted
      await hypervisor().startVm(uuid)
      await becomes(uuid, 'running')
      await take(uuid, 'kept')
      await hypervisor().powerOff(uuid, { graceful: false })
      await becomes(uuid, 'stopped')
      assert.is((await list(uuid)).length, 1)
      await hypervisor().removeVm(uuid)
      await refuses('VmNotFound', list(uuid))
      await hypervisor().defineVm(wanted, { taskId: randomUUID() })
      assert.equal(await list(uuid), [])
      await hypervisor().removeVm(uuid)
    },
    limit,
  )

  test(
    'a stopped VM becomes an image once, from which another VM is made; a running one does not',
    async () => {
      const { uuid, disks } = await define()
      const name = `image-${randomUUID()}`
      const listed = async () => (await hypervisor().listImages()).find(image => image.name === name)
      await hypervisor().startVm(uuid)
      await becomes(uuid, 'running')
      await refuses('VmNotStopped', hypervisor().captureImage(uuid, { name }))
      await hypervisor().powerOff(uuid, { graceful: false })
      await becomes(uuid, 'stopped')
      await refuses('ImageHasNoOrigin', hypervisor().captureImage(uuid, { name, origin: 'no-such-image' }))
      assert.is(await listed(), undefined)
      await hypervisor().captureImage(uuid, { name })
      await hypervisor().captureImage(uuid, { name })
      assert.is((await listed())?.size_bytes, (disks[0]?.size_mib ?? 0) * 1024 ** 2)
      const child = await define({ disks: [{ size_mib: disks[0]?.size_mib ?? 0, image: name }] })
      assert.equal((await listed())?.used_by, [child.uuid])
      await hypervisor().removeVm(child.uuid)
      await hypervisor().removeImage(name)
      await hypervisor().removeVm(uuid)
      await refuses('ImageNotFound', hypervisor().readImage(name))
      await refuses('VmNotFound', hypervisor().captureImage(uuid, { name }))
    },
    limit,
  )

  test(
    'a VM without a guest agent says so',
    async () => {
      const { uuid } = await define()
      const script = () => hypervisor().runInGuest(uuid, 'true', { timeoutMs: 1_000 })
      assert.is(await hypervisor().hasGuestAgent(uuid), false)
      await refuses('VmNotRunning', script())
      await hypervisor().startVm(uuid)
      await becomes(uuid, 'running')
      assert.is(await hypervisor().hasGuestAgent(uuid), false)
      await refuses('GuestAgentNotConnected', script())
      await hypervisor().removeVm(uuid)
    },
    limit,
  )

  test('every word about snapshots of an absent VM is VmNotFound', async () => {
    const absent = randomUUID()
    await refuses('VmNotFound', list(absent))
    await refuses('VmNotFound', take(absent, 'a'))
    await refuses('VmNotFound', hypervisor().rollbackSnapshot(absent, 'a'))
    await refuses('VmNotFound', hypervisor().deleteSnapshot(absent, 'a'))
  })
}
