/** Faults on request: makes chosen calls of the simulated hypervisor slow, failing or hanging, before or after their effect. */
import type { ErrorCode } from '../../actors/contract/errors.ts'
import { type Hypervisor, HypervisorError } from '../hypervisor.ts'

export interface Fault {
  /** The call it applies to; absent: any. */
  call?: keyof Hypervisor
  /** Only calls for this VM. */
  uuid?: string
  /** `after`: the effect takes place, the caller does not learn of it. */
  when?: 'before' | 'after'
  /** How many calls it hits; then it is gone. Absent: all. */
  times?: number
  delayMs?: number
  fail?: ErrorCode
  /** The call waits until the fault is released. */
  hang?: true
}

export interface FaultPlan {
  /** Adds a fault; the returned function releases what hangs in it and removes it. */
  add(fault: Fault): () => void
  /** Removes all faults; calls that hang go on. */
  clear(): void
  /** Used by the hypervisor around each effect. */
  pass(call: keyof Hypervisor, uuid: string | undefined, when: 'before' | 'after'): Promise<void>
}

/** An empty plan. */
export function faultPlan(): FaultPlan {
  const planned = new Set<Planned>()
  return {
    add: fault => {
      const entry: Planned = { fault, left: fault.times ?? Number.POSITIVE_INFINITY, release: () => {}, released: null }
      entry.released = new Promise(resolve => {
        entry.release = resolve
      })
      planned.add(entry)
      return () => {
        planned.delete(entry)
        entry.release()
      }
    },
    clear: () => {
      for (const entry of planned) entry.release()
      planned.clear()
    },
    pass: async (call, uuid, when) => {
      for (const entry of [...planned]) {
        if (!hits(entry.fault, call, uuid, when) || entry.left <= 0) continue
        entry.left -= 1
        const { delayMs, fail, hang } = entry.fault
        if (delayMs) await new Promise(resolve => setTimeout(resolve, delayMs))
        if (hang) await entry.released
        if (fail) throw new HypervisorError(fail, `${call} was told to fail`)
      }
    },
  }
}

interface Planned {
  fault: Fault
  left: number
  release: () => void
  released: Promise<void> | null
}

function hits(fault: Fault, call: string, uuid: string | undefined, when: 'before' | 'after'): boolean {
  if (fault.call && fault.call !== call) return false
  if (fault.uuid && fault.uuid !== uuid) return false
  return (fault.when ?? 'before') === when
}
