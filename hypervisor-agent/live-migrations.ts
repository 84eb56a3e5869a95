/**
 * What moving a running VM to another node needs of the two hypervisors, phase by phase. Which agent tells the other what is
 * `streams/live.ts`'s; when each phase comes is the VM's actor's.
 */

/** What the source has for the target. `cookie`: for the other hypervisor alone, base64. */
export interface LiveOffer {
  definition: string
  cookie: string
}

/** What the target has for the source. `ports`: where it listens on the loopback, for the memory and for each disk; absent: nowhere. */
export interface LiveRoom {
  cookie: string
  ports?: { memory: number; disks: number }
}

/** A part of `Hypervisor`: the same rules hold. What a phase has begun does not outlive the agent: it is then taken back by `recallLive`. */
export interface LiveMigrations {
  /**
   * On the source: describes the running guest. VmNotRunning; LiveMigrationNotSupported, saying what stands against it;
   * MigrationInterrupted where it was paused by an earlier try.
   */
  beginLive(uuid: string): Promise<LiveOffer>
  /** On the target: makes room beside what `defineVm` made as `incoming`. InsufficientMemory, LiveMigrationNotSupported. */
  prepareLive(uuid: string, offer: LiveOffer): Promise<LiveRoom>
  /**
   * On the source: copies disks and memory to those ports of its own loopback, which lead to the target's. In the end the guest is paused;
   * the answer is for `finishLive`. When it fails, or is aborted, the guest runs on, at the latest when it is recalled. MigrationInterrupted.
   */
  performLive(
    uuid: string,
    room: LiveRoom,
    how: { signal: AbortSignal; progress: (percent: number) => void },
  ): Promise<string>
  /**
   * On the target: the guest goes on here. One that does so already is success. MigrationInterrupted where nothing has arrived.
   * `downtime_ms`: how long it stood still, where that is known.
   */
  finishLive(uuid: string, cookie: string): Promise<{ downtime_ms?: number }>
  /** On the source: ends whatever is under way; a guest that was paused by it goes on, one that stopped stays so. */
  recallLive(uuid: string): Promise<void>
}
