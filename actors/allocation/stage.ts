/** What a stage of placement is: a named rule that, for a given question, makes a plan; the plan filters, reorders or scores. */
import type { Knobs, Locality, Package, Request } from './fleet.ts'
import type { Column, Layout } from './index.ts'
import type { Key } from './keys.ts'
import type { Ratios, Row } from './row.ts'

export interface Question {
  request: Request
  /** Decides every random choice: the same question with the same seed has the same answer. */
  seed: number
  /** Only these servers are looked at. */
  only?: ReadonlySet<string> | undefined
}

/** A question on its way through the stages. */
export interface Ask {
  request: Request
  knobs: Knobs
  seed: number
  hvm: boolean
  package: Package | undefined
  /** The package's ratios; the configured ones where they override. */
  ratios: Ratios
  /** The request's locality, or what its affinity rules came to. */
  locality: Locality | undefined
}

export interface Stage {
  /** Identifier, as golden cases and configurations have it. */
  rule: string
  /** For people: a step's name. */
  label: string
  /** When nobody is left after it, everybody is kept and a step `identity` says so. */
  orElse?: 'identity'
  plan(ask: Ask, layout: Layout): Plan
}

export type Plan =
  /** Does nothing, and why. */
  | { does: 'skip'; why: string }
  | { does: 'nothing' }
  /** Removes everybody, and why. */
  | { does: 'refuse'; why: string }
  /** Keeps rows, judged once for each class of `alike`, or row by row. */
  | { does: 'filter'; alike?: Key; keeps(row: Row): boolean; why?(row: Row): string }
  | { does: 'limit'; column: Column; atLeast?: number; below?: number; why(row: Row): string }
  /** Chooses from the list as a whole, and may put it in another order. `notes`: by slot; `*`: about the step. */
  | { does: 'select'; from(list: Int32Array): Selection }
  /** Adds to scores: one number for each place of the list. */
  | { does: 'score'; about?: string; weigh(field: Field): Float64Array }

export interface Selection {
  list: Int32Array
  about?: string
  why?(row: Row): string
}

/** The survivors as scorers see them. */
export interface Field {
  list: Int32Array
  /** Place in the list of each slot; -1 for those that are out. */
  place: Int32Array
  layout: Layout
}
