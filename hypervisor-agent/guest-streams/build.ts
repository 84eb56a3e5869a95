/** A build that a caller follows: the context comes from the caller, what the build prints goes back, and it is killed when the caller leaves. */
import type { BuildPayload } from '../../actors/contract/tasks/docker.ts'
import { childOf } from '../abort.ts'
import type { Builds } from '../builds/builds.ts'
import type { StreamWork } from './guest-streams.ts'

/** Most bytes of a context. */
const contextMaxBytes = 1024 ** 3

export async function build(
  { lines, signal: parent }: StreamWork,
  builds: Builds,
  wish: BuildPayload,
): Promise<object> {
  const ending = childOf(parent)
  async function* context() {
    yield* lines.upload(contextMaxBytes)
    // From here on nothing is expected of the caller but to stay.
    lines.left().catch(error => ending.abort(error))
  }
  try {
    const wrote = (name: 'stdout' | 'stderr', data: Buffer) => lines.send({ type: name, data: data.toString('base64') })
    return await builds.build(wish, { context: context(), wrote, signal: ending.signal })
  } finally {
    ending.release()
  }
}
