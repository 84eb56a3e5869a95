/**
 * Images made of a VM's disk. A whole copy is libvirt's own; libvirt cannot copy only what differs from a backing image, so there the agent
 * runs qemu-img itself, on paths that libvirt has given it, and must be allowed to read the pool's files.
 */
import { execFile } from 'node:child_process'
import { constants } from 'node:fs'
import { access } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { Domain, Hypervisor as Libvirt, StoragePool, StorageVolume } from 'node-libvirt'
import * as v from 'valibot'
import { ImageName } from '../../actors/contract/ids.ts'
import { HypervisorError } from '../hypervisor.ts'
import { volumeXml } from './domain-xml.ts'
import { failure } from './failures.ts'
import { findVolume, needRefresh, refreshPool, removeVolume } from './pool-volumes.ts'
import { markerOf, ownVolumes, spaceLeft, vmVolume } from './volumes.ts'
import { xml } from './xml.ts'
import { type ReadVolume, readDomain, readVolume } from './xml-reading.ts'

/** Copying a large disk takes minutes. */
const copyLimitMs = 50 * 60_000
const copyDeadline = { deadlineMs: copyLimitMs }
/** libvirt sends nothing for so long, ms. */
const silenceMs = 120_000

/** See `ImageCapture.captureImage`. */
export async function captureImage(
  domain: Domain,
  libvirt: Libvirt,
  poolName: string,
  { name, origin }: { name: string; origin?: string },
): Promise<void> {
  if (!v.is(ImageName, name) || vmVolume.test(name)) {
    throw new HypervisorError('InvalidArgument', `${name} is no name for an image`)
  }
  const pool = await libvirt.lookupStoragePoolByName(poolName)
  await refreshPool(pool)
  const [there, isHalf] = await Promise.all([findVolume(pool, name), findVolume(pool, markerOf(name))])
  if (there && !isHalf) return
  if (await domain.isActive()) throw new HypervisorError('VmNotStopped', `the VM ${domain.uuid} is running`)
  const disk = await firstDisk(domain, libvirt, pool)
  const base = origin === undefined ? undefined : await originOf(pool, disk, origin)
  const left = await spaceLeft(pool)
  const needed = disk.read.allocationBytes + (base ? 0 : (disk.backing?.allocationBytes ?? 0))
  if (needed > left) {
    const message = `the image needs ${needed} bytes, pool ${poolName} has ${left} left that are not promised to VMs`
    throw new HypervisorError('InsufficientStorage', message)
  }
  // While it is there the image is not whole: nobody is given it, and a repeat begins anew.
  if (!isHalf) await pool.createVolume(markerXml(name), {}, copyDeadline)
  try {
    await removeVolume(pool, name)
    if (base) await copyDifference(disk.read, base, `${dirname(disk.read.path)}/${name}`)
    else {
      const wanted = volumeXml({ name, capacityBytes: disk.read.capacityBytes })
      await pool.cloneVolume(wanted, disk.volume, {}, copyDeadline)
    }
    // libvirt knows its own copy; of the agent's it has yet to hear.
    if (base) await needRefresh(pool)
    await removeVolume(pool, markerOf(name))
  } catch (error) {
    // After a lost connection this fails too: then the mark stays.
    await refreshPool(pool)
      .then(() => removeVolume(pool, name))
      .then(() => removeVolume(pool, markerOf(name)))
      .catch(() => {})
    throw error
  }
}

/** See `ImageCapture.readImage`. The bytes come over a connection of their own, which is opened when the first is asked for. */
export async function readImage(
  libvirt: Libvirt,
  connect: () => Promise<Libvirt>,
  poolName: string,
  name: string,
): Promise<AsyncIterable<Uint8Array>> {
  const image = async (over: Libvirt) => {
    const volume = await findVolume(await over.lookupStoragePoolByName(poolName), name)
    if (volume) return volume
    throw new HypervisorError('ImageNotFound', `pool ${poolName} has no image ${name}`)
  }
  await image(libvirt)
  return bytesOf(connect, image)
}

async function* bytesOf(
  connect: () => Promise<Libvirt>,
  image: (over: Libvirt) => Promise<StorageVolume>,
): AsyncGenerator<Uint8Array> {
  const over = await connect()
  try {
    yield* (await image(over)).download({ deadlineMs: silenceMs })
  } catch (error) {
    throw failure('read the image', error)
  } finally {
    await over.close()
  }
}

interface Disk {
  volume: StorageVolume
  read: ReadVolume
  /** What it stands on. */
  backing?: ReadVolume
}

/** The disk the VM boots from, which must be a volume that was made for it. */
async function firstDisk(domain: Domain, libvirt: Libvirt, pool: StoragePool): Promise<Disk> {
  const path = readDomain(await domain.getXml({ inactive: true })).disks[0]?.path
  for (const name of await ownVolumes(libvirt, pool.name, domain.uuid)) {
    const volume = await pool.lookupVolume(name)
    const read = readVolume(await volume.getXml())
    if (read.path !== path) continue
    const backing = read.backingPath === undefined ? undefined : await byPath(pool, read.backingPath)
    return { volume, read, ...(backing ? { backing } : {}) }
  }
  throw new HypervisorError('InvalidArgument', `the first disk of VM ${domain.uuid} is no volume made for it`)
}

/** The image of the pool that the disk stands on, if it is the one that is meant. */
async function originOf(pool: StoragePool, { read }: Disk, origin: string): Promise<ReadVolume> {
  const volume = await findVolume(pool, origin)
  const found = volume && readVolume(await volume.getXml())
  if (found && found.path === read.backingPath) return found
  throw new HypervisorError('ImageHasNoOrigin', `the disk does not stand on image ${origin} of pool ${pool.name}`)
}

async function byPath(pool: StoragePool, path: string): Promise<ReadVolume | undefined> {
  for (const volume of await pool.listVolumes()) {
    if (volume.key === path) return readVolume(await volume.getXml())
  }
  return undefined
}

/** What the disk's own file holds, on the same base. */
async function copyDifference(disk: ReadVolume, base: ReadVolume, to: string): Promise<void> {
  await needReadable(disk.path)
  const given = ['-f', disk.format, '-O', 'qcow2', '-B', base.path, '-F', base.format, '--', disk.path, to]
  await new Promise<void>((resolve, reject) => {
    execFile('qemu-img', ['convert', ...given], { timeout: copyLimitMs, killSignal: 'SIGKILL' }, (error, _, stderr) => {
      if (!error) return resolve()
      const missing = (error as NodeJS.ErrnoException).code === 'ENOENT'
      const why = missing ? 'this server has no qemu-img: install qemu-utils' : stderr.trim() || error.message
      const code = /permission denied/i.test(why) ? 'StorageNotReadable' : 'HypervisorError'
      reject(new HypervisorError(code, `the difference cannot be copied: ${why}`, { cause: error }))
    })
  })
}

async function needReadable(path: string): Promise<void> {
  await access(path, constants.R_OK).catch(error => {
    const message = `the agent may not read ${path}: it must run as root to make incremental images`
    throw new HypervisorError('StorageNotReadable', message, { cause: error })
  })
}

function markerXml(name: string): string {
  const format = xml`<target><format type="raw"/></target>`
  return xml`<volume><name>${markerOf(name)}</name><capacity unit="bytes">0</capacity>${format}</volume>`.text
}
