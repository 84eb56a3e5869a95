/** What the life of a task asks for, as data: its record, its offer, its deadlines, its end, and word to its VM and its agent. */
import type { OpenTask, ServerContext } from '../contract/server.ts'
import { ACCEPT_LIMIT_MS, type TaskRecord } from '../contract/task.ts'
import { type ChangedVm, changedIn, wantedIn } from '../contract/vm-changes.ts'
import { type Effect, iso } from '../effects.ts'

/** Why a task failed: a code of table ERRORS, or one of an agent of another make. */
export type Failure = { code: string; message: string }

export const openTask = (context: ServerContext, taskId: string): OpenTask | undefined =>
  Object.hasOwn(context.open, taskId) ? context.open[taskId] : undefined

/** A task as it is asked for. */
interface Order {
  task_id: string
  task: string
  params: Record<string, unknown>
  at: number
  vm_uuid?: string | undefined
  req_id?: string | undefined
}

/** The record of a new task; `more` says how it has ended, if it has. */
export function createRecord(context: ServerContext, order: Order, more: Partial<TaskRecord> = {}): Effect {
  const value = {
    id: order.task_id,
    req_id: order.req_id,
    task: order.task,
    server_uuid: context.uuid,
    status: 'active',
    timestamp: iso(order.at),
    vm_uuid: order.vm_uuid,
    ...more,
    params: order.params,
  }
  return { type: 'create', bucket: 'task', key: order.task_id, value }
}

export function offer(context: ServerContext, taskId: string, at: number): Effect[] {
  return [
    { type: 'offer', server_uuid: context.uuid, task_id: taskId },
    {
      type: 'set_timer',
      name: `accept_${taskId}`,
      at: at + ACCEPT_LIMIT_MS,
      event: { type: 'accept_limit', task_id: taskId },
    },
  ]
}

/** How a task ended. `ended_at` is the agent's clock; without it the end came from outside, and an agent at work on it is told to stop. */
export interface End {
  failure?: Failure | undefined
  result?: unknown
  ended_at?: number
}

/** The end of a task: its record, its timers, its offer, and word to its VM. */
export function ending(context: ServerContext, taskId: string, at: number, end: End): Effect[] {
  const { failure, result, ended_at } = end
  const task = openTask(context, taskId)
  const isAtWork = task?.state === 'accepted' && ended_at === undefined
  return [
    { type: 'patch', bucket: 'task', key: taskId, while: { status: 'active' }, patch: endOf(at, failure, result) },
    { type: 'withdraw', task_id: taskId },
    { type: 'cancel_timer', name: `accept_${taskId}` },
    { type: 'cancel_timer', name: `run_${taskId}` },
    ...(isAtWork ? [{ type: 'cancel', server_uuid: context.uuid, task_id: taskId } as const] : []),
    ...tellVm(task?.vm_uuid, taskId, end),
    ...tellChanged(context.uuid, changedIn(result)),
  ]
}

/** Word to the VM whose task it was. */
export function tellVm(vmUuid: string | null | undefined, taskId: string, end: End): Effect[] {
  if (!vmUuid) return []
  const { failure, result, ended_at = 0 } = end
  const vm = vmOf(result)
  const wanted = wantedIn(result)
  const params = {
    task_id: taskId,
    status: failure ? 'failure' : 'complete',
    ended_at,
    ...(failure ? { error: { code: failure.code, message: failure.message } } : {}),
    ...(vm === undefined ? {} : { vm }),
    ...(wanted ? { wanted } : {}),
    ...foundOf(result),
  }
  return [{ type: 'send', kind: 'vm', id: vmUuid, verb: 'task_ended', params }]
}

/** Word to VMs that a task of the node itself has changed. */
export function tellChanged(server_uuid: string, changed: ChangedVm[] = []): Effect[] {
  return changed.map(({ uuid, wanted }) => {
    return { type: 'send', kind: 'vm', id: uuid, verb: 'adopt', params: { server_uuid, wanted } }
  })
}

/** What a step has found for the next one. */
function foundOf(result: unknown): { found?: unknown } {
  if (typeof result !== 'object' || result === null || !('found' in result)) return {}
  return { found: result.found }
}

/** CNAPI's history: one `finish` on success, `error` and `finish` on failure (cnapi-behaviour §5.1). */
export function endOf(at: number, failure?: Failure, result?: unknown): Partial<TaskRecord> {
  const timestamp = iso(at)
  if (!failure) {
    const finish = { name: 'finish', timestamp, event: result ?? {} }
    return { status: 'complete', progress: 100, finished_at: timestamp, history: [finish] }
  }
  const { code, message } = failure
  return {
    status: 'failure',
    finished_at: timestamp,
    error: { code, message },
    history: [
      { name: 'error', timestamp, event: { error: { message, code } } },
      { name: 'finish', timestamp, event: result ?? {} },
    ],
  }
}

/** The VM in a result: what its record shows of a summary, null if it is gone, undefined if the agent did not say. */
function vmOf(result: unknown): Record<string, unknown> | null | undefined {
  if (typeof result !== 'object' || result === null || !('vm' in result)) return undefined
  const { vm } = result
  if (vm === null) return null
  if (typeof vm !== 'object' || !('state' in vm) || typeof vm.state !== 'string') return undefined
  const { state, domain_id, domain_state } = vm as Record<string, unknown>
  return { state, domain_id, domain_state }
}
