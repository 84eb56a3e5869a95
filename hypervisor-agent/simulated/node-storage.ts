/** The pool of a simulated node: there, until a test removes it. */
import { HypervisorError } from '../hypervisor.ts'

export function simulatedNodeStorage(pool: string) {
  let isThere = true
  return {
    isThere: () => isThere,
    /** Its name; throws as libvirt would where it is not there. */
    needPool: (): string => {
      if (!isThere) throw new HypervisorError('HypervisorError', `there is no storage pool ${pool}`)
      return pool
    },
    make: () => {
      isThere = true
    },
    remove: () => {
      isThere = false
    },
  }
}
