/** Snapshots of a VM, as its node lists them. */
import * as v from 'valibot'
import { SnapshotName } from './ids.ts'

export const VmSnapshot = v.object({
  name: v.string(),
  /** ISO 8601. */
  created_at: v.string(),
  /** What the VM did then: rolled back to, it does so again. */
  state: v.picklist(['running', 'stopped']),
  /** Whether its memory is kept too. */
  memory: v.boolean(),
  /** What it took when it was made, bytes: mostly memory. Disks grow by what is overwritten later. Null where that was not measured. */
  size_bytes: v.nullable(v.number()),
  /** The snapshot that the VM had come from when this one was made. */
  parent: v.nullable(v.string()),
  /** The VM comes from this one: it was made or rolled back to last. */
  current: v.boolean(),
})
export type VmSnapshot = v.InferOutput<typeof VmSnapshot>

/** Most snapshots of a VM: each makes its disks' files larger and slower to open. */
export const SNAPSHOTS_MAX = 32

/** The name of a snapshot whose caller gave none: `at` (ms since the epoch) to the millisecond, such as 20261122T041530123Z. */
export function snapshotNameAt(at: number): string {
  return v.parse(SnapshotName, new Date(at).toISOString().replaceAll(/[-:.]/g, ''))
}
