/** The decision: the stages in their order over the whole fleet, then the highest score. What it leaves behind explains it. */
import { isHvm, type Knobs, type Package } from './fleet.ts'
import type { Layout } from './index.ts'
import { keep } from './keep.ts'
import type { Ratios, Row } from './row.ts'
import { OUT_NEVER, sieve, verdictsOf } from './sieve.ts'
import type { Ask, Field, Plan, Question, Selection, Stage } from './stage.ts'
import { phasesOf } from './stages.ts'

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
  /** The step at which each slot fell out; 0: it was not looked at; 255 (OUT_NEVER): it is a survivor. */
  outAt: Uint8Array
  /** Step after which the list stands by RAM, most first; before it by slot. */
  byRamFrom: number
  rows: readonly Row[]
}

/** Decides. Pure: the same layout, question and settings have the same decision. */
export function decide(layout: Layout, question: Question, knobs: Knobs): Decision {
  const ask = askOf(question, knobs)
  const phases = phasesOf(knobs)
  const outAt = admitted(layout, question.only)
  const steps: Step[] = []
  let list = filter(phases.filters, ask, layout, outAt, steps)
  let byRamFrom = OUT_NEVER
  for (const stage of phases.hints) {
    if (list.length === 0) break
    const plan = stage.plan(ask, layout)
    const step: Step = { rule: stage.rule, label: stage.label, at: steps.length, left: 0, plan }
    const kept = apply(plan, list, layout, step)
    if (stage.rule === 'hard-filter-large-servers' && plan.does === 'select') byRamFrom = step.at
    steps.push(step)
    if (kept.length === 0 && stage.orElse) {
      steps.push({ rule: stage.orElse, label: 'Servers kept as they are', at: steps.length, left: list.length })
      continue
    }
    if (kept.length < list.length) {
      mark(outAt, list, step.at)
      mark(outAt, kept, OUT_NEVER)
    }
    list = kept
    step.left = list.length
  }
  const scores = new Float64Array(list.length)
  if (list.length > 0) {
    const field = fieldOf(list, layout)
    for (const stage of phases.scores) {
      const plan = stage.plan(ask, layout)
      const step: Step = { rule: stage.rule, label: stage.label, at: steps.length, left: list.length, plan }
      if (plan.does === 'score') {
        step.added = plan.weigh(field)
        sum(scores, step.added)
      }
      steps.push(step)
    }
  }
  return { ...pick(list, scores, layout), steps, list, scores, outAt, byRamFrom, rows: layout.rows }
}

/** Runs the filters; the steps taken are those up to the first that leaves nobody. */
function filter(stages: readonly Stage[], ask: Ask, layout: Layout, outAt: Uint8Array, steps: Step[]): Int32Array {
  const plans = stages.map(stage => stage.plan(ask, layout))
  const counts = new Uint32Array(OUT_NEVER + 1)
  sieve(plans, layout, outAt)
  for (let slot = 0; slot < outAt.length; slot += 1) counts[outAt[slot]!]! += 1
  let left = outAt.length - counts[0]!
  steps.push({ rule: 'input', label: 'Received by DAPI', at: 0, left })
  for (let at = 0; at < stages.length && left > 0; at += 1) {
    const { rule, label } = stages[at]!
    left -= counts[at + 1]!
    steps.push({ rule, label, at: at + 1, left, plan: plans[at]! })
  }
  const list = new Int32Array(left)
  let length = 0
  for (let slot = 0; slot < outAt.length; slot += 1) if (outAt[slot] === OUT_NEVER) list[length++] = slot
  return list
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

/** The configured ratios, unless they are disabled: then a package's own, RAM 1 where it names none; nothing without a package. */
function packageRatios(pkg: Package | undefined, knobs: Knobs): Ratios {
  if (!knobs.disable_override_overprovisioning) {
    const { overprovision_ratio_cpu, overprovision_ratio_ram, overprovision_ratio_disk } = knobs
    return { cpu: overprovision_ratio_cpu, ram: overprovision_ratio_ram, disk: overprovision_ratio_disk }
  }
  if (!pkg) return {}
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

/** Everybody, or those that the question names: the others are out before the first step. */
function admitted({ rows, slotOf }: Layout, only: ReadonlySet<string> | undefined): Uint8Array {
  const outAt = new Uint8Array(rows.length)
  if (!only) return outAt.fill(OUT_NEVER)
  for (const uuid of only) {
    const slot = slotOf.get(uuid)
    if (slot !== undefined) outAt[slot] = OUT_NEVER
  }
  return outAt
}

/** The servers left, in their order. */
function apply(plan: Plan, list: Int32Array, { rows, classes }: Layout, step: Step): Int32Array {
  switch (plan.does) {
    case 'skip':
    case 'nothing':
    case 'score':
      return list
    case 'refuse':
      return new Int32Array()
    case 'limit':
      throw new Error(`${step.rule} is a filter's plan`)
    case 'filter': {
      if (!plan.alike) return keep(list, slot => plan.keeps(rows[slot]!))
      const { of, samples } = classes[plan.alike]
      const verdicts = verdictsOf(plan, samples)
      return keep(list, slot => verdicts[of[slot]!] === 1)
    }
    case 'select':
      step.selection = plan.from(list)
      return step.selection.list
  }
}

function mark(outAt: Uint8Array, list: Int32Array, step: number): void {
  for (let at = 0; at < list.length; at += 1) outAt[list[at]!] = step
}

function sum(scores: Float64Array, added: Float64Array): void {
  for (let at = 0; at < scores.length; at += 1) scores[at]! += added[at]!
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
