/** What a decision says of itself: the survivors of each step, why the others fell out, and the refusal in words. */
import type { Decision, Step } from './decide.ts'
import type { Row } from './row.ts'
import { OUT_NEVER } from './sieve.ts'

/** Servers left after a step, in the order of the list then. */
export function survivors({ rows, outAt, byRamFrom }: Decision, step: Step): Row[] {
  if (step.left === 0) return []
  const left: Row[] = []
  for (let slot = 0; slot < rows.length; slot += 1) if (outAt[slot]! > step.at) left.push(rows[slot]!)
  if (step.at >= byRamFrom && byRamFrom !== OUT_NEVER) return stableByRam(left)
  return left
}

const stableByRam = (rows: Row[]) => rows.sort((a, b) => b.spare.ram - a.spare.ram)

/**
 * Reasons of a step: by server why it fell out or what it got, under `skip` why the step did nothing, under `*` what concerns all.
 * `only`: no more servers than that.
 */
export function reasonsOf(decision: Decision, step: Step, only = Number.POSITIVE_INFINITY): Record<string, string> {
  const { plan, selection, added } = step
  const reasons: Record<string, string> = {}
  if (!plan) return reasons
  if (plan.does === 'skip') reasons['skip'] = plan.why
  if (plan.does === 'refuse') reasons['*'] = plan.why
  if (selection?.about !== undefined) reasons['*'] = selection.about
  if (plan.does === 'score' && added) {
    if (plan.about !== undefined) reasons['*'] = plan.about
    scored(decision, step, added, only, reasons)
  }
  const why = plan.does === 'filter' || plan.does === 'limit' ? plan.why : selection?.why
  if (!why) return reasons
  let told = 0
  const { rows, outAt } = decision
  // A step that was undone (`or identity`) removed nobody.
  for (let slot = 0; slot < rows.length && told < only; slot += 1) {
    if (outAt[slot] !== step.at) continue
    reasons[rows[slot]!.uuid] = why(rows[slot]!)
    told += 1
  }
  return reasons
}

/** What each got and had then, the best of the whole decision first. */
function scored(decision: Decision, step: Step, added: Float64Array, only: number, into: Record<string, string>): void {
  const { list, rows, steps } = decision
  const before = steps.filter(other => other.added && other.at <= step.at)
  for (const place of bestFirst(decision).slice(0, only)) {
    const total = before.reduce((sum, other) => sum + other.added![place]!, 0)
    into[rows[list[place]!]!.uuid] = `added ${added[place]!.toFixed(2)}, now ${total.toFixed(2)}`
  }
}

function bestFirst({ list, scores }: Decision): number[] {
  return Array.from(list, (_, place) => place).sort((a, b) => scores[b]! - scores[a]! || b - a)
}

/** Why no server was found, as the message of the refusal ends. */
export function refusalOf(decision: Decision): string {
  const last = decision.steps.at(-1)!
  const about = reasonsOf(decision, last, 0)['*']
  if (about !== undefined) return about
  const words = last.label.charAt(0).toLowerCase() + last.label.slice(1)
  return words.startsWith('servers ') ? `no ${words}` : words
}
