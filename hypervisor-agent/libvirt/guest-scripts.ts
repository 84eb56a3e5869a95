/** See `GuestScripts`: QEMU's guest agent, asked through libvirt. A script is given to the guest's shell as its input, never as words. */
import { type Domain, isLibvirtError } from 'node-libvirt'
import * as v from 'valibot'
import type { GuestOutcome } from '../guest-scripts.ts'
import { HypervisorError } from '../hypervisor.ts'
import { guestAgentName } from './domain-xml.ts'
import { isChannelConnected } from './xml-reading.ts'

/** How long the guest may take for one answer, seconds, and the call a little longer, ms. */
const answerS = 10
const answerDeadline = { deadlineMs: 15_000 }
const lookEveryMs = 500
const outputMax = 4096

const Started = v.object({ return: v.object({ pid: v.number() }) })
const Status = v.object({
  return: v.object({
    exited: v.boolean(),
    exitcode: v.optional(v.number()),
    'out-data': v.optional(v.string(), ''),
    'err-data': v.optional(v.string(), ''),
  }),
})

export async function hasGuestAgent(domain: Domain): Promise<boolean> {
  return isChannelConnected(await domain.getXml(), guestAgentName)
}

export async function runInGuest(domain: Domain, script: string, timeoutMs: number): Promise<GuestOutcome> {
  if (!(await domain.isActive())) throw new HypervisorError('VmNotRunning', `the VM ${domain.uuid} is not running`)
  const input = Buffer.from(script).toString('base64')
  const shell = { path: '/bin/sh', arg: [], 'input-data': input, 'capture-output': true }
  const { pid } = v.parse(Started, await ask(domain, 'guest-exec', shell)).return
  const deadline = performance.now() + timeoutMs
  for (;;) {
    const { exited, exitcode, ...said } = v.parse(Status, await ask(domain, 'guest-exec-status', { pid })).return
    if (exited)
      return {
        exit_code: exitcode ?? null,
        output: `${text(said['out-data'])}${text(said['err-data'])}`.slice(-outputMax),
      }
    if (performance.now() > deadline) {
      throw new HypervisorError(
        'TaskTimedOut',
        `the script in VM ${domain.uuid} did not end within ${timeoutMs / 1000} s`,
      )
    }
    await new Promise(resolve => setTimeout(resolve, lookEveryMs))
  }
}

async function ask(domain: Domain, execute: string, given: object): Promise<unknown> {
  try {
    return await domain.agentCommand({ execute, arguments: given }, answerS, answerDeadline)
  } catch (error) {
    if (!away.some(code => isLibvirtError(error, code))) throw error
    const message = `no QEMU guest agent answers in VM ${domain.uuid}: ${(error as Error).message}`
    throw new HypervisorError('GuestAgentNotConnected', message, { cause: error })
  }
}

/** None is connected, it has stopped answering, the domain has no channel for one, or libvirt's driver knows none. */
const away = ['AGENT_UNRESPONSIVE', 'AGENT_UNSYNCED', 'ARGUMENT_UNSUPPORTED', 'NO_SUPPORT'] as const

const text = (base64: string): string => Buffer.from(base64, 'base64').toString()
