/** Tasks as answers: the record that is shown, the link to one, and a request that waits for its end. */
import { ERRORS, type ErrorCode, type Rejection, rejection } from '../actors/contract/errors.ts'
import type { TaskName, TaskParams, TaskRecord, TaskResult } from '../actors/contract/task.ts'
import type { Backend } from './backend.ts'
import type { Answer, Entries, Incoming } from './row.ts'

/** Longest a request of the compute agent's API waits for its task (DESIGN §10). */
export const REQUEST_WAIT_MS = 120_000
/** Default and longest wait of TaskWait (cnapi-behaviour §5.2). */
export const TASK_WAIT_MS = 3_600_000

/** CNAPI's fields and ours; what the agent was given stays inside, since it may hold metadata of the VM's owner. */
export function shownTask({ params: _, ...shown }: TaskRecord) {
  return shown
}

export function taskHeaders(id: string): Record<string, string> {
  return { link: `</tasks/${id}>; rel="monitor"`, 'x-task-id': id }
}

/** 200 {id} of a request that has become a task. */
export function started(outcome: { value: { id: string } } | { error: Rejection }): Answer {
  if ('error' in outcome) return outcome
  return { status: 200, body: outcome.value, headers: taskHeaders(outcome.value.id) }
}

/** Longest an answer waits for the actors behind a task that has ended. */
const SETTLE_MS = 3_000

/**
 * A task's end is durable a moment before its VM's actor has heard of it. Whoever was told of the end must not find the VM, or the
 * hostname it had, as they were before: resolves when neither is.
 */
export async function settled(backend: Backend, { id, vm_uuid }: TaskRecord, host?: string): Promise<void> {
  if (!vm_uuid) return
  try {
    await backend.vms.until(vm_uuid, vm => vm?.task_id !== id, SETTLE_MS)
    if (!host || (backend.vms.get(vm_uuid)?.present ?? false)) return
    await backend.hosts.until(host, bound => bound?.vm_uuid !== vm_uuid, SETTLE_MS)
  } catch {
    // The end of the task is true all the same.
  }
}

/**
 * Waits for a task; `done` is answered for success, the task's own refusal for failure, and after 120 s 504 with its id.
 * A caller who leaves costs nothing: the wait ends, the task goes on. `host`: the hostname's key, if it is a host's VM.
 */
export async function whenEnded(
  backend: Backend,
  id: string,
  signal: AbortSignal,
  done: Answer,
  host?: string,
): Promise<Answer> {
  const task = await backend.tasks.ended(id, { deadlineMs: REQUEST_WAIT_MS, signal })
  const headers = taskHeaders(id)
  if (!task) {
    const message = `The task has not ended yet; ask GET /tasks/${id}/wait`
    return { error: rejection('RequestTimedOut', message), headers, extra: { id } }
  }
  await settled(backend, task, host)
  if (task.status === 'failure') return { error: failureOf(task), headers, extra: { id } }
  return { ...done, headers: { ...done.headers, ...headers } }
}

/**
 * A synchronous endpoint: adds the task and waits for its end; `done` makes the answer from the agent's result. A failure is the task's
 * own refusal; past `capMs` (cnapi-behaviour §5.4) the answer is 504 with the id of the task, which goes on.
 */
export async function runTask<N extends TaskName>(
  backend: Backend,
  { server, ids, key, reqId, signal }: Pick<Incoming<Entries, 'GS'>, 'server' | 'ids' | 'key' | 'reqId' | 'signal'>,
  { task, params, vm_uuid }: { task: N; params: TaskParams<N>; vm_uuid?: string },
  { capMs, done }: { capMs: number; done: (result: TaskResult<N>) => Answer },
): Promise<Answer> {
  const order = { task_id: ids.task(), task, params, req_id: reqId, ...(vm_uuid ? { vm_uuid } : {}) }
  const outcome = await backend.call('cn', server.uuid, 'task_add', order, { ...(key ? { key } : {}), reqId })
  if ('error' in outcome) return outcome
  const { id } = outcome.value
  const headers = taskHeaders(id)
  const ended = await backend.tasks.ended(id, { deadlineMs: capMs, signal: signal() })
  if (!ended) {
    const message = `Time-out reached waiting for ${task} request to return`
    return { error: rejection('RequestTimedOut', message), headers, extra: { id } }
  }
  if (ended.status === 'failure') return { error: failureOf(ended), headers, extra: { id } }
  const answer = done((ended.history?.at(-1)?.event ?? {}) as TaskResult<N>)
  return { ...answer, headers: { ...answer.headers, ...headers } }
}

/** A failed task's error as a refusal; an agent of another make may send codes that are not in the table. */
function failureOf({ error }: TaskRecord): Rejection {
  const code = error?.code ?? ''
  return rejection(Object.hasOwn(ERRORS, code) ? (code as ErrorCode) : 'TaskFailed', error?.message)
}
