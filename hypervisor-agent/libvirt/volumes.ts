/**
 * The volumes of the node's pool: those of VMs, named `<uuid>-disk<slot>.qcow2` (those made later with a mark of the task that did), and
 * images, which are all the others. Made through libvirt, so that the agent needs no access to the files.
 */
import { statfs } from 'node:fs/promises'
import { isLibvirtError, type Hypervisor as Libvirt, type StoragePool } from 'node-libvirt'
import type { VmSpec } from '../../actors/contract/vm.ts'
import { HypervisorError, type StorageFigures } from '../hypervisor.ts'
import { poolXml, volumeXml } from './domain-xml.ts'
import { refreshPool } from './pool-volumes.ts'
import { readPoolPath, readVolume } from './xml-reading.ts'

export const mib = 1024 * 1024

/** Names of disks made for VMs, which no image may have. */
export const vmVolume = /^([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})-disk([0-9]{1,3})(?:-[0-9a-f]{8})?\.qcow2$/
/** An empty volume of this name beside an image says that the image is not whole. No image can be named so. */
export const markerOf = (image: string): string => `_incomplete_${image}`
export const markerPattern = /^_incomplete_(.*)$/
/** Cloning metadata and creating large files takes longer than other calls. */
const volumeDeadline = { deadlineMs: 600_000 }

export function volumeName(uuid: string, n: number): string {
  return `${uuid.toLowerCase()}-disk${n}.qcow2`
}

/** The slot that a volume was made for; undefined for one that is no VM's disk by its name. */
export function slotOfVolume(name: string): number | undefined {
  const slot = vmVolume.exec(name)?.[2]
  return slot === undefined ? undefined : Number(slot)
}

/** Finds the pool or makes it as a folder, and starts it. */
export async function openPool(libvirt: Libvirt, wanted: { name: string; path: string }): Promise<void> {
  const pool = await libvirt.lookupStoragePoolByName(wanted.name).catch(async error => {
    if (!isLibvirtError(error, 'NO_STORAGE_POOL')) throw error
    const made = await libvirt.defineStoragePool(poolXml(wanted))
    await made.build()
    await made.setAutostart(true)
    return made
  })
  if (!(await pool.isActive())) await pool.create()
}

export interface PoolFigures {
  name: string
  path?: string
  size_bytes: number
  available_bytes: number
}

/** libvirt counts blocks reserved for root as available; where the path can be seen, the kernel says what can really be used. */
export async function poolFigures(pool: StoragePool): Promise<PoolFigures> {
  const [info, text] = await Promise.all([pool.getInfo(), pool.getXml()])
  const path = readPoolPath(text)
  const seen = path === undefined ? undefined : await statfs(path).catch(() => undefined)
  return {
    name: pool.name,
    ...(path === undefined ? {} : { path }),
    size_bytes: info.capacityBytes,
    available_bytes: seen ? Math.min(info.availableBytes, seen.bavail * seen.bsize) : info.availableBytes,
  }
}

interface Volume {
  name: string
  capacityBytes: number
  allocationBytes: number
  /** The VM it was made for. */
  uuid?: string
}

async function listVolumes(pool: StoragePool): Promise<Volume[]> {
  const found = await pool.listVolumes()
  const volumes = await Promise.all(
    found.map(async volume => {
      const uuid = vmVolume.exec(volume.name)?.[1]
      // One that went while this was read is not there.
      const info = await volume.getInfo().catch(error => {
        if (isLibvirtError(error, 'NO_STORAGE_VOL')) return undefined
        throw error
      })
      return info && { name: volume.name, ...info, ...(uuid ? { uuid } : {}) }
    }),
  )
  return volumes.filter(volume => volume !== undefined)
}

export async function storageFigures(libvirt: Libvirt, poolName: string): Promise<StorageFigures> {
  const pool = await libvirt.lookupStoragePoolByName(poolName)
  const [figures, volumes] = await Promise.all([poolFigures(pool), listVolumes(pool)])
  const ofVms = volumes.filter(volume => volume.uuid)
  return {
    pool: poolName,
    size_bytes: figures.size_bytes,
    available_bytes: figures.available_bytes,
    vm_capacity_bytes: sum(ofVms.map(volume => volume.capacityBytes)),
    vm_allocated_bytes: sum(ofVms.map(volume => volume.allocationBytes)),
    images_bytes: sum(volumes.filter(volume => !volume.uuid).map(volume => volume.allocationBytes)),
  }
}

/** Path, format and size of each image the VM names; ImageNotInstalled for the first that is not in the pool. */
export async function findImages(
  libvirt: Libvirt,
  poolName: string,
  spec: Pick<VmSpec, 'disks'>,
): Promise<(Image | undefined)[]> {
  const pool = await libvirt.lookupStoragePoolByName(poolName)
  const images: (Image | undefined)[] = []
  for (const disk of spec.disks) {
    const image = disk.image === undefined ? undefined : await findImage(pool, disk.image)
    if (image && image.capacityBytes > disk.size_mib * mib) {
      const message = `image ${disk.image} has ${image.capacityBytes} bytes, more than the disk's ${disk.size_mib} MiB`
      throw new HypervisorError('InvalidArgument', message)
    }
    images.push(image)
  }
  return images
}

type Image = { path: string; format: string; capacityBytes: number }

async function findImage(pool: StoragePool, name: string): Promise<Image> {
  const lookup = () => pool.lookupVolume(name)
  const volume = await lookup()
    // A file that was put there without libvirt is seen after a refresh.
    .catch(async error => {
      if (!isLibvirtError(error, 'NO_STORAGE_VOL')) throw error
      await refreshPool(pool)
      return lookup()
    })
    .catch(error => {
      if (!isLibvirtError(error, 'NO_STORAGE_VOL')) throw error
      throw new HypervisorError('ImageNotInstalled', `pool ${pool.name} has no volume ${name}`, { cause: error })
    })
  const isHalf = await pool.lookupVolume(markerOf(name)).then(
    () => true,
    error => {
      if (isLibvirtError(error, 'NO_STORAGE_VOL')) return false
      throw error
    },
  )
  if (isHalf) throw new HypervisorError('ImageNotInstalled', `the image ${name} is not whole in pool ${pool.name}`)
  return readVolume(await volume.getXml())
}

/**
 * InsufficientStorage unless the disks fit beside all that is promised to other VMs already: qcow2 is thin, so the file system
 * alone would accept a thousand times its size.
 */
export async function checkSpace(libvirt: Libvirt, poolName: string, spec: VmSpec): Promise<void> {
  const pool = await libvirt.lookupStoragePoolByName(poolName)
  const wanted = sum(spec.disks.map(disk => disk.size_mib * mib))
  const free = await spaceLeft(pool, spec.uuid.toLowerCase())
  if (wanted <= free) return
  const message = `the disks need ${wanted} bytes, pool ${poolName} has ${free} left that are not promised to other VMs`
  throw new HypervisorError('InsufficientStorage', message)
}

/** Bytes of the pool that are not promised to VMs, one left aside. */
export async function spaceLeft(pool: StoragePool, exceptUuid?: string): Promise<number> {
  const [figures, volumes] = await Promise.all([poolFigures(pool), listVolumes(pool)])
  const promised = sum(
    volumes
      .filter(volume => volume.uuid && volume.uuid !== exceptUuid)
      .map(volume => Math.max(0, volume.capacityBytes - volume.allocationBytes)),
  )
  return Math.max(0, figures.available_bytes - promised)
}

/** Names of the volumes made for this VM. */
export async function ownVolumes(libvirt: Libvirt, poolName: string, uuid: string): Promise<string[]> {
  const pool = await libvirt.lookupStoragePoolByName(poolName)
  const names = (await pool.listVolumes()).map(volume => volume.name)
  return names.filter(name => vmVolume.exec(name)?.[1] === uuid.toLowerCase())
}

/** Makes the volumes of a VM in order and answers their paths. One that is there already is made anew: it may be half of one. */
export async function makeVolumes(
  libvirt: Libvirt,
  poolName: string,
  spec: VmSpec,
  images: (Image | undefined)[],
): Promise<void> {
  const pool = await libvirt.lookupStoragePoolByName(poolName)
  await deleteVolumes(libvirt, poolName, spec.uuid)
  for (const [n, disk] of spec.disks.entries())
    await makeVolume(pool, volumeName(spec.uuid, disk.slot ?? n), disk.size_mib, images[n])
}

/** Makes a volume that begins as the image looks, or blank. */
export async function makeVolume(pool: StoragePool, name: string, sizeMib: number, image?: Image): Promise<void> {
  const text = volumeXml({ name, capacityBytes: sizeMib * mib, ...(image ? { backing: image } : {}) })
  await pool.createVolume(text, {}, volumeDeadline)
}

/** Deletes the volumes made for this VM and no others. */
export async function deleteVolumes(libvirt: Libvirt, poolName: string, uuid: string): Promise<void> {
  const pool = await libvirt.lookupStoragePoolByName(poolName)
  for (const name of await ownVolumes(libvirt, poolName, uuid)) await deleteVolume(pool, name)
}

/** One that is not there is deleted already. */
export async function deleteVolume(pool: StoragePool, name: string): Promise<void> {
  try {
    await (await pool.lookupVolume(name)).delete({}, volumeDeadline)
  } catch (error) {
    if (!isLibvirtError(error, 'NO_STORAGE_VOL')) throw error
  }
}

/** What the volumes of a VM hold and take, by path. */
export async function volumeSizes(
  libvirt: Libvirt,
  poolName: string,
  paths: string[],
): Promise<Map<string, { size_bytes: number; allocated_bytes: number }>> {
  const pool = await libvirt.lookupStoragePoolByName(poolName)
  const wanted = new Set(paths)
  const sizes = new Map<string, { size_bytes: number; allocated_bytes: number }>()
  for (const volume of await pool.listVolumes()) {
    if (!wanted.has(volume.key)) continue
    const info = await volume.getInfo()
    sizes.set(volume.key, { size_bytes: info.capacityBytes, allocated_bytes: info.allocationBytes })
  }
  return sizes
}

function sum(numbers: number[]): number {
  return numbers.reduce((total, number) => total + number, 0)
}
