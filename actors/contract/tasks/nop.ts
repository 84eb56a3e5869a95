/** The task that does nothing: for tests and for operators who want to see that a node works. */
import * as v from 'valibot'
import { hour, minute, nothing, type TaskKind } from './kind.ts'

export const NOP_TASKS = {
  nop: {
    params: v.object({
      sleep: v.optional(v.pipe(v.number(), v.minValue(0), v.maxValue(3600)), 0),
      error: v.optional(v.string()),
    }),
    result: nothing,
    limitMs: hour + minute,
    serial: 'none',
  },
} as const satisfies Record<string, TaskKind>
