/** The last tasks in the words of CNAPI's node agents (cnapi-behaviour §5.7): running ones too, newest last. */
import { historyMax, type JournalEntry } from '../journal.ts'
import type { ReadHandlers } from './read.ts'

export const task_history: ReadHandlers['task_history'] = async ({ history }) => history().slice(-historyMax).map(told)

/** Parameters that say what a task is about. Others may hold metadata, scripts or secrets of a VM's owner and stay inside. */
const telling = ['uuid', 'name', 'hostname', 'snapshot_name', 'image_uuid', 'action', 'force', 'timeout', 'sleep']

function told({ offer, accepted_at, began_at, ended }: JournalEntry) {
  const { id, task, params, req_id } = offer
  const started_at = new Date(began_at ?? accepted_at).toISOString()
  const spec = params['spec'] as { uuid?: unknown } | undefined
  const about = { ...(spec?.uuid === undefined ? {} : { uuid: spec.uuid }), ...params }
  const shown = Object.entries(about).filter(([name]) => telling.includes(name))
  const event = (name: string, at: number, told: unknown) => ({
    type: 'event',
    name,
    event: told,
    timestamp: new Date(at).toISOString(),
    ...(req_id === undefined ? {} : { req_id }),
  })
  return {
    id,
    started_at,
    task,
    // The agent works in one process.
    pid: process.pid,
    params: Object.fromEntries(shown),
    status: !ended ? 'active' : ended.status === 'failure' ? 'failed' : 'finished',
    errorCount: ended?.status === 'failure' ? 1 : 0,
    messages: [
      event('start', began_at ?? accepted_at, {}),
      ...(ended?.error ? [event('error', ended.at, { error: ended.error })] : []),
      ...(ended ? [event('finish', ended.at, {})] : []),
    ],
    log: [],
    ...(ended ? { finished_at: new Date(ended.at).toISOString() } : {}),
  }
}
