/**
 * Claims of a compute node: room that placement holds for a VM between the choice and the create. The node's actor is the one place that
 * commits them, and it takes none that was decided without knowing all others: so no two decisions count on the same room.
 */
import { rejection } from '../contract/errors.ts'
import { CLAIMS_MAX, type Claim, type ServerContext } from '../contract/server.ts'
import type { VerbParams } from '../contract/verbs.ts'
import type { Effect, Stamp } from '../effects.ts'

export type ClaimEvent =
  | (Stamp & { type: 'claim' } & VerbParams<'cn', 'claim'>)
  | (Stamp & { type: 'unclaim' } & VerbParams<'cn', 'unclaim'>)
  | (Stamp & { type: 'claim_limit'; claim_id: string })

const claimsOf = (context: ServerContext): Record<string, Claim> => context.claims ?? {}
const versionOf = (context: ServerContext) => context.claims_version ?? 0

/** May the claim be taken: decided on what is still so, with room for one more. */
export function isFresh(context: ServerContext, event: { type: string }): boolean {
  const { seen } = event as Extract<ClaimEvent, { type: 'claim' }>
  return seen === versionOf(context) && Object.keys(claimsOf(context)).length < CLAIMS_MAX
}

export const hasClaim = (context: ServerContext, event: { type: string }): boolean =>
  'claim_id' in event && Object.hasOwn(claimsOf(context), String(event.claim_id))

export function takeClaim(context: ServerContext, event: { type: string }): Partial<ServerContext> {
  const { claim_id, vm_uuid, owner_uuid, brand, ram, cpu_cap, quota, until } = event as Extract<
    ClaimEvent,
    { type: 'claim' }
  >
  const claim: Claim = {
    ...{ vm_uuid, owner_uuid, brand, ram, until },
    ...(cpu_cap === undefined ? {} : { cpu_cap }),
    ...(quota === undefined ? {} : { quota }),
  }
  return { claims: { ...claimsOf(context), [claim_id]: claim }, claims_version: versionOf(context) + 1 }
}

export function dropClaim(context: ServerContext, event: { type: string }): Partial<ServerContext> {
  const { claim_id } = event as Extract<ClaimEvent, { type: 'unclaim' }>
  return without(context, id => id === claim_id)
}

/** A create takes the place of its VM's claims: from here on the VM itself counts. */
export function useClaims(context: ServerContext, vmUuid: string | undefined): Partial<ServerContext> {
  return vmUuid === undefined ? {} : without(context, (_, claim) => claim.vm_uuid === vmUuid)
}

function without(context: ServerContext, gone: (id: string, claim: Claim) => boolean): Partial<ServerContext> {
  const all = Object.entries(claimsOf(context))
  const left = all.filter(([id, claim]) => !gone(id, claim))
  if (left.length === all.length) return {}
  return { claims: Object.fromEntries(left), claims_version: versionOf(context) + 1 }
}

/** The answer, and the deadline after which the claim lapses. */
export function claimEffects(context: ServerContext, event: { type: string }): Effect[] {
  const { claim_id, until } = event as Extract<ClaimEvent, { type: 'claim' }>
  return [
    { type: 'set_timer', name: `claim_${claim_id}`, at: until, event: { type: 'claim_limit', claim_id } },
    { type: 'reply', value: { claims_version: versionOf(context) } },
  ]
}

export function unclaimEffects(_context: ServerContext, event: { type: string }): Effect[] {
  const { claim_id } = event as Extract<ClaimEvent, { type: 'unclaim' }>
  return [
    { type: 'cancel_timer', name: `claim_${claim_id}` },
    { type: 'reply', value: {} },
  ]
}

export const refuseClaim = (): Effect[] => [{ type: 'reject', rejection: rejection('ClaimOutdated') }]
