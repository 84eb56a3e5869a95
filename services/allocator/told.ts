/** A decision as it is told over NATS: steps with bounded lists, and the figures of the server chosen. */
import type { Decision } from '../../actors/allocation/decide.ts'
import { tell } from '../../actors/allocation/explain.ts'
import { REMAINING_MAX, type ToldDecision, type ToldStep } from '../../actors/contract/allocation.ts'

/** `steps`: `full` tells every server of every step, `none` tells none. */
export function told(id: string, decision: Decision, steps?: 'full' | 'none'): ToldDecision {
  const { server, score, winners } = decision
  return {
    id,
    server_uuid: server?.uuid ?? null,
    score: score ?? null,
    winners,
    ...(server ? { capacity: server.spare, overprovision_ratios: server.ratios } : {}),
    steps: steps === 'none' ? [] : tell(decision, REMAINING_MAX).map(toldStep),
    ...(steps === 'full' ? { full: everybody(decision) } : {}),
  }
}

type Steps = ReturnType<typeof tell>

function toldStep({ step, remaining, reasons }: Steps[number], at: number, all: Steps): ToldStep {
  return {
    step: step.label,
    rule: step.rule,
    ...(remaining === all[at - 1]?.remaining ? {} : { remaining: remaining.map(({ uuid }) => uuid) }),
    remaining_count: step.left,
    ...(Object.keys(reasons).length > 0 ? { reasons } : {}),
  }
}

/** Everybody once, with the step at which each fell out: a list for each step would not fit a message. */
function everybody({ rows, outAt }: Decision): { servers: string[]; out_at: number[] } {
  const slots = Array.from(outAt, (_, slot) => slot).filter(slot => outAt[slot] !== 0)
  return { servers: slots.map(slot => rows[slot]!.uuid), out_at: slots.map(slot => outAt[slot]!) }
}
