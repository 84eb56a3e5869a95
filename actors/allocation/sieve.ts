/**
 * All filters over the whole fleet at once. A filter looks at one server alone, so the step at which a server falls out is the first
 * filter that refuses it, in whatever order they are tried: kinds of alike servers are judged once, numbers column by column.
 */
import { type Layout, OWN_KEYS } from './index.ts'
import type { Row } from './row.ts'
import type { Plan } from './stage.ts'

/** `outAt`: the step at which each slot falls out, for slots where it is greater. The step of plan i is i + 1. */
export function sieve(plans: readonly Plan[], layout: Layout, outAt: Uint8Array): void {
  const { kinds, classes, columns, rows } = layout
  const size = kinds.size()
  const first = new Uint8Array(size).fill(OUT_NEVER)
  for (let at = 0; at < plans.length; at += 1) {
    const plan = plans[at]!
    const step = at + 1
    if (plan.does === 'refuse') lower(outAt, step)
    else if (plan.does === 'limit') outside(columns[plan.column], plan, outAt, step)
    else if (plan.does === 'filter') {
      const { alike } = plan
      if (alike === undefined) refused(rows, plan, outAt, step)
      else if (OWN_KEYS.includes(alike))
        byClass(classes[alike].of, verdictsOf(plan, classes[alike].samples), outAt, step)
      else byKind(kinds.parts[alike], verdictsOf(plan, classes[alike].samples), first, step)
    }
  }
  const { of } = kinds
  for (let slot = 0; slot < outAt.length; slot += 1) {
    const step = first[of[slot]!]!
    if (step < outAt[slot]!) outAt[slot] = step
  }
}

/** No step: the server is left. */
export const OUT_NEVER = 255

/** 1 for each class that stays. */
export function verdictsOf(plan: { keeps(row: Row): boolean }, samples: readonly Row[]): Uint8Array {
  const verdicts = new Uint8Array(samples.length)
  for (let at = 0; at < samples.length; at += 1) verdicts[at] = plan.keeps(samples[at]!) ? 1 : 0
  return verdicts
}

function byKind(part: readonly number[], verdicts: Uint8Array, first: Uint8Array, step: number): void {
  if (!verdicts.includes(0)) return
  for (let kind = 0; kind < first.length; kind += 1) {
    if (first[kind]! > step && verdicts[part[kind]!] === 0) first[kind] = step
  }
}

function byClass(of: Uint32Array, verdicts: Uint8Array, outAt: Uint8Array, step: number): void {
  if (!verdicts.includes(0)) return
  for (let slot = 0; slot < outAt.length; slot += 1) {
    if (verdicts[of[slot]!] === 0 && outAt[slot]! > step) outAt[slot] = step
  }
}

function outside(
  column: Float64Array,
  { atLeast = Number.NEGATIVE_INFINITY, below = Number.POSITIVE_INFINITY }: { atLeast?: number; below?: number },
  outAt: Uint8Array,
  step: number,
): void {
  for (let slot = 0; slot < outAt.length; slot += 1) {
    const value = column[slot]!
    if (!(value >= atLeast && value < below) && outAt[slot]! > step) outAt[slot] = step
  }
}

function refused(rows: readonly Row[], plan: { keeps(row: Row): boolean }, outAt: Uint8Array, step: number): void {
  for (let slot = 0; slot < outAt.length; slot += 1) {
    if (outAt[slot]! > step && !plan.keeps(rows[slot]!)) outAt[slot] = step
  }
}

function lower(outAt: Uint8Array, step: number): void {
  for (let slot = 0; slot < outAt.length; slot += 1) if (outAt[slot]! > step) outAt[slot] = step
}
