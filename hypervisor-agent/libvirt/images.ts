/**
 * Images in libvirt's pool, made and filled through libvirt, so that the agent needs no access to the folder. libvirt cannot rename a
 * volume: while one is being filled, an empty volume beside it says that it is not whole yet.
 */
import { createReadStream } from 'node:fs'
import { isLibvirtError, type Hypervisor as Libvirt, type StoragePool } from 'node-libvirt'
import * as v from 'valibot'
import { ImageName } from '../../actors/contract/ids.ts'
import { HypervisorError } from '../hypervisor.ts'
import type { ImageFile } from '../images/unpack.ts'
import type { ImageVolume, InstallImageOptions } from '../images/volumes.ts'
import { findVolume, needRefresh, refreshPool, removeVolume } from './pool-volumes.ts'
import { markerOf, markerPattern, spaceLeft, vmVolume } from './volumes.ts'
import { xml } from './xml.ts'
import { readDomain, readVolume } from './xml-reading.ts'

/** Deleting a large file, and the last of an upload, take longer than other calls. */
const volumeDeadline = { deadlineMs: 600_000 }

/** See `ImageVolumes.listImages`. */
export async function listImages(libvirt: Libvirt, poolName: string): Promise<ImageVolume[]> {
  const all = await readAll(await libvirt.lookupStoragePoolByName(poolName))
  const halves = new Set(all.flatMap(({ name }) => markerPattern.exec(name)?.[1] ?? []))
  return all
    .filter(({ name }) => v.is(ImageName, name) && !vmVolume.test(name) && !halves.has(name))
    .map(({ name, path, format, capacityBytes, allocationBytes }) => ({
      name,
      format,
      size_bytes: capacityBytes,
      allocated_bytes: allocationBytes,
      ...(path ? { path } : {}),
      used_by: overlaysOf(path, all),
    }))
}

/** See `ImageVolumes.installImage`. */
export async function installImage(
  libvirt: Libvirt,
  poolName: string,
  name: string,
  file: ImageFile,
  { signal, progress }: InstallImageOptions,
): Promise<void> {
  checkName(name)
  const pool = await libvirt.lookupStoragePoolByName(poolName)
  // A file that was put there without libvirt is seen after this.
  await refreshPool(pool)
  const [there, isHalf] = await Promise.all([findVolume(pool, name), findVolume(pool, markerOf(name))])
  if (there && !isHalf) return
  if (!isHalf) await pool.createVolume(fileVolumeXml(markerOf(name), 0), {}, volumeDeadline)
  try {
    await removeVolume(pool, name)
    const left = await spaceLeft(pool)
    if (file.fileBytes > left) {
      const message = `the image needs ${file.fileBytes} bytes, pool ${poolName} has ${left} left that are not promised to VMs`
      throw new HypervisorError('InsufficientStorage', message)
    }
    const made = await pool.createVolume(fileVolumeXml(name, file.fileBytes), {}, volumeDeadline)
    await made.upload(contentOf(file, signal, progress), volumeDeadline)
    await needRefresh(pool)
    await checkAsSeen(pool, name, file)
    await removeVolume(pool, markerOf(name))
  } catch (error) {
    // After a lost connection this fails too: then the mark stays, and the repeat begins anew.
    await removeVolume(pool, name)
      .then(() => removeVolume(pool, markerOf(name)))
      .catch(() => {})
    throw error
  }
}

/** See `ImageVolumes.removeImage`. */
export async function removeImage(libvirt: Libvirt, poolName: string, name: string): Promise<void> {
  checkName(name)
  const pool = await libvirt.lookupStoragePoolByName(poolName)
  const volume = await findVolume(pool, name)
  if (volume) {
    const path = await volume.getPath()
    const users = new Set([...overlaysOf(path, await readAll(pool)), ...(await domainsOn(libvirt, path))])
    if (users.size > 0) {
      throw new HypervisorError('ImageInUse', `image ${name} is used by ${[...users].sort().join(', ')}`)
    }
    await removeVolume(pool, name)
  }
  await removeVolume(pool, markerOf(name))
}

/** Disks of VMs lie in the same pool, under names that images could have. */
function checkName(name: string): void {
  if (v.is(ImageName, name) && !vmVolume.test(name)) return
  throw new HypervisorError('InvalidArgument', `${name} is no name for an image`)
}

interface Read {
  name: string
  path: string
  format: string
  capacityBytes: number
  allocationBytes: number
  backingPath?: string
}

async function readAll(pool: StoragePool): Promise<Read[]> {
  const found = await Promise.all(
    (await pool.listVolumes()).map(async volume => {
      try {
        return { name: volume.name, ...readVolume(await volume.getXml()) }
      } catch (error) {
        // One that went while this was read is not there.
        if (isLibvirtError(error, 'NO_STORAGE_VOL')) return undefined
        throw error
      }
    }),
  )
  return found.filter(volume => volume !== undefined)
}

function overlaysOf(path: string, all: Read[]): string[] {
  const names = all
    .filter(({ backingPath }) => backingPath === path)
    .map(({ name }) => vmVolume.exec(name)?.[1] ?? name)
  return [...new Set(names)].sort()
}

/** Domains that have the image itself as a disk: nobody here makes such, somebody else may. */
async function domainsOn(libvirt: Libvirt, path: string): Promise<string[]> {
  const users: string[] = []
  for (const domain of await libvirt.listDomains()) {
    try {
      const { disks } = readDomain(await domain.getXml({ inactive: true }))
      if (disks.some(disk => disk.path === path)) users.push(domain.uuid)
    } catch (error) {
      if (!isLibvirtError(error, 'NO_DOMAIN')) throw error
    }
  }
  return users
}

/** What libvirt takes it for is what QEMU will be told: that must be what was examined. */
async function checkAsSeen(pool: StoragePool, name: string, file: ImageFile): Promise<void> {
  const seen = readVolume(await (await pool.lookupVolume(name)).getXml())
  if (seen.format === file.format && seen.backingPath === undefined && seen.capacityBytes === file.capacityBytes) return
  const message = `the image cannot be used: libvirt takes it for ${seen.format} of ${seen.capacityBytes} bytes, it is ${file.format} of ${file.capacityBytes}`
  throw new HypervisorError('ImageInvalid', message)
}

async function* contentOf(
  { path }: ImageFile,
  signal: AbortSignal,
  progress: (bytes: number) => void,
): AsyncGenerator<Uint8Array> {
  let sent = 0
  for await (const piece of createReadStream(path, { highWaterMark: 1024 * 1024, signal })) {
    yield piece
    sent += piece.length
    progress(sent)
  }
}

/** A file of so many bytes, whatever will be in it. */
function fileVolumeXml(name: string, bytes: number): string {
  return xml`<volume>
<name>${name}</name>
<capacity unit="bytes">${bytes}</capacity>
<allocation>0</allocation>
<target><format type="raw"/></target>
</volume>`.text
}
