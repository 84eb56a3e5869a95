/** Does nothing for `sleep` seconds, then succeeds, or fails with the words of `error`: to try the way of a task. */
import { HypervisorError } from '../hypervisor.ts'
import type { TaskHandler } from './task.ts'

export const nop: TaskHandler<'nop'> = {
  run: async (context, { sleep, error }) => {
    const wakeAt = await context.once('wake_at', () => context.now() + sleep * 1000)
    context.progress(1, 'sleep')
    await context.pause(Math.max(0, wakeAt - context.now()))
    if (error !== undefined) throw new HypervisorError('TaskFailed', error)
    return {}
  },
}
