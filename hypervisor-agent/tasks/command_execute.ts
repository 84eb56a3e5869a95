/** CNAPI's execute: a script with arguments and environment, where the agent's configuration allows that (cnapi-behaviour §8.5). */
import { randomUUID } from 'node:crypto'
import { SCRIPT_LIMIT_MS } from '../../actors/contract/tasks/server.ts'
import type { ScriptEnd } from '../host/scripts.ts'
import { HypervisorError } from '../hypervisor.ts'
import type { TaskContext, TaskHandler } from './task.ts'

export const command_execute: TaskHandler<'command_execute'> = {
  run: async (context, { script, args, env, timeout = SCRIPT_LIMIT_MS }) => {
    const end = await runOnce(context, { script, args, env, timeoutMs: timeout })
    const { exitCode, signal, stdout, stderr, isLate } = end
    return { err: isLate ? `it was killed after ${timeout} ms` : null, exitCode, signal, stdout, stderr }
  },
}

/**
 * Runs it at most once in the life of the task: nobody knows what half a script did, so one that an agent's death interrupted is not
 * begun again.
 */
export async function runOnce(
  context: TaskContext,
  given: { script: string; args?: string[]; env?: Record<string, string> | undefined; timeoutMs: number },
): Promise<ScriptEnd> {
  const { scripts, signal } = context
  const attempt = randomUUID()
  const began = await context.once('began', () => attempt)
  return context.once('ended', async () => {
    if (began !== attempt) {
      throw new HypervisorError('TaskFailed', 'the agent ended while the script ran; it is not run again')
    }
    context.progress(10, 'run')
    const { script, args = [], env = {}, timeoutMs } = given
    return scripts.run(script, { args, env, timeoutMs, signal })
  })
}
