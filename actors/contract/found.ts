/**
 * What an agent finds of a VM, in the terms in which the VM's record says what is wanted: `gateway/drift.ts` compares the two. Parts of a
 * VM have names, as an update's result has them: fields, disks by target (`disks.sdb`), NICs by address (`nics.52:54:00:12:34:56`),
 * the ports that a running VM's NICs are plugged into (`nics.52:54:00:12:34:56.port`).
 */
import * as v from 'valibot'
import { Uuid } from './ids.ts'
import { NicSpec } from './vm.ts'

/** A switch's port, or where one should be: `vlan_id` is its access tag. */
export const PortPlace = v.object({ bridge: v.nullable(v.string()), vlan_id: v.nullable(v.number()) })
export type PortPlace = v.InferOutput<typeof PortPlace>

/**
 * The definition of a VM. Sizes in MiB, quota in GiB, cpu_cap in percent of a core. Of one that Muster did not make, disks that are not SCSI
 * disks are left out. `file`: where a disk is, if not in the volume that Muster made for its slot.
 */
export const FoundDefinition = v.object({
  ram: v.number(),
  vcpus: v.number(),
  autoboot: v.boolean(),
  alias: v.nullable(v.string()),
  owner_uuid: v.nullable(v.string()),
  cpu_cap: v.nullable(v.number()),
  quota: v.nullable(v.number()),
  tags: v.record(v.string(), v.unknown()),
  disks: v.array(
    v.object({ slot: v.number(), size_mib: v.number(), image: v.optional(v.string()), file: v.optional(v.string()) }),
  ),
  nics: v.array(NicSpec),
})
export type FoundDefinition = v.InferOutput<typeof FoundDefinition>

export const FoundVm = v.object({
  uuid: Uuid,
  name: v.string(),
  state: v.string(),
  /** When it changed last, as far as its hypervisor was heard, ms since the epoch. */
  changed_at: v.number(),
  definition: FoundDefinition,
  /** Ports of a running VM's NICs where the switch tells them; `as`: as the running VM is plugged in. */
  ports: v.array(v.object({ mac: v.string(), interface: v.string(), as: PortPlace, is: PortPlace })),
  /** Parts in which the running guest is not as its definition: they come with its next boot. */
  pending: v.array(v.string()),
})
export type FoundVm = v.InferOutput<typeof FoundVm>

/** A page of the VMs of a node, by uuid. */
export const FoundPage = v.object({
  /** The agent's clock, ms since the epoch. */
  at: v.number(),
  /** Each with the time since when each of its parts is as found, ms since the epoch. */
  vms: v.array(v.object({ ...FoundVm.entries, since: v.record(v.string(), v.number()) })),
  /** Those that could not be looked at. */
  unread: v.array(v.object({ uuid: Uuid, code: v.string(), message: v.string() })),
  /** Ask for what comes after it. */
  next: v.optional(Uuid),
})
export type FoundPage = v.InferOutput<typeof FoundPage>

/** A found VM by part: what it is compared by, and what is remembered of it. */
export function partsOf({ state, name, definition, ports }: FoundVm): Record<string, unknown> {
  const { disks, nics, ...fields } = definition
  return {
    state,
    name,
    ...fields,
    // A title cannot be empty.
    alias: fields.alias || null,
    ...Object.fromEntries(disks.map(({ slot, ...disk }) => [`disks.${targetOf(slot)}`, disk])),
    ...Object.fromEntries(nics.map(nic => [`nics.${nic.mac.toLowerCase()}`, placeOf(nic)])),
    ...Object.fromEntries(ports.map(({ mac, is }) => [`nics.${mac.toLowerCase()}.port`, is])),
  }
}

/** Where a NIC is plugged in, without what only describes it: a network says all, no VLAN and VLAN 0 are the same. */
export function placeOf({
  network,
  nic_tag,
  bridge,
  vlan_id,
}: Pick<NicSpec, 'network' | 'nic_tag' | 'bridge' | 'vlan_id'>) {
  if (network !== undefined) return { network }
  return {
    ...(nic_tag === undefined ? {} : { nic_tag }),
    ...(bridge === undefined ? {} : { bridge }),
    ...(vlan_id ? { vlan_id } : {}),
  }
}

/** sda, sdb, ... sdz, sdaa, ...: the kernel's names of SCSI disks. */
export function targetOf(slot: number): string {
  const letters = (rest: number): string =>
    (rest >= 26 ? letters(Math.floor(rest / 26) - 1) : '') + String.fromCharCode(97 + (rest % 26))
  return `sd${letters(slot)}`
}

/** The slot of a target, the reverse of `targetOf`; -1 for a disk that is not a SCSI disk. */
export function slotOf(target: string): number {
  const letters = /^sd([a-z]+)$/.exec(target)?.[1] ?? ''
  return [...letters].reduce((sum, letter) => sum * 26 + letter.charCodeAt(0) - 96, 0) - 1
}

/** With sorted keys, so that what is equal reads equal; members that are undefined are none. */
export function readable(value: unknown): string {
  const sorted = (_: string, member: unknown) =>
    typeof member === 'object' && member !== null && !Array.isArray(member)
      ? Object.fromEntries(Object.entries(member).sort(([a], [b]) => (a < b ? -1 : 1)))
      : member
  return JSON.stringify(value, sorted) ?? 'undefined'
}
