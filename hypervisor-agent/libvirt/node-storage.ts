/** See `NodeStorage`: the pool of a real node, and volumes in it that belong to no domain. */
import { isLibvirtError, type Hypervisor as Libvirt } from 'node-libvirt'
import { deleteVolumes, openPool, vmVolume } from './volumes.ts'

/** openPool, and the pool started with the host, which one that somebody else made may not be. */
export async function makePool(libvirt: Libvirt, wanted: { name: string; path: string }): Promise<void> {
  await openPool(libvirt, wanted)
  const pool = await libvirt.lookupStoragePoolByName(wanted.name)
  if (!(await pool.getAutostart())) await pool.setAutostart(true)
}

export async function removeLeftovers(libvirt: Libvirt, poolName: string): Promise<string[]> {
  const pool = await libvirt.lookupStoragePoolByName(poolName)
  const names = (await pool.listVolumes()).map(volume => volume.name)
  const owners = new Set(names.map(ownerOf).filter(uuid => uuid !== undefined))
  const removed: string[] = []
  for (const uuid of owners) {
    if (await isThere(libvirt, uuid)) continue
    removed.push(...names.filter(name => ownerOf(name) === uuid))
    await deleteVolumes(libvirt, poolName, uuid)
  }
  return removed
}

/** The VM that a volume was made for, by its name. */
const ownerOf = (name: string): string | undefined => vmVolume.exec(name)?.[1]

async function isThere(libvirt: Libvirt, uuid: string): Promise<boolean> {
  try {
    await libvirt.lookupDomainByUuid(uuid)
    return true
  } catch (error) {
    if (isLibvirtError(error, 'NO_DOMAIN')) return false
    throw error
  }
}
