/** Snapshots of a VM as its hypervisor keeps them: all disks together, and the memory where it was running. */
import type { VmSnapshot } from '../actors/contract/snapshot.ts'

/** A part of `Hypervisor`: the same rules hold. Every call is VmNotFound for an absent VM. */
export interface Snapshots {
  /** Oldest first. Never waits for a guest that hangs. */
  listSnapshots(uuid: string): Promise<KnownSnapshot[]>
  /**
   * Keeps disks and memory under this name; the VM stays as it is, and is as it was if that fails. The same name by the same task is
   * done once, by another task it is SnapshotExists.
   */
  createSnapshot(uuid: string, wanted: { name: string; taskId: string }): Promise<void>
  /**
   * The VM as it was then: running with its memory, or stopped, whatever it does now, with the memory, vCPUs, disks and NICs of then. What
   * else Muster knows of it (alias, owner, tags, metadata) stays as it is. SnapshotNotFound, InsufficientMemory.
   */
  rollbackSnapshot(uuid: string, name: string): Promise<void>
  /** Forgets it with all it takes, also what an aborted creation left under this name. An absent snapshot is success. */
  deleteSnapshot(uuid: string, name: string): Promise<void>
}

/** `created_by`: the task that made it, if Muster did. */
export type KnownSnapshot = VmSnapshot & { created_by?: string }
