/** Programs inside a guest, through the QEMU guest agent that runs there: part of `Hypervisor`, with the same rules. */
export interface GuestScripts {
  /** Whether an agent in the guest listens now. */
  hasGuestAgent(uuid: string): Promise<boolean>
  /** Runs a script with the guest's /bin/sh and waits for its end. VmNotRunning, GuestAgentNotConnected, TaskTimedOut. */
  runInGuest(uuid: string, script: string, options: { timeoutMs: number }): Promise<GuestOutcome>
}

/** `exit_code` is null where a signal ended it. Outputs are cut to their last 4 KiB. */
export interface GuestOutcome {
  exit_code: number | null
  output: string
}
