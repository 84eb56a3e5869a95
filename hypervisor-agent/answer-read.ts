/** Answers a live read: checks it against table READS, bounds it in time and size. */
import * as v from 'valibot'
import { rejection } from '../actors/contract/errors.ts'
import { LiveRead, REPLY_MAX_BYTES } from '../actors/contract/messages.ts'
import type { Reply } from '../actors/contract/record.ts'
import { READS, type ReadName } from '../actors/contract/task.ts'
import { within } from './abort.ts'
import { HypervisorError } from './hypervisor.ts'
import type { ReadContext, ReadHandlers } from './reads/read.ts'
import { READ_HANDLERS } from './reads/table.ts'

/** Never rejects. An answer that is too large is PayloadTooLarge. */
export async function answerRead(context: ReadContext, asked: unknown, stopping: AbortSignal): Promise<Reply> {
  const call = v.safeParse(LiveRead, asked)
  if (!call.success) return { error: rejection('InvalidParameters', 'this is not a live read') }
  const { read, params: given } = call.output
  if (!isRead(read)) return { error: rejection('TaskNotSupported', `this agent does not know ${read}`) }
  const { params, limitMs } = READS[read]
  const checked = v.safeParse(params, given)
  if (!checked.success) {
    const errors = checked.issues.map(issue => ({
      field: v.getDotPath(issue) ?? 'params',
      code: 'Invalid',
      message: issue.message,
    }))
    return { error: rejection('InvalidParameters', errors.map(e => `${e.field}: ${e.message}`).join('; '), errors) }
  }
  try {
    const late = () => new HypervisorError('HypervisorUnavailable', `the hypervisor did not answer ${read} in time`)
    const handler = READ_HANDLERS[read] as ReadHandlers[typeof read]
    const value = await within(limitMs, stopping, late, async () => handler(context, checked.output as never))
    const size = Buffer.byteLength(JSON.stringify(value) ?? '')
    if (size > REPLY_MAX_BYTES) {
      return {
        error: rejection('PayloadTooLarge', `the answer to ${read} has ${size} bytes, more than ${REPLY_MAX_BYTES}`),
      }
    }
    return { value }
  } catch (error) {
    if (error instanceof HypervisorError) return { error: rejection(error.code, error.message) }
    return { error: rejection('HypervisorError', `${read}: ${error instanceof Error ? error.message : String(error)}`) }
  }
}

function isRead(name: string): name is ReadName {
  return Object.hasOwn(READS, name)
}
