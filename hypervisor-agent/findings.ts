/** What is really there of a VM: its definition, what its running guest has of it, and the switch ports of its NICs. */
import type { FoundVm } from '../actors/contract/found.ts'

/** A part of `Hypervisor`: the same rules hold. */
export interface Findings {
  /** Never waits for a guest that hangs. Undefined if there is no such VM. */
  lookAtVm(uuid: string): Promise<FoundVm | undefined>
  /**
   * Gives the switch ports of these NICs (all without a list) the VLAN that the running VM has for them. Answers the NICs it mended,
   * and those whose port it cannot mend: it comes with the VM's next boot. VmNotFound.
   */
  mendPorts(uuid: string, macs?: string[]): Promise<{ mended: string[]; pending: string[] }>
}
