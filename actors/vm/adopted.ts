/**
 * What a record takes over of what an operation or an operator says its VM is. Where that names parts (`only`), the others stay as they
 * are wanted: what somebody changed behind Muster's back is not taken over by the way.
 */
import { slotOf } from '../contract/found.ts'
import type { VmContext } from '../contract/vm.ts'
import type { Wanted } from '../contract/vm-changes.ts'

export function adopted(context: VmContext, wanted: Wanted | undefined): Partial<VmContext> {
  const { only, ...values } = wanted ?? {}
  const given = Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined))
  if (!only) return given
  const isNamed = (name: string) => (name === 'image_uuid' ? only.some(isDisk) : only.includes(name))
  const { disks, nics } = values
  return {
    ...Object.fromEntries(Object.entries(given).filter(([name]) => isNamed(name))),
    ...(disks && only.some(isDisk) ? { disks: mergedDisks(context.disks, disks, only) } : {}),
    ...(nics && only.some(isNic) ? { nics: mergedNics(context.nics, nics, only) } : {}),
  }
}

const isDisk = (part: string) => part.startsWith('disks.')
const isNic = (part: string) => part.startsWith('nics.')

type Disk = VmContext['disks'][0]
type Nic = VmContext['nics'][0]

/** By slot; a slot that is the place in the list is not said. */
function mergedDisks(before: Disk[], after: Disk[], only: string[]): Disk[] {
  const named = new Set(only.filter(isDisk).map(part => slotOf(part.slice('disks.'.length))))
  const slotted = (disks: Disk[]) => disks.map((disk, n) => ({ ...disk, slot: disk.slot ?? n }))
  return [
    ...slotted(before).filter(({ slot }) => !named.has(slot)),
    ...slotted(after).filter(({ slot }) => named.has(slot)),
  ]
    .sort((a, b) => a.slot - b.slot)
    .map(({ slot, ...disk }, n) => (slot === n ? disk : { ...disk, slot }))
}

/** Those that stay keep their order; only one NIC can be the primary one. */
function mergedNics(before: Nic[], after: Nic[], only: string[]): Nic[] {
  const named = new Set(only.filter(isNic).map(part => part.slice('nics.'.length)))
  const macOf = ({ mac }: Nic) => mac.toLowerCase()
  const changed = new Map(after.filter(nic => named.has(macOf(nic))).map(nic => [macOf(nic), nic]))
  const hasPrimary = [...changed.values()].some(({ primary }) => primary)
  const kept = before.flatMap(nic => {
    if (named.has(macOf(nic))) return changed.get(macOf(nic)) ?? []
    const { primary, ...rest } = nic
    return hasPrimary || primary === undefined ? rest : nic
  })
  const there = new Set(kept.map(macOf))
  return [...kept, ...[...changed.values()].filter(nic => !there.has(macOf(nic)))]
}
