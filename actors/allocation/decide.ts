/** The decision: the stages in their order over the whole fleet, then the highest score. What it leaves behind explains it. */
import { isHvm, type Knobs, type Package } from './fleet.ts'
import type { Layout } from './index.ts'
import type { Ratios, Row } from './row.ts'
import type { Ask, Field, Plan, Question, Selection } from './stage.ts'
import { stagesOf } from './stages.ts'

/** One step as it was taken. `at`: servers whose `outAt` is greater are left after it. */
export interface Step {
  rule: string
  label: string
  at: number
  left: number
  plan?: Plan
  /** Of a plan that selected: what it said. */
  selection?: Selection
  /** Of a plan that scored: what each place of the final list got. */
  added?: Float64Array
}

export interface Decision {
  /** Undefined when no server is left. */
  server: Row | undefined
  score: number | undefined
  /** How many share the best score. */
  winners: number
  steps: Step[]
  /** Survivors in their last order, with their scores. */
  list: Int32Array
  scores: Float64Array
  /** The step at which each slot fell out; 0: it was not looked at; OUT_NEVER: it is a survivor. */
  outAt: Uint8Array
  /** Step after which the list stands by RAM, most first; before it by slot. */
  byRamFrom: number
  rows: readonly Row[]
}

export const OUT_NEVER = 255

/** Decides. Pure: the same layout, question and settings have the same decision. */
export function decide(layout: Layout, question: Question, knobs: Knobs): Decision {
  const ask = askOf(question, knobs)
  const outAt = new Uint8Array(layout.rows.length)
  let list = admitted(layout, question.only)
  for (let at = 0; at < list.length; at += 1) outAt[list[at]!] = OUT_NEVER
  const steps: Step[] = [{ rule: 'input', label: 'Received by DAPI', at: 0, left: list.length }]
  let scores = new Float64Array()
  let field: Field | undefined
  let byRamFrom = OUT_NEVER
  for (const stage of stagesOf(knobs)) {
    if (list.length === 0) break
    const plan = stage.plan(ask, layout)
    const step: Step = { rule: stage.rule, label: stage.label, at: steps.length, left: 0, plan }
    if (plan.does === 'score') {
      field ??= fieldOf(list, layout)
      if (scores.length === 0) scores = new Float64Array(list.length)
      step.added = plan.weigh(field)
      for (let at = 0; at < scores.length; at += 1) scores[at]! += step.added[at]!
    } else {
      const kept = apply(plan, list, layout, step)
      if (stage.rule === 'hard-filter-large-servers' && kept !== list) byRamFrom = step.at
      if (kept.length === 0 && stage.orElse) {
        steps.push(step)
        steps.push({ rule: stage.orElse, label: 'Servers kept as they are', at: steps.length, left: list.length })
        continue
      }
      strike(list, kept, outAt, step.at)
      list = kept
    }
    step.left = list.length
    steps.push(step)
  }
  if (scores.length === 0) scores = new Float64Array(list.length)
  return { ...pick(list, scores, layout), steps, list, scores, outAt, byRamFrom, rows: layout.rows }
}

function askOf({ request, seed }: Question, knobs: Knobs): Ask {
  return {
    request,
    knobs,
    seed,
    hvm: isHvm(request.vm.brand),
    package: request.package,
    ratios: packageRatios(request.package, knobs),
    locality: request.vm.locality,
  }
}

/** A package's own ratios, RAM 1 where it names none; the configured ones in place of cpu, ram and disk unless that is disabled. */
function packageRatios(pkg: Package | undefined, knobs: Knobs): Ratios {
  if (!pkg) return {}
  if (!knobs.disable_override_overprovisioning) {
    const { overprovision_ratio_cpu, overprovision_ratio_ram, overprovision_ratio_disk } = knobs
    return { cpu: overprovision_ratio_cpu, ram: overprovision_ratio_ram, disk: overprovision_ratio_disk }
  }
  const named = {
    cpu: pkg.overprovision_cpu,
    ram: pkg.overprovision_memory,
    disk: pkg.overprovision_storage,
    net: pkg.overprovision_network,
    io: pkg.overprovision_io,
  }
  const ratios = Object.fromEntries(
    Object.entries(named).flatMap(([name, ratio]) => (ratio ? [[name, Number(ratio)]] : [])),
  )
  return Object.keys(ratios).length > 0 ? ratios : { ram: 1 }
}

function admitted({ rows, slotOf }: Layout, only: ReadonlySet<string> | undefined): Int32Array {
  if (!only) return Int32Array.from(rows, (_, slot) => slot)
  const slots = [...only].flatMap(uuid => slotOf.get(uuid) ?? [])
  return Int32Array.from(slots).sort()
}

function apply(plan: Exclude<Plan, { does: 'score' }>, list: Int32Array, layout: Layout, step: Step): Int32Array {
  switch (plan.does) {
    case 'skip':
    case 'nothing':
      return list
    case 'refuse':
      return new Int32Array()
    case 'filter':
      return plan.alike
        ? byClass(plan, layout.classes[plan.alike], list)
        : list.filter(slot => plan.keeps(layout.rows[slot]!))
    case 'limit':
      return byColumn(plan, layout.columns[plan.column], list)
    case 'select': {
      const selection = plan.from(list)
      step.selection = selection
      return selection.list
    }
  }
}

/** The same list where nobody falls out, so that most stages copy nothing. */
function byClass(plan: { keeps(row: Row): boolean }, classes: { of: Uint32Array; samples: Row[] }, list: Int32Array) {
  const { of, samples } = classes
  const verdicts = new Uint8Array(samples.length)
  let kept = list
  let length = 0
  for (let at = 0; at < list.length; at += 1) {
    const slot = list[at]!
    const number = of[slot]!
    if (verdicts[number] === 0) verdicts[number] = plan.keeps(samples[number]!) ? 1 : 2
    if (verdicts[number] === 1) {
      if (kept !== list) kept[length] = slot
      length += 1
    } else if (kept === list) kept = list.slice()
  }
  return kept === list ? list : kept.subarray(0, length)
}

function byColumn(plan: { atLeast?: number; below?: number }, column: Float64Array, list: Int32Array): Int32Array {
  const { atLeast = Number.NEGATIVE_INFINITY, below = Number.POSITIVE_INFINITY } = plan
  let kept = list
  let length = 0
  for (let at = 0; at < list.length; at += 1) {
    const slot = list[at]!
    const value = column[slot]!
    if (value >= atLeast && value < below) {
      if (kept !== list) kept[length] = slot
      length += 1
    } else if (kept === list) kept = list.slice()
  }
  return kept === list ? list : kept.subarray(0, length)
}

/** Notes at which step those fell out that are in one list and not in the other. */
function strike(list: Int32Array, kept: Int32Array, outAt: Uint8Array, step: number): void {
  if (kept === list) return
  for (let at = 0; at < list.length; at += 1) outAt[list[at]!] = step
  for (let at = 0; at < kept.length; at += 1) outAt[kept[at]!] = OUT_NEVER
}

function fieldOf(list: Int32Array, layout: Layout): Field {
  const place = new Int32Array(layout.rows.length).fill(-1)
  for (let at = 0; at < list.length; at += 1) place[list[at]!] = at
  return { list, place, layout }
}

/** The highest score; among equals the one later in the list, as it always was. */
function pick(list: Int32Array, scores: Float64Array, { rows }: Layout) {
  let best = -1
  let winners = 0
  for (let at = 0; at < list.length; at += 1) {
    if (best < 0 || scores[at]! > scores[best]!) winners = 1
    else if (scores[at] === scores[best]) winners += 1
    else continue
    best = at
  }
  return best < 0
    ? { server: undefined, score: undefined, winners }
    : { server: rows[list[best]!]!, score: scores[best]!, winners }
}
