/**
 * Changing what a VM is: its definition as a value (`VmShape`), switched in one step, with a running guest brought in line as far as
 * that is possible. What can be wanted is `shape.ts`; the order of steps and what takes them back is in `tasks/`.
 */
import type { NicSpec } from '../actors/contract/vm.ts'

/** A part of `Hypervisor`: the same rules hold. Every call is VmNotFound for an absent VM. */
export interface Devices {
  /** The VM as its definition has it. InvalidArgument for one that Muster did not make, VmBusy for one that is not made yet. */
  shapeOf(uuid: string): Promise<VmShape>
  /**
   * Refuses what cannot come true on this node, and changes nothing: ImageNotInstalled, InsufficientStorage, InsufficientMemory,
   * NetworkNotFound, NicTagNotFound, BridgeNotFound, InvalidArgument.
   */
  checkShape(uuid: string, wanted: VmShape): Promise<void>
  /** Makes the volumes that `wanted` names and the definition does not. One that is there already is made anew: it may be half of one. */
  makeVolumes(uuid: string, wanted: VmShape): Promise<void>
  /**
   * Switches the definition to `wanted`, at once and whole, and gives a running guest what it can of `parts` (`shape.ts`). Answers which
   * of them it has not: those come with its next boot. Sizes of disks that are there already are not touched.
   */
  reshapeVm(
    uuid: string,
    wanted: VmShape,
    options: { parts: string[] },
  ): Promise<{ running: boolean; pending: string[] }>
  /**
   * The parts in which a running guest is not as its definition: they come when it is started again, not when it reboots by itself.
   * None of a VM that does not run.
   */
  pendingParts(uuid: string): Promise<string[]>
  /** Gives a disk this size, seen by a running guest at once. What the disk holds below both sizes stays. */
  resizeDisk(uuid: string, slot: number, sizeMib: number): Promise<void>
  /** Deletes the volumes made for this VM that neither its definition nor its running guest uses. */
  sweepVolumes(uuid: string): Promise<void>
}

/** What an update can change of a VM. Sizes in MiB, quota in GiB. */
export interface VmShape {
  memory_mib: number
  vcpus: number
  autoboot: boolean
  alias?: string
  owner_uuid?: string
  cpu_cap?: number
  quota_gib?: number
  /** By slot. */
  disks: ShapeDisk[]
  nics: NicSpec[]
  customer_metadata: Record<string, unknown>
  internal_metadata: Record<string, unknown>
  tags: Record<string, unknown>
}

export interface ShapeDisk {
  /** 0 is sda. */
  slot: number
  /** Name of its volume in the pool; of a disk elsewhere, its path. */
  volume: string
  size_mib: number
  image?: string
}
