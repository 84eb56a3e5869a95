/** What an agent works with beside its hypervisor: each opened once, given to every task and live read. */
import type { Sysinfo } from '../actors/contract/server.ts'
import type { Agents } from './agents/agents.ts'
import type { Builds } from './builds/builds.ts'
import type { GuestStreams } from './guest-streams/guest-streams.ts'
import type { HostControl } from './host/host-control.ts'
import type { NicTags } from './host/nic-tags.ts'
import type { ResetMark } from './host/reset-mark.ts'
import type { Scripts } from './host/scripts.ts'
import type { Hypervisor } from './hypervisor.ts'
import type { Images } from './images/images.ts'
import type { Installs } from './install/installs.ts'
import type { JournalEntry } from './journal.ts'
import type { Sightings } from './sightings.ts'
import type { Receptions } from './streams/receptions.ts'
import type { Zfs } from './zfs/zfs.ts'

/** Tools of the node that are there before its agent: they belong to its hypervisor and its state folder. */
export interface NodeTools {
  /** The host's name and reboot. */
  host: HostControl
  /** Nic tag -> bridge. */
  nicTags: NicTags
  scripts: Scripts
  zfs: Zfs
  /** Builds of container images. */
  builds: Builds
  /** Whether the node was reset and not set up since. */
  resetMark: ResetMark
  /** Since when VMs are as they are found. */
  sightings: Sightings
}

export interface Tools extends NodeTools {
  /** Network installs under way. */
  installs: Installs
  /** Disks that come from other nodes. */
  receptions: Receptions
  /** Streams between callers and VMs. */
  guestStreams: GuestStreams
  /** Installs and removes agents. */
  agents: Agents
  /** Images fetched into the pool. */
  images: Images
  /** The node's inventory as it is now; asked of the hypervisor that a task is given. */
  sysinfo(hypervisor: Hypervisor): Promise<Sysinfo>
  /** Tasks not ended and the last ended ones, oldest first. */
  history(): JournalEntry[]
}
