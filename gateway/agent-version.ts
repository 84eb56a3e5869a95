/** What a server's agent can do, told by the version of `cn-agent` in the server's record (cnapi-behaviour §8.4). */
import gte from 'semver/functions/gte.js'
import valid from 'semver/functions/valid.js'
import { type Rejection, rejection } from '../actors/contract/errors.ts'
import type { Server } from './backend.ts'

/** A refusal where the agent is older than that, or says no version; undefined where it is new enough. */
export function refuseOldAgent(server: Server, feature: string, minimum: string): Rejection | undefined {
  const version = server.agents.find(({ name }) => name === 'cn-agent')?.version
  if (version !== undefined && valid(version) && gte(version, minimum)) return undefined
  const is = `cn-agent (v${version ?? 'unknown'}) on server ${server.uuid}`
  return rejection('PreconditionFailed', `${is} does not support "${feature}": require at least cn-agent v${minimum}`)
}
