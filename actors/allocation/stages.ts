/** The table of all stages, in the order that the API promises (rules.md §2.2). `hard-filter-min-disk` is there when it is configured. */
import { filters } from './filters.ts'
import type { Knobs } from './fleet.ts'
import { hints } from './hints.ts'
import { scores } from './scores.ts'
import type { Stage } from './stage.ts'

export const STAGES: readonly Stage[] = [...filters, ...hints, ...scores]

/** Filters each look at one server alone; hints and scores look at those that are left, together. */
interface Phases {
  filters: readonly Stage[]
  hints: readonly Stage[]
  scores: readonly Stage[]
}

const all: Phases = { filters, hints, scores }
const withoutDisk: Phases = { ...all, filters: filters.filter(({ rule }) => rule !== 'hard-filter-min-disk') }

/** The stages that are in force. */
export const phasesOf = ({ min_disk }: Pick<Knobs, 'min_disk'>): Phases => (min_disk ? all : withoutDisk)
