/**
 * What an update of a VM asks for, and what its record adopts when an operation has changed the VM. Sizes in MiB, quota in GiB, cpu_cap
 * in percent of a core; null takes a cap or quota away.
 */
import * as v from 'valibot'
import { Mac, Uuid } from './ids.ts'
import { DiskSpec, NicSpec, VmContext, VmSpec } from './vm.ts'

const { memory_mib, vcpus, alias, owner_uuid } = VmSpec.entries
const values = v.optional(v.record(v.string(), v.unknown()))
const names = v.optional(v.pipe(v.array(v.string()), v.maxLength(1024)))

/** A disk as callers name it: `sdb`, `/dev/sdb`, or its path as VmLoad shows it. */
export const DiskName = v.pipe(v.string(), v.minLength(1), v.maxLength(4096))

/** A NIC moves to another place by its MAC; what is not named stays. A network takes the place of nic tag, bridge and VLAN, and the reverse. */
export const NicChange = v.object({
  ...NicSpec.entries,
  /** 0: no VLAN. */
  vlan_id: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(4094))),
})
export type NicChange = v.InferOutput<typeof NicChange>

export const VmChanges = v.object({
  memory_mib: v.optional(memory_mib),
  vcpus: v.optional(vcpus),
  cpu_cap: v.nullish(v.pipe(v.number(), v.minValue(1))),
  quota_gib: v.nullish(v.pipe(v.number(), v.minValue(0))),
  alias,
  owner_uuid,
  autoboot: v.optional(v.boolean()),
  add_disks: v.optional(v.pipe(v.array(DiskSpec), v.maxLength(255))),
  update_disks: v.optional(
    v.pipe(v.array(v.object({ disk: DiskName, size_mib: DiskSpec.entries.size_mib })), v.maxLength(256)),
  ),
  remove_disks: v.optional(v.pipe(v.array(DiskName), v.maxLength(256))),
  add_nics: v.optional(v.pipe(v.array(NicSpec), v.maxLength(32))),
  update_nics: v.optional(v.pipe(v.array(NicChange), v.maxLength(32))),
  remove_nics: v.optional(v.pipe(v.array(Mac), v.maxLength(32))),
  set_customer_metadata: values,
  remove_customer_metadata: names,
  set_internal_metadata: values,
  remove_internal_metadata: names,
  set_tags: values,
  remove_tags: names,
})
export type VmChanges = v.InferOutput<typeof VmChanges>

/** What CNAPI lets a start or reboot carry: new internal metadata and nothing else (cnapi-behaviour §9.3). */
export const MetadataUpdate = v.object({ set_internal_metadata: v.record(v.string(), v.unknown()) })

/** A place of NICs: a libvirt network by name, or the bridge of a nic tag with a VLAN (0: none). */
export const NicPlaceName = v.object({
  network: NicSpec.entries.network,
  nic_tag: NicSpec.entries.nic_tag,
  bridge: NicSpec.entries.bridge,
  vlan_id: NicChange.entries.vlan_id,
})
export type NicPlaceName = v.InferOutput<typeof NicPlaceName>

/** With `subnet` (`10.0.0.0/24`), only NICs whose address is known to be elsewhere are not meant. */
export const LocatedNics = v.object({
  ...NicPlaceName.entries,
  subnet: v.optional(v.pipe(v.string(), v.maxLength(64))),
})
export type LocatedNics = v.InferOutput<typeof LocatedNics>

/** The part of a VM's record that operations on the node change: as it is from now on. */
export const Wanted = v.object({
  ...v.partial(
    v.pick(VmContext, [
      'ram',
      'vcpus',
      'cpu_cap',
      'quota',
      'alias',
      'owner_uuid',
      'image_uuid',
      'disks',
      'nics',
      'autoboot',
      'tags',
    ]),
  ).entries,
  /** The parts that this is about (found.ts has their names); absent: all of it. */
  only: v.optional(v.array(v.string())),
})
export type Wanted = v.InferOutput<typeof Wanted>

/** What a task of the node has made of one of its VMs. */
export const ChangedVm = v.object({ uuid: Uuid, wanted: Wanted })
export type ChangedVm = v.InferOutput<typeof ChangedVm>

/** What a task's result says it has made of a VM; an agent of another make says nothing of the kind. */
export function wantedIn(result: unknown): Wanted | undefined {
  const said = v.safeParse(v.object({ wanted: Wanted }), result)
  return said.success ? said.output.wanted : undefined
}

/** What a task of the node has made of its VMs, as an agent of an earlier release tells it: in the task's result. */
export function changedIn(result: unknown): ChangedVm[] {
  const said = v.safeParse(v.object({ vms: v.array(v.unknown()) }), result)
  return said.success ? said.output.vms.filter(vm => v.is(ChangedVm, vm)) : []
}
