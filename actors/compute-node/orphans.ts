/**
 * Ends of tasks and jobs that this record does not hold: it was lost, the end came twice, or only their body was ever written. Only what
 * is this server's and has not ended is touched, so that whatever was lost, nothing stays open for ever.
 */
import { rejection } from '../contract/errors.ts'
import type { JobRecord } from '../contract/job.ts'
import type { TaskReport } from '../contract/messages.ts'
import type { ServerContext } from '../contract/server.ts'
import { type Effect, iso } from '../effects.ts'
import { endOf, type Failure, tellChanged } from './task-effects.ts'

/** The answer to a report of such a task: its agent is not to go on. What it has made of VMs is so all the same. */
export function endOrphan(context: ServerContext, event: { type: string }): Effect[] {
  const { id, at, status, error, result, changed } = event as unknown as TaskReport
  const patch = status === 'failure' ? endOf(at, error ?? unsaid, result) : endOf(at, undefined, result)
  const ends = status === 'failure' || status === 'complete'
  return [
    ...(ends ? [orphan(context, id, patch)] : []),
    ...tellChanged(context.uuid, changed),
    { type: 'reply', value: { go: false } },
  ]
}

export function failOrphan(context: ServerContext, event: { type: string }): Effect[] {
  const { task_id, at, code, message } = event as unknown as { task_id: string; at: number } & Failure
  return [orphan(context, task_id, endOf(at, { code, message })), { type: 'reply', value: {} }]
}

/** An operator's end of a job that nobody runs. */
export function cancelOrphan({ uuid }: ServerContext, event: { type: string }): Effect[] {
  const { job_uuid, at } = event as unknown as { job_uuid: string; at: number }
  const { code, message } = rejection('JobCanceled')
  const patch: Partial<JobRecord> = { execution: 'canceled', finished_at: iso(at), error: { code, message } }
  const open = { execution: 'running', server_uuid: uuid }
  return [
    { type: 'patch', bucket: 'job', key: job_uuid, while: open, patch },
    { type: 'reply', value: {} },
  ]
}

const unsaid: Failure = { code: 'TaskFailed', message: 'The task failed' }

const orphan = ({ uuid }: ServerContext, key: string, patch: ReturnType<typeof endOf>): Effect => ({
  type: 'patch',
  bucket: 'task',
  key,
  while: { status: 'active', server_uuid: uuid },
  patch,
})
