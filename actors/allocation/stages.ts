/** The table of all stages, in the order that the API promises (rules.md §2.2). `hard-filter-min-disk` is there when it is configured. */
import { filters } from './filters.ts'
import type { Knobs } from './fleet.ts'
import { hints } from './hints.ts'
import { scores } from './scores.ts'
import type { Stage } from './stage.ts'

export const STAGES: readonly Stage[] = [...filters, ...hints, ...scores]

/** The stages that are in force. */
export const stagesOf = ({ min_disk }: Pick<Knobs, 'min_disk'>): readonly Stage[] =>
  STAGES.filter(({ rule }) => min_disk || rule !== 'hard-filter-min-disk')
