/**
 * Runs a program in a guest: at once and once where it is detached, else when the caller opens the stream that this answers. A stream is
 * lost with the agent, and with it a program that was not begun yet: the caller asks again.
 */
import { exec, programOf } from '../guest-streams/exec.ts'
import { HypervisorError } from '../hypervisor.ts'
import { needGuestAgent, newToken } from './guest-stream.ts'
import type { TaskHandler } from './task.ts'

const minute = 60_000
const limits = { idleMs: 30 * minute, totalMs: 12 * 60 * minute }

export const docker_exec: TaskHandler<'docker_exec'> = {
  run: async (context, { uuid, command }) => {
    const { Tty, AttachConsole, Logs, Detach } = command
    const missing = Object.entries({ Tty, AttachConsole, Logs }).find(([, isWanted]) => isWanted)
    if (missing) {
      throw new HypervisorError(
        'InvalidArgument',
        `${missing[0]} is not possible: a guest agent gives no terminal and no console`,
      )
    }
    await needGuestAgent(context, uuid)
    if (!Detach) {
      const token = await newToken(context)
      return context.guestStreams.offer({ uuid, token, limits, serve: work => exec(work, uuid, command) })
    }
    // The guest remembers the id until the journal does: so the program is begun once, whenever the agent dies.
    const id = `task-${context.taskId}`
    const program = { ...programOf(command), id, input: false, detached: true }
    await context.once('started', () => context.hypervisor.startProgram(uuid, program))
    await context.hypervisor.forgetProgram(uuid, id)
    return {}
  },
}
