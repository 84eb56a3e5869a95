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

interface Seen {
  value: string
  since: number
}

export function openSightings(): Sightings {
  const known = new Map<string, { at: number; parts: Map<string, Seen> }>()
  return {
    note: (vm, at) => {
      const parts = partsOf(vm)
      const last = known.get(vm.uuid)
      const before = last?.parts
      const toldAt = Math.min(vm.changed_at, at)
      // The hypervisor's word, where it came after the part was seen otherwise. It does not tell of all it changes, and a switch of nothing.
      const changedAt = (name: string) => (last && (toldAt <= last.at || name.endsWith('.port')) ? at : toldAt)
      const names = new Set([...Object.keys(parts), ...(before?.keys() ?? [])])
      const now = new Map<string, Seen>()
      for (const name of names) {
        const value = readable(parts[name])
        const seen = before?.get(name)
        now.set(name, seen?.value === value ? seen : { value, since: changedAt(name) })
      }
      known.set(vm.uuid, { at, parts: now })
      return Object.fromEntries([...now].map(([name, { since }]) => [name, since]))
    },
    keep: uuids => {
      const kept = new Set(uuids)
      for (const uuid of known.keys()) if (!kept.has(uuid)) known.delete(uuid)
    },
  }
}
