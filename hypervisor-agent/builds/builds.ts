/** Builds of container images on this node: what the task of the docker endpoint needs of whoever builds. */
import type { BuildPayload } from '../../actors/contract/tasks/docker.ts'

export interface Builds {
  /** BuildNotAllowed, BuildahNotInstalled. */
  check(): Promise<void>
  /** Builds from an archive of the context. Rejects with the signal's reason, the build killed and nothing left of its context. */
  build(wish: BuildPayload, work: BuildWork): Promise<BuildEnd>
}

export interface BuildWork {
  context: AsyncIterable<Uint8Array>
  /** What the build prints; awaited. */
  wrote(name: 'stdout' | 'stderr', data: Buffer): Promise<void>
  signal: AbortSignal
}

/** `image`: its id, of a build that ended with 0. */
export interface BuildEnd {
  code: number
  image?: string
}
