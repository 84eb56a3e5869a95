/**
 * Claims on their way to compute node actors, one at a time for each node. An actor takes a claim only from one who knows all its claims;
 * claims of this process were decided one after the other, so each may count on the version that the one before it has made.
 */
import { type Rejection, rejection } from '../../actors/contract/errors.ts'
import type { Claim } from '../../actors/contract/server.ts'
import type { Caller } from '../nats/caller.ts'

export interface ClaimLanes {
  /** Call at once after the decision, in the order of decisions. Undefined: the claim holds. */
  claim(serverUuid: string, claimId: string, claim: Claim): Promise<Rejection | undefined>
}

/** `versionOf`: the version of a node's claims that a decision made now would know. */
export function createClaimLanes(caller: Caller, versionOf: (serverUuid: string) => number): ClaimLanes {
  /** The version after the last claim sent; undefined when that was refused, and so nothing after it can hold. */
  const tails = new Map<string, Promise<number | undefined>>()
  /** Versions that answers told and views may not have yet. */
  const known = new Map<string, number>()
  return {
    claim: async (serverUuid, claimId, claim) => {
      const before =
        tails.get(serverUuid) ?? Promise.resolve(Math.max(versionOf(serverUuid), known.get(serverUuid) ?? 0))
      const turn = before.then(async seen => {
        if (seen === undefined) return { error: rejection('ClaimOutdated') }
        return caller.call('cn', serverUuid, 'claim', { claim_id: claimId, seen, ...claim })
      })
      const after = turn.then(
        reply => ('value' in reply ? reply.value.claims_version : undefined),
        () => undefined,
      )
      tails.set(serverUuid, after)
      const reply = await turn
      const version = await after
      if (version !== undefined) known.set(serverUuid, version)
      // The views say it after the next barrier, also of a node whose record was deleted and counts from the beginning.
      else known.delete(serverUuid)
      if (tails.get(serverUuid) === after) tails.delete(serverUuid)
      return 'error' in reply ? reply.error : undefined
    },
  }
}
