/**
 * What Muster remembers about a VM in the domain itself: an element of its own namespace that holds readable JSON. Who lacks
 * it was not made by Muster.
 */
import * as v from 'valibot'
import { NicSpec, type VmSpec } from '../../actors/contract/vm.ts'
import { type Xml, xml } from './xml.ts'

/** Name of the namespace; the number changes when the content cannot be read by earlier releases. */
export const metadataNamespace = 'urn:muster:vm:1'

const record = v.optional(v.record(v.string(), v.unknown()), {})

const VmMetadata = v.object({
  /** The task that defined it. */
  task_id: v.string(),
  /** ms since the epoch. */
  created_at: v.number(),
  /** False until all volumes are there. */
  complete: v.boolean(),
  owner_uuid: v.optional(v.string()),
  alias: v.optional(v.string()),
  brand: v.string(),
  cpu_cap: v.optional(v.number()),
  quota_gib: v.optional(v.number()),
  /** As asked for, in order: what sda, sdb, ... were made from. */
  disks: v.array(v.object({ size_mib: v.number(), image: v.optional(v.string()), slot: v.optional(v.number()) })),
  /** As asked for: the definition says where they are plugged in, this by which tag. Absent in those of before it was kept. */
  nics: v.optional(v.array(NicSpec)),
  /** The migration that holds it, and whether it started with its node before. */
  held: v.optional(v.object({ by: v.string(), autoboot: v.boolean() })),
  customer_metadata: record,
  internal_metadata: record,
  tags: record,
})
export type VmMetadata = v.InferOutput<typeof VmMetadata>

export function vmMetadata(spec: VmSpec, made: { taskId: string; createdAtMs: number; complete: boolean }): VmMetadata {
  return {
    task_id: made.taskId,
    created_at: made.createdAtMs,
    complete: made.complete,
    ...(spec.owner_uuid === undefined ? {} : { owner_uuid: spec.owner_uuid }),
    ...(spec.alias === undefined ? {} : { alias: spec.alias }),
    brand: spec.brand,
    ...(spec.cpu_cap === undefined ? {} : { cpu_cap: spec.cpu_cap }),
    ...(spec.quota_gib === undefined ? {} : { quota_gib: spec.quota_gib }),
    disks: spec.disks,
    nics: spec.nics,
    customer_metadata: spec.customer_metadata ?? {},
    internal_metadata: spec.internal_metadata ?? {},
    tags: spec.tags ?? {},
  }
}

/** For the <metadata> of a new definition. */
export function metadataElement(metadata: VmMetadata): Xml {
  return xml`<muster:vm xmlns:muster="${metadataNamespace}">${json(metadata)}</muster:vm>`
}

/** For libvirt's call that sets metadata, which adds namespace and prefix itself. */
export function plainMetadataElement(metadata: VmMetadata): string {
  return xml`<vm>${json(metadata)}</vm>`.text
}

// JSON may write any character as \uXXXX, so nothing is lost to what XML cannot hold.
function json(metadata: VmMetadata): string {
  return JSON.stringify(metadata).replace(
    /[\u007f-\u009f\ufffe\uffff]/g,
    character => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}

/** What the element says; undefined for a domain that Muster did not make, or whose element somebody broke. */
export function readMetadata(json: string | undefined): VmMetadata | undefined {
  if (json === undefined) return undefined
  try {
    return v.parse(VmMetadata, JSON.parse(json))
  } catch {
    return undefined
  }
}
