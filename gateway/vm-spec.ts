/**
 * From the payloads of both APIs to the VmSpec that an agent makes a domain from. Pure: ids and addresses come from the source
 * given. SmartOS terms map to Linux (DESIGN §10): a zone's image and quota become its root disk, cpu_cap a number of vcpus.
 */
import * as v from 'valibot'
import { type FieldError, rejection } from '../actors/contract/errors.ts'
import { ImageName, Mac, NetworkName } from '../actors/contract/ids.ts'
import { VmSpec } from '../actors/contract/vm.ts'
import type { IdSource } from './ids.ts'
import { booleanWord, number, object, text, uuid } from './rules.ts'
import { fieldErrors } from './validate.ts'

const whole = v.pipe(number, v.integer('must be a whole number'))
const mib = v.pipe(whole, v.minValue(1, 'must be at least 1'), v.maxValue(64 * 1024 * 1024, 'must be at most 67108864'))

const Disk = v.looseObject({
  size: v.optional(mib),
  image_uuid: v.optional(ImageName),
  image_name: v.optional(ImageName),
  image_size: v.optional(mib),
})

const Nic = v.looseObject({
  mac: v.optional(Mac),
  network: v.optional(NetworkName),
  nic_tag: v.optional(v.pipe(text, v.minLength(1), v.maxLength(64))),
  bridge: v.optional(text),
  vlan_id: v.optional(v.pipe(whole, v.minValue(0, 'must be 0 to 4094'), v.maxValue(4094, 'must be 0 to 4094'))),
  ip: v.optional(text),
  primary: v.optional(booleanWord),
})

/**
 * CNAPI's VmCreate payload (cnapi-behaviour §9.2), the parts that mean something here; other members are accepted and ignored.
 * ram and max_physical_memory are the same thing, MiB; quota is GiB, disk sizes MiB, cpu_cap percent of a core.
 */
export const vmPayload = {
  jobid: v.optional(text),
  uuid: v.optional(uuid),
  alias: v.optional(v.pipe(text, v.maxLength(200, 'must have at most 200 characters'))),
  owner_uuid: v.optional(uuid),
  brand: v.optional(v.pipe(text, v.minLength(1), v.maxLength(32))),
  ram: v.optional(mib),
  max_physical_memory: v.optional(mib),
  vcpus: v.optional(v.pipe(number, v.minValue(0), v.maxValue(255, 'must be at most 255'))),
  cpu_cap: v.optional(v.pipe(number, v.minValue(1, 'must be at least 1'))),
  quota: v.optional(v.pipe(number, v.minValue(0, 'must not be negative'), v.maxValue(65_536, 'must be at most 65536'))),
  disks: v.optional(v.pipe(v.array(Disk, 'value was not an array'), v.maxLength(256))),
  image_uuid: v.optional(ImageName),
  image: v.optional(object),
  nics: v.optional(v.pipe(v.array(Nic, 'value was not an array'), v.maxLength(32))),
  autoboot: v.optional(booleanWord),
  customer_metadata: v.optional(object),
  internal_metadata: v.optional(object),
  tags: v.optional(object),
} as const
export type VmPayload = v.InferOutput<v.ObjectSchema<typeof vmPayload, undefined>>

const notMb = 'must be a number of MB'

/** The compute agent's payload (compute-agent-api.md): memory in MB, disks in GB each; `cmdline` is of the newer form. */
export const hostPayload = {
  memory: v.pipe(
    v.union([v.number(), v.pipe(v.string(), v.regex(/^\d+$/, notMb))], notMb),
    v.transform(Number),
    v.integer('must be a whole number of MB'),
    v.minValue(1, 'must be at least 1'),
    v.maxValue(64 * 1024 * 1024, 'must be at most 67108864'),
  ),
  disks: v.pipe(
    v.array(
      v.pipe(
        v.number('must be a number of GB'),
        v.integer('must be a whole number of GB'),
        v.minValue(1, 'must be at least 1'),
        v.maxValue(65_536, 'must be at most 65536'),
      ),
      'must be a list of sizes in GB',
    ),
    v.maxLength(256, 'must be at most 256'),
  ),
  networks: v.pipe(v.array(NetworkName, 'must be a list of network names'), v.maxLength(32, 'must be at most 32')),
  install: v.optional(booleanWord),
  location: v.optional(
    v.pipe(
      v.string('must be a string'),
      v.maxLength(2048, 'must have at most 2048 characters'),
      v.regex(/^https?:\/\/[^\s]+$/, 'must be an http or https URL'),
    ),
  ),
  cmdline: v.optional(
    v.pipe(
      v.string('must be a string'),
      v.maxLength(2048, 'must have at most 2048 characters'),
      v.regex(/^[\x20-\x7e]*$/, 'must be printable ASCII'),
    ),
  ),
  console: v.optional(booleanWord),
} as const
export type HostPayload = v.InferOutput<v.ObjectSchema<typeof hostPayload, undefined>>

export type Mapped = { spec: VmSpec; image_uuid?: string } | { errors: FieldError[] }

/** Size of a root disk whose payload names an image but no size, MiB. */
export const ROOT_DISK_MIB = 10 * 1024

/** Most bytes of a spec as JSON: it travels in a message and in the task's record. */
export const SPEC_MAX_BYTES = 128 * 1024
export const specTooLarge = rejection('PayloadTooLarge', `The VM's description is larger than ${SPEC_MAX_BYTES} bytes`)

/** A CNAPI payload. The domain is named by the VM's uuid; a missing uuid and missing addresses are made. */
export function vmSpecOf(payload: VmPayload, ids: IdSource): Mapped {
  const memory = payload.ram ?? payload.max_physical_memory
  if (memory === undefined) return { errors: [{ field: 'ram', code: 'Invalid', message: 'value was not a number' }] }
  const lost = (payload.nics ?? []).findIndex(nic => !nic.network && !nic.nic_tag && !nic.bridge)
  if (lost >= 0) {
    return { errors: [{ field: `nics.${lost}.nic_tag`, code: 'Invalid', message: 'value was not a string' }] }
  }
  const id = payload.uuid ?? ids.vm()
  const disks = disksOf(payload)
  const spec = {
    uuid: id,
    name: id,
    alias: payload.alias,
    owner_uuid: payload.owner_uuid,
    brand: payload.brand ?? 'kvm',
    memory_mib: memory,
    vcpus: vcpusOf(payload),
    cpu_cap: payload.cpu_cap,
    quota_gib: payload.quota,
    disks,
    nics: (payload.nics ?? []).map((nic, index) => nicOf(nic, index, ids)),
    autoboot: payload.autoboot ?? true,
    customer_metadata: payload.customer_metadata,
    internal_metadata: payload.internal_metadata,
    tags: payload.tags,
  }
  return checked(spec, disks.find(disk => disk.image !== undefined)?.image)
}

/** A compute agent's payload. The domain is named by the hostname, in lower case: host names have no case. */
export function hostSpecOf(hostname: string, payload: HostPayload, ids: IdSource): Mapped {
  const { location, cmdline, console = false } = payload
  return checked({
    uuid: ids.vm(),
    name: hostname.toLowerCase(),
    brand: 'kvm',
    memory_mib: payload.memory,
    vcpus: 1,
    disks: payload.disks.map(gib => ({ size_mib: gib * 1024 })),
    nics: payload.networks.map((network, index) => ({ mac: ids.mac(index), network })),
    autoboot: true,
    install: payload.install ? withoutUndefined({ location, cmdline, console }) : undefined,
  })
}

/** `location` is required with `install`. */
export function checkHostPayload(payload: HostPayload): FieldError[] {
  const missing = payload.install === true && payload.location === undefined
  return missing ? [{ field: 'location', code: 'Missing', message: 'is required with install' }] : []
}

function checked(spec: object, image?: string): Mapped {
  const result = v.safeParse(VmSpec, withoutUndefined(spec))
  if (!result.success) return { errors: fieldErrors('', result.issues) }
  return { spec: result.output, ...(image === undefined ? {} : { image_uuid: image }) }
}

/** Whole virtual CPUs: as given, else enough for cpu_cap, else one. */
function vcpusOf({ vcpus, cpu_cap }: VmPayload): number {
  return Math.min(255, Math.max(1, Math.ceil(vcpus ?? (cpu_cap ?? 0) / 100)))
}

type DiskOut = { size_mib: number; image?: string }

/** Disks as listed, the first one from the image named beside them; without a list, one root disk from image and quota. */
function disksOf({ disks, image_uuid, image, quota }: VmPayload): DiskOut[] {
  const named = image_uuid ?? imageOf(image)
  const rootMib = quota ? Math.ceil(quota * 1024) : undefined
  if (!disks || disks.length === 0) {
    if (named === undefined && rootMib === undefined) return []
    return [{ size_mib: rootMib ?? ROOT_DISK_MIB, ...(named === undefined ? {} : { image: named }) }]
  }
  return disks.map((disk, index) => {
    const source = disk.image_uuid ?? disk.image_name ?? (index === 0 ? named : undefined)
    const size_mib = disk.size ?? disk.image_size ?? (index === 0 ? rootMib : undefined) ?? ROOT_DISK_MIB
    return { size_mib, ...(source === undefined ? {} : { image: source }) }
  })
}

/** CNAPI's callers send the image's manifest along. */
function imageOf(image: object | undefined): string | undefined {
  const id = image && 'uuid' in image ? image.uuid : undefined
  return typeof id === 'string' ? id : undefined
}

/** VLAN 0 is CNAPI's way to say untagged. */
function nicOf(nic: v.InferOutput<typeof Nic>, index: number, ids: IdSource) {
  const { network, nic_tag, bridge, ip, primary, vlan_id } = nic
  return withoutUndefined({
    mac: (nic.mac ?? ids.mac(index)).toLowerCase(),
    network,
    nic_tag,
    bridge,
    vlan_id: vlan_id === 0 ? undefined : vlan_id,
    ip,
    primary,
  })
}

function withoutUndefined<T extends object>(value: T): object {
  return Object.fromEntries(Object.entries(value).filter(([, member]) => member !== undefined))
}
