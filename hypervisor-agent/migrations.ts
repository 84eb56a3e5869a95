/** What moving a VM to another node needs of a hypervisor. The order of steps is the VM's actor's, what each does is in `tasks/`. */

/** A part of `Hypervisor`: the same rules hold. Every call is VmNotFound for an absent VM. */
export interface Migrations {
  /**
   * Keeps a stopped VM from being started, by anybody and with its node, until it is released; `migration` marks whose it is. VmNotStopped;
   * VmBusy where another migration holds it. `live`: also a running one, which goes on and is not started again when it stops.
   */
  holdVm(uuid: string, migration: string, how?: { live: boolean }): Promise<void>
  /** As it was before it was held by this migration; one that is not held by it stays as it is. */
  releaseVm(uuid: string, migration: string): Promise<void>
  /** What `defineVm` made as `incoming` is whole now, and may be started. */
  completeVm(uuid: string): Promise<void>
  /** The file of a stopped VM's nth disk (by slot) as it stands alone, whatever image it was made from; at most `bytes` of it. */
  readDisk(uuid: string, n: number, bytes?: number): Promise<AsyncIterable<Uint8Array>>
  /** Replaces the file of the nth disk of a VM that is not whole yet. */
  writeDisk(uuid: string, n: number, pieces: AsyncIterable<Uint8Array>): Promise<void>
}
