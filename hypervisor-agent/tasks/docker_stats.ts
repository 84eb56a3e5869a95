/** A VM's statistics each second, when the caller opens the stream that this answers. */
import { stats } from '../guest-streams/stats.ts'
import { HypervisorError } from '../hypervisor.ts'
import { newToken } from './guest-stream.ts'
import { needVm, type TaskHandler } from './task.ts'

const minute = 60_000
const limits = { idleMs: minute, totalMs: 12 * 60 * minute }

export const docker_stats: TaskHandler<'docker_stats'> = {
  run: async (context, { uuid, payload: { stream = true } }) => {
    const { name, alias, state } = await needVm(context, uuid)
    if (state !== 'running') throw new HypervisorError('VmNotRunning', `the VM ${uuid} is not running`)
    const wish = { uuid, name: alias ?? name, isOnce: !stream }
    const token = await newToken(context)
    return context.guestStreams.offer({ uuid, token, limits, serve: work => stats(work, wish) })
  },
}
