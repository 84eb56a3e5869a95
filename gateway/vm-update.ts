/**
 * From a request in vmadm's words to the changes that an agent makes (cnapi-behaviour §9.3). The rules are those of a VM's creation
 * (vm-spec.ts): ram and max_physical_memory are the same thing, VLAN 0 means none, a cap or quota of 0 or null means none.
 */
import * as v from 'valibot'
import { type FieldError, rejection } from '../actors/contract/errors.ts'
import { ImageName, Mac, NetworkName } from '../actors/contract/ids.ts'
import { LocatedNics, VmChanges } from '../actors/contract/vm-changes.ts'
import type { IdSource } from './ids.ts'
import { booleanWord, number, object, objectOf, text, uuid } from './rules.ts'
import { fieldErrors } from './validate.ts'

const whole = v.pipe(number, v.integer('must be a whole number'))
const mib = v.pipe(whole, v.minValue(1, 'must be at least 1'), v.maxValue(64 * 1024 * 1024, 'must be at most 67108864'))
const vlan = v.pipe(whole, v.minValue(0, 'must be 0 to 4094'), v.maxValue(4094, 'must be 0 to 4094'))
const notArray = 'value was not an array'
const upTo = (max: number) => `must be at most ${max}`
const listOf = <S extends v.GenericSchema>(item: S, max: number) =>
  v.optional(v.pipe(v.array(item, notArray), v.maxLength(max, upTo(max))))
const capOrNone = v.optional(v.nullable(v.pipe(number, v.minValue(0, 'must not be negative'), v.maxValue(65_536))))

const place = {
  network: v.optional(NetworkName),
  nic_tag: v.optional(text),
  bridge: v.optional(text),
  vlan_id: v.optional(vlan),
}
const described = { ip: v.optional(text), primary: v.optional(booleanWord) }

/** VmUpdate's members that mean something here; others are ignored and named in the task's result. */
export const vmUpdatePayload = {
  jobid: v.optional(text),
  ram: v.optional(mib),
  max_physical_memory: v.optional(mib),
  vcpus: v.optional(v.pipe(whole, v.minValue(1, 'must be at least 1'), v.maxValue(255, 'must be at most 255'))),
  cpu_cap: capOrNone,
  quota: capOrNone,
  alias: v.optional(v.pipe(text, v.maxLength(200, 'must have at most 200 characters'))),
  owner_uuid: v.optional(uuid),
  autoboot: v.optional(booleanWord),
  add_disks: listOf(
    objectOf({
      size: v.optional(mib),
      image_uuid: v.optional(ImageName),
      image_name: v.optional(ImageName),
      image_size: v.optional(mib),
    }),
    255,
  ),
  /** A disk is named by `path`, as VmLoad shows it, or by its target (`sdb`). */
  update_disks: listOf(objectOf({ path: v.pipe(text, v.minLength(1)), size: mib }), 256),
  remove_disks: listOf(v.pipe(text, v.minLength(1)), 256),
  add_nics: listOf(objectOf({ mac: v.optional(Mac), ...place, ...described }), 32),
  update_nics: listOf(objectOf({ mac: Mac, ...place, ...described }), 32),
  remove_nics: listOf(Mac, 32),
  set_customer_metadata: v.optional(object),
  remove_customer_metadata: listOf(text, 1024),
  set_internal_metadata: v.optional(object),
  remove_internal_metadata: listOf(text, 1024),
  set_tags: v.optional(object),
  remove_tags: listOf(text, 1024),
} as const
export type VmUpdatePayload = v.InferOutput<v.ObjectSchema<typeof vmUpdatePayload, undefined>>

/** Most bytes of an update as JSON: as of a VM's description, it travels in a message and in the task's record. */
export const UPDATE_MAX_BYTES = 128 * 1024
export const updateTooLarge = rejection('PayloadTooLarge', `The update is larger than ${UPDATE_MAX_BYTES} bytes`)

export type MappedUpdate = { changes: VmChanges } | { errors: FieldError[] }

export function vmChangesOf(payload: VmUpdatePayload, ids: IdSource): MappedUpdate {
  const {
    jobid: _,
    ram,
    max_physical_memory,
    quota,
    cpu_cap,
    add_disks,
    update_disks,
    add_nics,
    update_nics,
    ...same
  } = payload
  const sizeless = add_disks?.findIndex(disk => disk.size === undefined && disk.image_size === undefined) ?? -1
  if (sizeless >= 0) return invalid(`add_disks.${sizeless}.size`, 'value was not a number')
  const lost = add_nics?.findIndex(nic => !nic.network && !nic.nic_tag && !nic.bridge) ?? -1
  if (lost >= 0) return invalid(`add_nics.${lost}.nic_tag`, 'value was not a string')
  const changes = {
    ...same,
    memory_mib: ram ?? max_physical_memory,
    quota_gib: quota === 0 ? null : quota,
    cpu_cap: cpu_cap === 0 ? null : cpu_cap,
    add_disks: add_disks?.map(disk => ({
      size_mib: disk.size ?? disk.image_size,
      image: disk.image_uuid ?? disk.image_name,
    })),
    update_disks: update_disks?.map(({ path, size }) => ({ disk: path, size_mib: size })),
    add_nics: add_nics?.map((nic, n) => {
      const { mac, vlan_id, network, nic_tag, bridge, ip, primary } = nic
      return {
        mac: mac ?? ids.mac(n),
        network,
        nic_tag,
        bridge,
        ip,
        primary,
        vlan_id: vlan_id === 0 ? undefined : vlan_id,
      }
    }),
    update_nics: update_nics?.map(({ mac, network, nic_tag, bridge, vlan_id, ip, primary }) => ({
      ...{ mac, network, nic_tag, bridge, vlan_id, ip, primary },
    })),
  }
  // As JSON, for members that are undefined are none.
  const checked = v.safeParse(VmChanges, JSON.parse(JSON.stringify(changes)))
  return checked.success ? { changes: checked.output } : { errors: fieldErrors('', checked.issues) }
}

/** Names of members that mean nothing here, as they are told in the task's result; few and short, for they are the caller's words. */
export function ignoredIn(all: Record<string, unknown>): string[] {
  const known = new Set([...Object.keys(vmUpdatePayload), 'server_uuid', 'uuid'])
  const names = Object.keys(all).filter(name => !known.has(name))
  return names.slice(0, 64).map(name => name.slice(0, 64))
}

const subnet = v.optional(text)

/**
 * VmNicsUpdate (cnapi-behaviour §9.3). A NIC is on the original network by its nic tag and VLAN (or libvirt network, ours), and by its
 * address where that is known; of several networks it moves to the one whose subnet has its address.
 */
export const nicsUpdatePayload = {
  jobid: v.optional(text),
  networks: v.pipe(
    v.array(objectOf({ ...place, subnet }), notArray),
    v.minLength(1, 'must not be empty'),
    v.maxLength(32, upTo(32)),
  ),
  original_network: objectOf({ ...place, subnet }),
} as const
export type NicsUpdatePayload = v.InferOutput<v.ObjectSchema<typeof nicsUpdatePayload, undefined>>

export type MappedMove = { from: LocatedNics; to: LocatedNics[] } | { errors: FieldError[] }

export function nicMovesOf({ networks, original_network: original }: NicsUpdatePayload): MappedMove {
  if (!original.network && !original.nic_tag && !original.bridge)
    return invalid('original_network.nic_tag', 'value was not a string')
  const nowhere = networks.findIndex(one => !one.network && one.vlan_id === undefined)
  if (nowhere >= 0) return invalid(`networks.${nowhere}.vlan_id`, 'value was not a number')
  const checked = v.safeParse(v.object({ from: LocatedNics, to: v.array(LocatedNics) }), {
    from: original,
    to: networks,
  })
  return checked.success ? checked.output : { errors: fieldErrors('', checked.issues) }
}

function invalid(field: string, message: string): { errors: FieldError[] } {
  return { errors: [{ field, code: 'Invalid', message }] }
}
