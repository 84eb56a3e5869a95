/** Volumes of a pool by name, where one that is not there is an answer and no fault. */
import { isLibvirtError, type StoragePool, type StorageVolume } from 'node-libvirt'

/** A big file takes its file system a while to give up. */
const removalDeadline = { deadlineMs: 600_000 }

export async function findVolume(pool: StoragePool, name: string): Promise<StorageVolume | undefined> {
  try {
    return await pool.lookupVolume(name)
  } catch (error) {
    if (isLibvirtError(error, 'NO_STORAGE_VOL')) return undefined
    throw error
  }
}

/** Twice equals once. */
export async function removeVolume(pool: StoragePool, name: string): Promise<void> {
  try {
    await (await findVolume(pool, name))?.delete({}, removalDeadline)
  } catch (error) {
    if (!isLibvirtError(error, 'NO_STORAGE_VOL')) throw error
  }
}
