/** Runs a script on the host, such as the one after setup, where the agent's configuration allows that. */
import { SCRIPT_LIMIT_MS } from '../../actors/contract/tasks/server.ts'
import { HypervisorError } from '../hypervisor.ts'
import { runOnce } from './command_execute.ts'
import type { TaskHandler } from './task.ts'

export const server_run_script: TaskHandler<'server_run_script'> = {
  run: async (context, { script }) => {
    const { exitCode, stdout, stderr, isLate } = await runOnce(context, { script, timeoutMs: SCRIPT_LIMIT_MS })
    if (isLate) throw new HypervisorError('TaskTimedOut', `the script did not end within ${SCRIPT_LIMIT_MS / 1000} s`)
    return { exit_code: exitCode, stdout, stderr }
  },
}
