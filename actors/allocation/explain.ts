/** What a decision says of itself: the survivors of each step, why the others fell out, and the refusal in words. */
import type { Decision, Step } from './decide.ts'
import type { Row } from './row.ts'
import { OUT_NEVER } from './sieve.ts'

/** Servers left after a step, in the order of the list then; no more than `most`. */
export function survivors(decision: Decision, step: Step, most = Number.POSITIVE_INFINITY): Row[] {
  const { rows, outAt, list } = decision
  if (step.left === 0) return []
  const byRam = inRamOrder(decision, step)
  if (byRam && step.left === list.length)
    return Array.from(list.subarray(0, Math.min(most, list.length)), slot => rows[slot]!)
  const left: Row[] = []
  const enough = byRam ? Number.POSITIVE_INFINITY : most
  for (let slot = 0; slot < rows.length && left.length < enough; slot += 1) {
    if (outAt[slot]! > step.at) left.push(rows[slot]!)
  }
  return byRam ? left.sort((a, b) => b.spare.ram - a.spare.ram).slice(0, most) : left
}

/** What reasons are told of, worked out once for all steps of a decision. */
interface Told {
  /** By step: the first slots that fell out there. */
  fallen: number[][]
  /** Places of the survivors with the best scores. */
  best: number[]
  /** By step that scored: what each of the best had after it. */
  totals: Map<number, number[]>
}

/** Every step with its survivors and reasons, no more than `most` of each. A step that leaves the list as it was has the very same array. */
export function tell(
  decision: Decision,
  most: number,
): { step: Step; remaining: Row[]; reasons: Record<string, string> }[] {
  const told = toldOf(decision, most)
  let before: Step | undefined
  let remaining: Row[] = []
  return decision.steps.map(step => {
    const isSame = before?.left === step.left && inRamOrder(decision, before) === inRamOrder(decision, step)
    if (!isSame) remaining = survivors(decision, step, most)
    before = step
    return { step, remaining, reasons: reasonsOf(decision, step, most, told) }
  })
}

const inRamOrder = ({ byRamFrom }: Decision, step: Step) => step.at >= byRamFrom && byRamFrom !== OUT_NEVER

/**
 * Reasons of a step: by server why it fell out or what it got, under `skip` why the step did nothing, under `*` what concerns all. No more
 * servers than `most`. A step that was undone (`or identity`) removed nobody.
 */
export function reasonsOf(
  decision: Decision,
  step: Step,
  most = Number.POSITIVE_INFINITY,
  told = toldOf(decision, most),
): Record<string, string> {
  const { plan, selection, added } = step
  const reasons: Record<string, string> = {}
  if (!plan) return reasons
  if (plan.does === 'skip') reasons['skip'] = plan.why
  if (plan.does === 'refuse') reasons['*'] = plan.why
  if (selection?.about !== undefined) reasons['*'] = selection.about
  if (plan.does === 'score' && added) {
    if (plan.about !== undefined) reasons['*'] = plan.about
    scored(decision, step, added, told, reasons)
  }
  const why = plan.does === 'filter' || plan.does === 'limit' ? plan.why : selection?.why
  if (why) for (const slot of told.fallen[step.at] ?? []) reasons[decision.rows[slot]!.uuid] = why(decision.rows[slot]!)
  return reasons
}

function toldOf(decision: Decision, most: number): Told {
  const { outAt, steps } = decision
  const fallen: number[][] = steps.map(() => [])
  for (let slot = 0; slot < outAt.length; slot += 1) {
    const list = fallen[outAt[slot]!]
    if (list && list.length < most) list.push(slot)
  }
  const best = bestOf(decision, most)
  const totals = new Map<number, number[]>()
  let sums = best.map(() => 0)
  for (const { at, added } of steps) {
    if (!added) continue
    sums = sums.map((sum, n) => sum + added[best[n]!]!)
    totals.set(at, sums)
  }
  return { fallen, best, totals }
}

/** What each got and had then. */
function scored(
  { list, rows }: Decision,
  step: Step,
  added: Float64Array,
  { best, totals }: Told,
  into: Record<string, string>,
): void {
  const sums = totals.get(step.at) ?? []
  for (const [n, place] of best.entries()) {
    into[rows[list[place]!]!.uuid] = `added ${added[place]!.toFixed(2)}, now ${sums[n]!.toFixed(2)}`
  }
}

/** Places of the best scores, the later first among equals, as the choice goes. */
function bestOf({ scores }: Decision, most: number): number[] {
  const best: number[] = []
  for (let place = 0; place < scores.length; place += 1) {
    if (best.length >= most && scores[place]! < scores[best.at(-1)!]!) continue
    let at = best.length
    while (at > 0 && scores[best[at - 1]!]! <= scores[place]!) at -= 1
    best.splice(at, 0, place)
    if (best.length > most) best.pop()
  }
  return best
}

/** Why no server was found, as the message of the refusal ends. */
export function refusalOf(decision: Decision): string {
  const last = decision.steps.at(-1)!
  const about = reasonsOf(decision, last, 0)['*']
  if (about !== undefined) return about
  const words = last.label.charAt(0).toLowerCase() + last.label.slice(1)
  return words.startsWith('servers ') ? `no ${words}` : words
}
