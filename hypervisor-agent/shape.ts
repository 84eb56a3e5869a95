/**
 * What an update makes of a VM's shape, decided before anything is touched. A shape has parts, named as callers know them: fields, disks
 * by target (`disks.sdb`), NICs by address (`nics.52:54:00:12:34:56`).
 */
import { basename } from 'node:path'
import { type FoundDefinition, targetOf } from '../actors/contract/found.ts'
import type { NicSpec } from '../actors/contract/vm.ts'
import type { NicChange, VmChanges, Wanted } from '../actors/contract/vm-changes.ts'
import type { ShapeDisk, VmShape } from './devices.ts'
import { HypervisorError } from './hypervisor.ts'

export { targetOf } from '../actors/contract/found.ts'

/** Most disks and NICs of a VM, as at its creation. */
const slotsMax = 256
const nicsMax = 32
/** Most bytes of all metadata and tags, as at its creation: they are in its definition and records, which messages carry. */
const wordsMaxBytes = 128 * 1024

/** InvalidArgument for what cannot be: a disk or NIC that is not there, one that is there already, a disk that would shrink. */
export function changedShape(uuid: string, before: VmShape, changes: VmChanges, taskId: string): VmShape {
  const { alias, cpu_cap, owner_uuid, quota_gib, ...kept } = before
  const wanted = {
    ...kept,
    memory_mib: changes.memory_mib ?? before.memory_mib,
    vcpus: changes.vcpus ?? before.vcpus,
    autoboot: changes.autoboot ?? before.autoboot,
    ...optional('alias', changes.alias, alias),
    ...optional('owner_uuid', changes.owner_uuid, owner_uuid),
    ...optional('cpu_cap', changes.cpu_cap, cpu_cap),
    ...optional('quota_gib', changes.quota_gib, quota_gib),
    disks: changedDisks(uuid, before.disks, changes, taskId),
    nics: changedNics(before.nics, changes),
    customer_metadata: merged(
      before.customer_metadata,
      changes.set_customer_metadata,
      changes.remove_customer_metadata,
    ),
    internal_metadata: merged(
      before.internal_metadata,
      changes.set_internal_metadata,
      changes.remove_internal_metadata,
    ),
    tags: merged(before.tags, changes.set_tags, changes.remove_tags),
  }
  const bytes = wordsOf(wanted)
  if (bytes > wordsMaxBytes && bytes > wordsOf(before)) {
    throw invalid(`metadata and tags would have ${bytes} bytes as JSON, more than ${wordsMaxBytes}: remove some`)
  }
  return wanted
}

function wordsOf({ customer_metadata, internal_metadata, tags }: VmShape): number {
  return Buffer.byteLength(JSON.stringify({ customer_metadata, internal_metadata, tags }))
}

/** The parts in which two shapes differ. */
export function changedParts(before: VmShape, wanted: VmShape): string[] {
  const fields = Object.entries(fieldNames).filter(([field]) => differs(before, wanted, field as keyof VmShape))
  const slots = union(before.disks, wanted.disks, disk => String(disk.slot))
  const macs = union(before.nics, wanted.nics, nic => nic.mac)
  return [
    ...fields.map(([, name]) => name),
    ...slots.filter(([a, b]) => json(a) !== json(b)).map(([a, b]) => diskPart((a ?? b) as ShapeDisk)),
    ...macs.filter(([a, b]) => json(a) !== json(b)).map(([a, b]) => nicPart((a ?? b) as NicSpec)),
  ]
}

export const diskPart = ({ slot }: { slot: number }) => `disks.${targetOf(slot)}`
export const nicPart = ({ mac }: { mac: string }) => `nics.${mac.toLowerCase()}`

/** Field by field: a guest has at once what is not its own (alias, tags...), and of the rest what is not pending. */
export function appliedWhen(
  parts: string[],
  { running, pending }: { running: boolean; pending: string[] },
): Record<string, 'live' | 'next_boot'> {
  const isGuests = (part: string) => part === 'ram' || part === 'vcpus' || /^(disks|nics)\./.test(part)
  const waits = (part: string) => isGuests(part) && (!running || pending.includes(part))
  return Object.fromEntries(parts.map(part => [part, waits(part) ? 'next_boot' : 'live']))
}

/** Disks of both shapes whose size differs, with their new sizes. A disk that is replaced is not among them. */
export function resizedDisks(before: VmShape, wanted: VmShape): ShapeDisk[] {
  return wanted.disks.filter(disk =>
    before.disks.some(was => was.volume === disk.volume && was.size_mib !== disk.size_mib),
  )
}

/** A shape as the VM's record keeps it, as far as an operation was about it; metadata stays with the definition. */
export function wantedOf(shape: VmShape, only?: string[]): Wanted {
  return {
    ...(only ? { only } : {}),
    ram: shape.memory_mib,
    vcpus: shape.vcpus,
    cpu_cap: shape.cpu_cap ?? null,
    quota: shape.quota_gib ?? null,
    alias: shape.alias ?? null,
    owner_uuid: shape.owner_uuid ?? null,
    autoboot: shape.autoboot,
    tags: shape.tags,
    image_uuid: shape.disks.find(disk => disk.image !== undefined)?.image ?? null,
    disks: diskSpecs(shape.disks),
    nics: shape.nics,
  }
}

/** Disks as a VmSpec lists them: the slot is said where it is not the place in the list. */
export function diskSpecs(disks: ShapeDisk[]): { size_mib: number; image?: string; slot?: number }[] {
  return disks.map(({ size_mib, image, slot }, n) => ({
    size_mib,
    ...(image === undefined ? {} : { image }),
    ...(slot === n ? {} : { slot }),
  }))
}

/** Volumes that a task makes carry its mark, so that none is ever taken for another of the same slot. */
export function newVolume(uuid: string, slot: number, taskId: string): string {
  return `${uuid.toLowerCase()}-disk${slot}-${taskId.slice(0, 8)}.qcow2`
}

/** Disks as they are found: one that is not in a volume made for its slot names its file. */
export function foundDisks(uuid: string, disks: ShapeDisk[]): FoundDefinition['disks'] {
  return disks.map(({ volume, ...disk }) => {
    const isOwn = new RegExp(`^${uuid.toLowerCase()}-disk${disk.slot}(-[0-9a-f]{8})?\\.qcow2$`).test(volume)
    return isOwn ? disk : { ...disk, file: volume }
  })
}

/** Where a NIC is, without what only describes it. */
export const placeOf = ({ network, nic_tag, bridge, vlan_id }: NicSpec) => ({ network, nic_tag, bridge, vlan_id })

/** A NIC at another place: a network takes the place of tag, bridge and VLAN, and the reverse; what is not named stays. */
export function movedNic(nic: NicSpec, change: NicChange): NicSpec {
  const { network, nic_tag, bridge, vlan_id, ...rest } = change
  const kept = { ...nic, ...defined(rest), mac: nic.mac }
  const { network: wasOn, nic_tag: wasTag, bridge: wasBridge, vlan_id: wasVlan, ...described } = kept
  if (network !== undefined) return { ...described, network }
  if (nic_tag === undefined && bridge === undefined && vlan_id === undefined) return kept
  if (nic_tag === undefined && bridge === undefined && wasOn !== undefined) {
    throw invalid(`NIC ${nic.mac} is on network ${wasOn}: name a network, or a nic tag with the VLAN`)
  }
  const to = (nic_tag ?? bridge) ? defined({ nic_tag, bridge }) : defined({ nic_tag: wasTag, bridge: wasBridge })
  const vlan = vlan_id ?? wasVlan
  return { ...described, ...to, ...(vlan ? { vlan_id: vlan } : {}) }
}

function changedDisks(uuid: string, before: ShapeDisk[], changes: VmChanges, taskId: string): ShapeDisk[] {
  const removed = (changes.remove_disks ?? []).map(name => findDisk(before, name))
  const disks = before.filter(disk => !removed.includes(disk)).map(disk => ({ ...disk }))
  for (const { disk: name, size_mib } of changes.update_disks ?? []) {
    const disk = findDisk(disks, name)
    if (size_mib < disk.size_mib) {
      throw invalid(`disk ${name} has ${disk.size_mib} MiB: a disk cannot shrink to ${size_mib} MiB`)
    }
    disk.size_mib = size_mib
  }
  for (const { size_mib, image } of changes.add_disks ?? []) {
    const slot = Array.from({ length: slotsMax }, (_, n) => n).find(
      n => !before.some(one => one.slot === n) && !disks.some(one => one.slot === n),
    )
    if (slot === undefined) throw invalid(`a VM has at most ${slotsMax} disks`)
    disks.push({ slot, volume: newVolume(uuid, slot, taskId), size_mib, ...(image === undefined ? {} : { image }) })
  }
  return disks.sort((a, b) => a.slot - b.slot)
}

/** A disk by the names callers have for it; InvalidArgument. */
export function findDisk(disks: ShapeDisk[], name: string): ShapeDisk {
  const wanted = basename(name)
  const disk = disks.find(
    one => one.volume === name || basename(one.volume) === wanted || targetOf(one.slot) === wanted,
  )
  if (disk) return disk
  throw invalid(`the VM has no disk ${name}: it has ${disks.map(one => targetOf(one.slot)).join(', ') || 'none'}`)
}

function changedNics(before: NicSpec[], changes: VmChanges): NicSpec[] {
  const macOf = ({ mac }: { mac: string }) => mac.toLowerCase()
  const need = (mac: string) => {
    if (before.some(nic => macOf(nic) === mac)) return mac
    throw invalid(`the VM has no NIC ${mac}: it has ${before.map(macOf).join(', ') || 'none'}`)
  }
  const removed = (changes.remove_nics ?? []).map(mac => need(mac.toLowerCase()))
  const moves = new Map((changes.update_nics ?? []).map(change => [need(macOf(change)), change]))
  const both = removed.find(mac => moves.has(mac))
  if (both) throw invalid(`NIC ${both} cannot be both removed and changed`)
  const kept = before.filter(nic => !removed.includes(macOf(nic)))
  const nics = kept.map(nic => {
    const change = moves.get(macOf(nic))
    return change ? movedNic(nic, change) : nic
  })
  for (const given of changes.add_nics ?? []) {
    const nic = { ...given, mac: macOf(given) }
    if (before.concat(nics).some(one => macOf(one) === nic.mac)) throw invalid(`the VM has a NIC ${nic.mac} already`)
    nics.push(nic)
  }
  if (nics.length > nicsMax) throw invalid(`a VM has at most ${nicsMax} NICs`)
  // Only one can be the primary one: the one named last.
  const primary = changes.add_nics?.findLast(nic => nic.primary) ?? changes.update_nics?.findLast(nic => nic.primary)
  if (!primary) return nics
  return nics.map(({ primary: _, ...nic }) => (macOf(nic) === macOf(primary) ? { ...nic, primary: true } : nic))
}

function merged(
  before: Record<string, unknown>,
  set: Record<string, unknown> = {},
  remove: string[] = [],
): Record<string, unknown> {
  const kept = Object.entries(before).filter(([name]) => !remove.includes(name))
  return Object.fromEntries([...kept, ...Object.entries(set)])
}

/** The field as wanted, or as it was; null takes it away. */
function optional<K extends string, T>(name: K, wanted: T | null | undefined, was: T | undefined): { [N in K]?: T } {
  const value = wanted === undefined ? was : wanted
  return (value === null || value === undefined ? {} : { [name]: value }) as { [N in K]?: T }
}

/** Field of a shape -> as callers know it. */
const fieldNames = {
  memory_mib: 'ram',
  vcpus: 'vcpus',
  autoboot: 'autoboot',
  alias: 'alias',
  owner_uuid: 'owner_uuid',
  cpu_cap: 'cpu_cap',
  quota_gib: 'quota',
  customer_metadata: 'customer_metadata',
  internal_metadata: 'internal_metadata',
  tags: 'tags',
} as const

const differs = (a: VmShape, b: VmShape, field: keyof VmShape) => json(a[field]) !== json(b[field])

/** Members of two lists, paired by key. */
function union<T>(before: T[], after: T[], key: (one: T) => string): [T | undefined, T | undefined][] {
  const keys = [...new Set([...before, ...after].map(key))]
  return keys.map(wanted => [before.find(one => key(one) === wanted), after.find(one => key(one) === wanted)])
}

/** As JSON with sorted keys: what is equal reads equal. */
function json(value: unknown): string {
  const sorted = (_: string, member: unknown) =>
    typeof member === 'object' && member !== null && !Array.isArray(member)
      ? Object.fromEntries(Object.entries(member).sort(([a], [b]) => (a < b ? -1 : 1)))
      : member
  return JSON.stringify(value, sorted) ?? ''
}

function defined<T extends object>(value: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, member]) => member !== undefined)) as never
}

const invalid = (message: string) => new HypervisorError('InvalidArgument', message)
