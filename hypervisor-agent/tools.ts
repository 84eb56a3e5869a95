/** What an agent works with beside its hypervisor: each opened once, given to every task and live read. */
import type { Installs } from './install/installs.ts'

export interface Tools {
  /** Network installs under way. */
  installs: Installs
}
