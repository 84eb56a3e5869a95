/** Builds a container image on the node, when the caller opens the stream that this answers and sends the context over it. */
import { build } from '../guest-streams/build.ts'
import { newToken } from './guest-stream.ts'
import { needVm, type TaskHandler } from './task.ts'

const minute = 60_000
const limits = { idleMs: 10 * minute, totalMs: 60 * minute }

export const docker_build: TaskHandler<'docker_build'> = {
  run: async (context, { uuid, payload }) => {
    const { builds, guestStreams } = context
    await needVm(context, uuid)
    await builds.check()
    const token = await newToken(context)
    return guestStreams.offer({ uuid, token, limits, serve: work => build(work, builds, payload) })
  },
}
