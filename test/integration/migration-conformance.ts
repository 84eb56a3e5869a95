/** The part of the conformance suite about moving VMs: who may start what, and that the bytes of a disk arrive as they were. */
import { randomUUID } from 'node:crypto'
import * as assert from 'uvu/assert'
import type { ErrorCode } from '../../actors/contract/errors.ts'
import type { VmSpec } from '../../actors/contract/vm.ts'
import type { Hypervisor, HypervisorError } from '../../hypervisor-agent/hypervisor.ts'
import { digestOf } from '../../hypervisor-agent/streams/disks.ts'
import type { Suite } from '../suite.ts'

export interface MigrationSubject {
  test: Suite
  limit: { limitMs: number }
  hypervisor(): Hypervisor
  /** A description that was not defined yet. */
  spec(more?: { disks?: VmSpec['disks'] }): VmSpec
  define(more?: { disks?: VmSpec['disks'] }): Promise<VmSpec>
  becomes(uuid: string, state: string): Promise<unknown>
  refuses(code: ErrorCode, call: Promise<unknown>): Promise<HypervisorError>
  /** A claim, skipped with the reason where it cannot be shown. */
  can(capability: unknown, claim: string, reason: string, body: () => Promise<void>): void
  /** Disks of the pool hold bytes. */
  volumesHaveContent: boolean
  /** An image that a disk can stand on, with its size. */
  image: { name: string; sizeMib: number } | undefined
}

export function migrationClaims(subject: MigrationSubject): void {
  const { test, limit, hypervisor, spec, define, becomes, refuses, can, volumesHaveContent, image } = subject
  const vm = async (uuid: string) => (await hypervisor().listVms()).find(one => one.uuid === uuid)
  const digest = async (uuid: string, n: number, bytes?: number) =>
    digestOf(await hypervisor().readDisk(uuid, n, bytes), () => {})

  test(
    'a VM that is held is not started until the same migration releases it, and is then as it was',
    async () => {
      const { uuid } = await define()
      const [one, other] = [randomUUID(), randomUUID()]
      await hypervisor().holdVm(uuid, one)
      await hypervisor().holdVm(uuid, one)
      assert.is((await vm(uuid))?.held_by, one)
      assert.is((await hypervisor().shapeOf(uuid)).autoboot, false)
      await refuses('VmBusy', hypervisor().startVm(uuid))
      await refuses('VmBusy', hypervisor().holdVm(uuid, other))
      await hypervisor().releaseVm(uuid, other)
      assert.is((await vm(uuid))?.held_by, one)
      await hypervisor().releaseVm(uuid, one)
      await hypervisor().releaseVm(uuid, one)
      assert.is((await vm(uuid))?.held_by, undefined)
      assert.is((await hypervisor().shapeOf(uuid)).autoboot, true)
      await hypervisor().startVm(uuid)
      await becomes(uuid, 'running')
      await refuses('VmNotStopped', hypervisor().holdVm(uuid, one))
      await hypervisor().removeVm(uuid)
    },
    limit,
  )

  test(
    'a VM that comes from elsewhere is not started before it is complete',
    async () => {
      const wanted = spec()
      const migration = randomUUID()
      const incoming = { taskId: migration, incoming: true }
      await hypervisor().defineVm(wanted, incoming)
      await hypervisor().defineVm(wanted, incoming)
      assert.is((await vm(wanted.uuid))?.created_by, migration)
      await refuses('VmBusy', hypervisor().startVm(wanted.uuid))
      await hypervisor().completeVm(wanted.uuid)
      await hypervisor().completeVm(wanted.uuid)
      await hypervisor().startVm(wanted.uuid)
      await becomes(wanted.uuid, 'running')
      await hypervisor().removeVm(wanted.uuid)
    },
    limit,
  )

  can(
    volumesHaveContent,
    'a disk that is read and written elsewhere is the same there, also one that stood on an image, and the VM starts from it',
    'its volumes hold no bytes',
    async () => {
      const disks = [...(image ? [{ size_mib: image.sizeMib, image: image.name }] : []), { size_mib: 16 }]
      const from = await define({ disks })
      const to = spec({ disks: disks.map(({ size_mib }) => ({ size_mib })) })
      await hypervisor().defineVm(to, { taskId: randomUUID(), incoming: true })
      for (const n of disks.keys()) {
        const before = await digest(from.uuid, n)
        await hypervisor().writeDisk(to.uuid, n, await hypervisor().readDisk(from.uuid, n))
        assert.equal(await digest(to.uuid, n, before.bytes), before, `disk ${n}`)
        assert.ok(before.bytes > 0)
      }
      await hypervisor().completeVm(to.uuid)
      await refuses('VmBusy', hypervisor().writeDisk(to.uuid, 0, await hypervisor().readDisk(from.uuid, 0)))
      const shape = await hypervisor().shapeOf(to.uuid)
      assert.equal(
        shape.disks.map(({ size_mib, image: stands }) => [size_mib, stands]),
        disks.map(({ size_mib }) => [size_mib, undefined]),
      )
      const used = (await hypervisor().listImages()).flatMap(({ used_by }) => used_by)
      assert.not.ok(
        used.some(user => user.includes(to.uuid)),
        'the copy stands on no image',
      )
      await hypervisor().startVm(to.uuid)
      await becomes(to.uuid, 'running')
      await refuses('VmNotStopped', hypervisor().readDisk(to.uuid, 0))
      await hypervisor().removeVm(to.uuid)
      await hypervisor().removeVm(from.uuid)
    },
  )

  can(
    volumesHaveContent,
    'a running VM that is offered to another node runs on when it is recalled, and is then as it was',
    'its guests cannot be moved while they run',
    async () => {
      const { uuid } = await define()
      const migration = randomUUID()
      await refuses('VmNotRunning', hypervisor().beginLive(uuid))
      await hypervisor().recallLive(uuid)
      await hypervisor().startVm(uuid)
      await becomes(uuid, 'running')
      const before = await vm(uuid)
      await hypervisor().holdVm(uuid, migration, { live: true })
      await hypervisor().beginLive(uuid)
      await hypervisor().beginLive(uuid)
      const meanwhile = await vm(uuid)
      assert.equal([meanwhile?.state, meanwhile?.held_by], ['running', migration])
      await hypervisor().recallLive(uuid)
      await hypervisor().recallLive(uuid)
      await hypervisor().releaseVm(uuid, migration)
      const after = await vm(uuid)
      assert.equal([after?.state, after?.domain_id, after?.held_by], ['running', before?.domain_id, undefined])
      assert.is((await hypervisor().shapeOf(uuid)).autoboot, true)
      await hypervisor().removeVm(uuid)
    },
  )

  can(
    volumesHaveContent,
    'a running VM that is held does not start again once it has stopped',
    'its guests cannot be moved while they run',
    async () => {
      const { uuid } = await define()
      await hypervisor().startVm(uuid)
      await hypervisor().holdVm(uuid, randomUUID(), { live: true })
      await hypervisor().powerOff(uuid, { graceful: false })
      await becomes(uuid, 'stopped')
      await refuses('VmBusy', hypervisor().startVm(uuid))
      await hypervisor().removeVm(uuid)
    },
  )

  can(
    !volumesHaveContent,
    'a VM that cannot be moved while it runs says so, and runs on',
    'its guests can be moved while they run',
    async () => {
      const { uuid } = await define()
      await hypervisor().startVm(uuid)
      await refuses('LiveMigrationNotSupported', hypervisor().beginLive(uuid))
      await becomes(uuid, 'running')
      await hypervisor().removeVm(uuid)
    },
  )

  test(
    'a VM that nothing has arrived for does not go on',
    async () => {
      const wanted = spec()
      await hypervisor().defineVm(wanted, { taskId: randomUUID(), incoming: true })
      await refuses('MigrationInterrupted', hypervisor().finishLive(wanted.uuid, ''))
      assert.is((await vm(wanted.uuid))?.state, 'stopped')
      await hypervisor().removeVm(wanted.uuid)
    },
    limit,
  )
}
