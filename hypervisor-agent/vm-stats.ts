/** What a running VM uses, as its host counts it: part of `Hypervisor`, with the same rules. */
export interface VmStats {
  /** VmNotFound, VmNotRunning. Never waits for a guest that hangs. */
  vmStats(uuid: string): Promise<VmFigures>
}

/** Counters since the VM was started, but for the memory. */
export interface VmFigures {
  cpu_ns: number
  user_ns: number
  system_ns: number
  /** The host's, and all their time, idle or not. */
  host_cpus: number
  host_cpu_ns: number
  memory_limit_bytes: number
  memory_used_bytes: number
  disks: { name: string; read_bytes: number; reads: number; write_bytes: number; writes: number }[]
  nics: { name: string; rx: NicFigures; tx: NicFigures }[]
}

export interface NicFigures {
  bytes: number
  packets: number
  errors: number
  dropped: number
}
