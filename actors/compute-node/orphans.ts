/**
 * Ends of tasks that this record does not hold: it was lost, or the end came twice. Only a task of this server that has not ended is
 * touched, so that whatever was lost, no task stays active for ever.
 */
import type { TaskReport } from '../contract/messages.ts'
import type { ServerContext } from '../contract/server.ts'
import type { Effect } from '../effects.ts'
import { endOf, type Failure } from './task-effects.ts'

/** The answer to a report of such a task: its agent is not to go on. */
export function endOrphan(context: ServerContext, event: { type: string }): Effect[] {
  const { id, at, status, error, result } = event as unknown as TaskReport
  const patch = status === 'failure' ? endOf(at, error ?? unsaid, result) : endOf(at, undefined, result)
  const ends = status === 'failure' || status === 'complete'
  return [...(ends ? [orphan(context, id, patch)] : []), { type: 'reply', value: { go: false } }]
}

export function failOrphan(context: ServerContext, event: { type: string }): Effect[] {
  const { task_id, at, code, message } = event as unknown as { task_id: string; at: number } & Failure
  return [orphan(context, task_id, endOf(at, { code, message })), { type: 'reply', value: {} }]
}

const unsaid: Failure = { code: 'TaskFailed', message: 'The task failed' }

const orphan = ({ uuid }: ServerContext, key: string, patch: ReturnType<typeof endOf>): Effect => ({
  type: 'patch',
  bucket: 'task',
  key,
  while: { status: 'active', server_uuid: uuid },
  patch,
})
