/**
 * Since when each part of each VM is as it is found. A hypervisor says when it has changed a VM, not which part of it; so the agent
 * remembers what it saw, and for how long it has been so. After its own restart it knows only that it was so no later than it looked.
 */
import { type FoundVm, partsOf, readable } from '../actors/contract/found.ts'

export interface Sightings {
  /** By part, ms since the epoch. Parts that were there before and are gone are told too. */
  note(vm: FoundVm, at: number): Record<string, number>
  /** Forgets all but these VMs. */
  keep(uuids: string[]): void
}

/** Parts are compared by digest: tags may be long. */
interface Seen {
  value: string
  since: number
}

export function openSightings(): Sightings {
  const known = new Map<string, Map<string, Seen>>()
  return {
    note: (vm, at) => {
      const parts = partsOf(vm)
      const before = known.get(vm.uuid)
      // The hypervisor's word is earlier than this look, and later than the last one at which the part was otherwise.
      const changedAt = Math.min(vm.changed_at, at)
      const names = new Set([...Object.keys(parts), ...(before?.keys() ?? [])])
      const now = new Map<string, Seen>()
      for (const name of names) {
        const value = readable(parts[name])
        const seen = before?.get(name)
        const isPort = name.endsWith('.port')
        if (seen?.value === value) now.set(name, seen)
        // A switch tells nobody: of its ports the look itself is all there is to know.
        else now.set(name, { value, since: before && isPort ? at : changedAt })
      }
      known.set(vm.uuid, now)
      return Object.fromEntries([...now].map(([name, { since }]) => [name, since]))
    },
    keep: uuids => {
      const kept = new Set(uuids)
      for (const uuid of known.keys()) if (!kept.has(uuid)) known.delete(uuid)
    },
  }
}
