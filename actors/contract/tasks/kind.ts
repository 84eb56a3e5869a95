/** What a row of table TASKS says, and the words that rows share. */
import * as v from 'valibot'
import { Uuid } from '../ids.ts'
import { VmSummary } from '../vm.ts'

export interface TaskKind {
  params: v.GenericSchema
  result: v.GenericSchema
  /** Longest run on the agent, ms; then the compute node ends it as TaskTimedOut. */
  limitMs: number
  /** One at a time for each of these on a node; `node`: one at a time of what changes the node itself. */
  serial: 'vm' | 'network' | 'node' | 'none'
}

export const minute = 60_000
export const hour = 60 * minute

export const vmParams = { uuid: Uuid }
export const idempotent = v.optional(v.boolean(), false)
/** Seconds. */
export const timeout = v.optional(v.pipe(v.number(), v.minValue(0), v.maxValue(3600)))
export const vmResult = v.object({ vm: v.nullable(VmSummary) })
export const nothing = v.looseObject({})
