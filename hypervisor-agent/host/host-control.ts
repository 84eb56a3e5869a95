/**
 * What the agent does to the host itself: its name, its reboot, and which boot this is. Two implementations: linux.ts, and
 * simulated/host-control.ts, whose reboot really takes the simulated node away.
 */
import type { NodeCheck } from '../../actors/contract/tasks/server.ts'

export interface HostControl {
  /** Which boot this is: another one after every reboot, whatever the clock says. */
  bootId(): Promise<string>
  /** When it began, seconds since the epoch. */
  bootTimeS(): Promise<number>
  /** For good. The same again is success. */
  setHostname(hostname: string): Promise<void>
  /** Resolves once the reboot is certain to come. The same again is success. */
  reboot(): Promise<void>
  /** Whether it could do this now, as far as that can be said without doing it. */
  checks(): Promise<NodeCheck[]>
  /** A host that can lose its power without this process: tells when. Returns the way to stop. */
  onPower?(listener: (power: 'off' | 'on') => void): () => void
}
