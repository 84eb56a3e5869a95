/** Copies files out of a guest and into it, when the caller opens the stream that this answers; says at once what the path is. */
import { copy, examine, pathStat } from '../guest-streams/copy.ts'
import { HypervisorError } from '../hypervisor.ts'
import { needGuestAgent, newToken } from './guest-stream.ts'
import { needVm, type TaskHandler } from './task.ts'

const minute = 60_000
const limits = { idleMs: 2 * minute, totalMs: 60 * minute }

export const docker_copy: TaskHandler<'docker_copy'> = {
  run: async (context, { uuid, path, mode, no_overwrite_dir: noOverwriteDir }) => {
    const { state } = await needVm(context, uuid)
    if (state === 'stopped') {
      const message = `the VM ${uuid} is stopped: its files can be copied through its guest agent only, while it runs`
      throw new HypervisorError('DockerCopyStoppedContainerNoPlatformSupport', message)
    }
    await needGuestAgent(context, uuid)
    const file = await examine(context.hypervisor, uuid, path, mode)
    const wish = { uuid, path, mode, file, noOverwriteDir }
    const token = await newToken(context)
    const stream = await context.guestStreams.offer({ uuid, token, limits, serve: work => copy(work, wish) })
    return { ...stream, containerPathStat: pathStat(path, file) }
  },
}
