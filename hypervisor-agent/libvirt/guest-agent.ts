/** One command of QEMU's guest agent, with its failures in Muster's words. */
import { type Domain, isLibvirtError } from 'node-libvirt'
import { HypervisorError } from '../hypervisor.ts'

/** How long the guest may take for one answer, seconds, and the call a little longer, ms. */
const answerS = 5
const answerDeadline = { deadlineMs: 10_000 }

/** None is connected, it has stopped answering, the domain has no channel for one, or libvirt's driver knows none. */
const away = ['AGENT_UNRESPONSIVE', 'AGENT_UNSYNCED', 'ARGUMENT_UNSUPPORTED', 'NO_SUPPORT'] as const
/** What a distribution's configuration of the agent forbids, and what an old one does not know. */
const forbidden = /has been disabled|command .* (has )?not (been )?found/i

/** Answers what the agent returns. VmNotRunning, GuestAgentNotConnected; other refusals of the agent stay libvirt's errors. */
export async function askAgent(domain: Domain, execute: string, given: object): Promise<unknown> {
  try {
    const answer = await domain.agentCommand({ execute, arguments: given }, answerS, answerDeadline)
    return (answer as { return?: unknown } | null)?.return
  } catch (error) {
    const said = (error as Error).message
    if (isLibvirtError(error, 'OPERATION_INVALID') || !(await domain.isActive().catch(() => true))) {
      throw new HypervisorError('VmNotRunning', `the VM ${domain.uuid} is not running`, { cause: error })
    }
    if (away.some(code => isLibvirtError(error, code))) {
      const message = `no QEMU guest agent answers in VM ${domain.uuid} (is qemu-guest-agent installed and started there?): ${said}`
      throw new HypervisorError('GuestAgentNotConnected', message, { cause: error })
    }
    if (!forbidden.test(said)) throw error
    const message = `the QEMU guest agent in VM ${domain.uuid} does not do ${execute}: ${said}`
    throw new HypervisorError('GuestAgentNotConnected', message, { cause: error })
  }
}
