/** What every `Hypervisor` does with images: they come whole, stay while disks stand on them, and are told apart from disks. */
import { randomBytes, randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import type { InferInput } from 'valibot'
import type { ErrorCode } from '../../actors/contract/errors.ts'
import type { VmSpec } from '../../actors/contract/vm.ts'
import type { Hypervisor } from '../../hypervisor-agent/hypervisor.ts'
import { examine } from '../../hypervisor-agent/images/unpack.ts'
import { qcow2 } from '../image-server.ts'

export interface ImageClaims {
  /** Registers a claim that only some environments can show. */
  can(capability: unknown, claim: string, reason: string, body: () => Promise<void>): void
  /** Volumes really have content here. */
  hasContent: boolean
  /** An image that is in the pool from the beginning. */
  image: { name: string; sizeMib: number } | undefined
  diskMib: number
  hypervisor: () => Hypervisor
  define(more?: Partial<InferInput<typeof VmSpec>>): Promise<VmSpec>
  refuses(code: ErrorCode, call: Promise<unknown>): Promise<unknown>
}

const mib = 1024 ** 2

export function imageClaims({ can, hasContent, image, diskMib, hypervisor, define, refuses }: ImageClaims): void {
  const never = new AbortController().signal
  const find = async (name: string) => (await hypervisor().listImages()).find(one => one.name === name)

  /** Puts a file of this content into the pool. */
  async function install(content: Buffer, name = randomUUID(), { signal = never, told = [] as number[] } = {}) {
    const folder = mkdtempSync(join(tmpdir(), 'muster-image-'))
    try {
      const path = join(folder, 'image')
      writeFileSync(path, content)
      const file = await examine(path, undefined)
      await hypervisor().installImage(name, file, { signal, progress: bytes => void told.push(bytes) })
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
    return name
  }

  can(image, 'an image of the pool is listed with the VMs whose disks stand on it', 'no image here', async () => {
    const { name, sizeMib } = image as { name: string; sizeMib: number }
    const { uuid } = await define({ disks: [{ size_mib: sizeMib + diskMib, image: name }] })
    const used = await find(name)
    const size = used?.size_bytes ?? 0
    assert.ok(size > 0 && size <= sizeMib * mib, `its disk has ${size} bytes`)
    assert.ok(used?.used_by.includes(uuid), `used by ${used?.used_by}`)
    await hypervisor().removeVm(uuid)
    assert.not.ok((await find(name))?.used_by.includes(uuid))
  })

  can(image, 'an image that disks stand on is not removed, and says whose', 'no image here', async () => {
    const { name, sizeMib } = image as { name: string; sizeMib: number }
    const { uuid } = await define({ disks: [{ size_mib: sizeMib + diskMib, image: name }] })
    try {
      await hypervisor().removeImage(name)
      assert.unreachable('it should have been refused')
    } catch (error) {
      assert.is((error as { code?: string }).code, 'ImageInUse')
      assert.match((error as Error).message, uuid)
    }
    assert.ok(await find(name))
    await hypervisor().removeVm(uuid)
  })

  can(true, 'disks of VMs are no images, neither shown as such nor removed', '', async () => {
    const { uuid } = await define()
    const names = (await hypervisor().listImages()).map(one => one.name)
    assert.not.ok(names.some(name => name.includes(uuid)))
    await refuses('InvalidArgument', hypervisor().removeImage(`${uuid}-disk0.qcow2`))
    assert.ok((await hypervisor().loadVm(uuid))?.disks.length === 1)
    await hypervisor().removeVm(uuid)
  })

  can(true, 'removing an image that is not there is success', '', () => hypervisor().removeImage(randomUUID()))

  const noContent = 'volumes have no content here'
  can(
    hasContent,
    'an installed image is listed with the size of its disk, and VMs can be made from it',
    noContent,
    async () => {
      const told: number[] = []
      const content = Buffer.concat([qcow2(diskMib * mib), Buffer.alloc(3 * mib)])
      const name = await install(content, randomUUID(), { told })
      assert.is(told.at(-1), content.length, 'progress tells the bytes')
      const listed = await find(name)
      assert.is(listed?.format, 'qcow2')
      assert.is(listed?.size_bytes, diskMib * mib)
      assert.equal(listed?.used_by, [])
      const { uuid } = await define({ disks: [{ size_mib: 2 * diskMib, image: name }] })
      assert.equal((await find(name))?.used_by, [uuid])
      await hypervisor().removeVm(uuid)
      await hypervisor().removeImage(name)
      assert.is(await find(name), undefined)
    },
  )

  can(hasContent, 'a raw image is one too', noContent, async () => {
    const name = await install(randomBytes(2 * mib))
    assert.is((await find(name))?.format, 'raw')
    assert.is((await find(name))?.size_bytes, 2 * mib)
    const { uuid } = await define({ disks: [{ size_mib: diskMib, image: name }] })
    await hypervisor().removeVm(uuid)
    await hypervisor().removeImage(name)
  })

  can(hasContent, 'installing twice equals once', noContent, async () => {
    const name = await install(qcow2(diskMib * mib))
    await install(qcow2(2 * diskMib * mib), name)
    assert.is((await find(name))?.size_bytes, diskMib * mib, 'the first one stayed')
    await hypervisor().removeImage(name)
  })

  can(hasContent, 'an aborted copy leaves nothing, and the next one is whole', noContent, async () => {
    const name = randomUUID()
    const abort = new AbortController()
    abort.abort(new Error('enough'))
    try {
      await install(qcow2(diskMib * mib), name, { signal: abort.signal })
      assert.unreachable('it should have been aborted')
    } catch (error) {
      assert.not.match((error as Error).message, /should have been/)
    }
    assert.is(await find(name), undefined)
    await install(qcow2(diskMib * mib), name)
    assert.ok(await find(name))
    await hypervisor().removeImage(name)
  })

  can(hasContent, 'the name of a disk is no name for an image', noContent, async () => {
    await refuses('InvalidArgument', install(randomBytes(mib), `${randomUUID()}-disk0.qcow2`))
  })
}
