/** What the tasks share that end in a stream between a caller and a VM. */
import { randomBytes } from 'node:crypto'
import { HypervisorError } from '../hypervisor.ts'
import { needVm, type TaskContext } from './task.ts'

/** Opens the stream; the same one when the task is taken up again. */
export function newToken(context: TaskContext): Promise<string> {
  return context.once('token', () => randomBytes(32).toString('hex'))
}

/** VmNotFound, VmNotRunning; GuestAgentNotConnected naming what is missing. */
export async function needGuestAgent(context: TaskContext, uuid: string): Promise<void> {
  const { state } = await needVm(context, uuid)
  if (state !== 'running') throw new HypervisorError('VmNotRunning', `the VM ${uuid} is not running`)
  if (await context.hypervisor.hasGuestAgent(uuid)) return
  const message = `no QEMU guest agent is connected in VM ${uuid}: install and start qemu-guest-agent in it`
  throw new HypervisorError('GuestAgentNotConnected', message)
}
