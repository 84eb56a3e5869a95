/** Volumes of a pool by name, where one that is not there is an answer and no fault, and libvirt at work is waited for. */
import { isLibvirtError, LibvirtError, type StoragePool, type StorageVolume } from 'node-libvirt'
import { HypervisorError } from '../hypervisor.ts'

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

/** Where a refresh only helps, it is asked for so long, ms. */
const refreshPatienceMs = 5_000

/**
 * Lets libvirt see what lies in the pool. It does not while it fills any volume there, and then it is asked again for so long; false if it
 * fills one all the time.
 */
export async function refreshPool(
  pool: StoragePool,
  { withinMs = refreshPatienceMs, everyMs = askEveryMs / 4 } = {},
): Promise<boolean> {
  for (const end = performance.now() + withinMs; ; ) {
    try {
      await pool.refresh(removalDeadline)
      return true
    } catch (error) {
      if (!(error instanceof LibvirtError && /asynchronous jobs running/.test(error.message))) throw error
      if (performance.now() >= end) return false
      await new Promise(resolve => setTimeout(resolve, everyMs))
    }
  }
}

/** The same where what is done next depends on it: HypervisorUnavailable, so that a task tries again, if libvirt fills one for longer than any copy takes. */
export async function needRefresh(pool: StoragePool): Promise<void> {
  if (await refreshPool(pool, { withinMs: fillingLimitMs })) return
  throw new HypervisorError('HypervisorUnavailable', `libvirt does not look into pool ${pool.name}: it fills volumes`)
}

/** libvirt goes on filling a volume for an agent that has died, for as long as the copy of a large disk takes, ms. */
const fillingLimitMs = 60 * 60_000
const askEveryMs = 1_000

/** Twice equals once. A volume that libvirt still fills, which it does not break off, is removed when it is full. */
export async function removeVolume(pool: StoragePool, name: string, everyMs = askEveryMs): Promise<void> {
  for (const end = performance.now() + fillingLimitMs; ; ) {
    try {
      return await (await findVolume(pool, name))?.delete({}, removalDeadline)
    } catch (error) {
      if (isLibvirtError(error, 'NO_STORAGE_VOL')) return
      if (!isFilled(error) || performance.now() >= end) throw error
      await new Promise(resolve => setTimeout(resolve, everyMs))
    }
  }
}

const isFilled = (error: unknown) => error instanceof LibvirtError && /still being allocated/.test(error.message)
