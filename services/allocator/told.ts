/** A decision as it is told over NATS: steps with bounded lists, and the figures of the server chosen. */
import type { Decision } from '../../actors/allocation/decide.ts'
import { reasonsOf, survivors } from '../../actors/allocation/explain.ts'
import { REMAINING_MAX, type ToldDecision } from '../../actors/contract/allocation.ts'

export function told(id: string, decision: Decision, full: boolean): ToldDecision {
  const { server, score, winners, steps } = decision
  return {
    id,
    server_uuid: server?.uuid ?? null,
    score: score ?? null,
    winners,
    ...(server ? { capacity: server.spare, overprovision_ratios: server.ratios } : {}),
    steps: steps.map(step => {
      const reasons = reasonsOf(decision, step, REMAINING_MAX)
      return {
        step: step.label,
        rule: step.rule,
        remaining: full ? [] : first(decision, step),
        remaining_count: step.left,
        ...(Object.keys(reasons).length > 0 ? { reasons } : {}),
      }
    }),
    ...(full ? { full: everybody(decision) } : {}),
  }
}

function first(decision: Decision, step: Decision['steps'][number]): string[] {
  return survivors(decision, step)
    .slice(0, REMAINING_MAX)
    .map(({ uuid }) => uuid)
}

/** Everybody once, with the step at which each fell out: a list for each step would not fit a message. */
function everybody({ rows, outAt }: Decision): { servers: string[]; out_at: number[] } {
  const slots = Array.from(outAt, (_, slot) => slot).filter(slot => outAt[slot] !== 0)
  return { servers: slots.map(slot => rows[slot]!.uuid), out_at: slots.map(slot => outAt[slot]!) }
}
