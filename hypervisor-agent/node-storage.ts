/** The part of a hypervisor that setup and factory reset need: the pool itself, and what is left in it without a VM. */
export interface NodeStorage {
  /** Finds the pool of disks and images or makes it; started, and started with the host. */
  makePool(): Promise<void>
  /** Removes the disks of VMs that are no longer there. Answers their names. */
  removeLeftovers(): Promise<string[]>
}
