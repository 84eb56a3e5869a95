/** What runs for a VM, seen from its host: the threads of the process that is its machine. */

/** A part of `Hypervisor`: the same rules hold. */
export interface Processes {
  /** VmNotFound, VmNotRunning. Never waits for a guest that hangs. */
  listThreads(uuid: string): Promise<VmThread[]>
}

/** A thread of QEMU, or where the agent may not see those, a virtual CPU by its number. `cpu_ms`: the time it has run. */
export interface VmThread {
  id: number
  name: string
  /** The kernel's letter for its state. */
  state?: string
  cpu_ms: number
}
