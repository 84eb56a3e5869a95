/** The tasks of a compute node as its machine decides them: what each event changes in the table of open ones, and what it asks for. */
import { rejection } from '../contract/errors.ts'
import type { OpenTask, ServerContext } from '../contract/server.ts'
import { TASKS, type TaskName } from '../contract/task.ts'
import type { Effect } from '../effects.ts'
import { useClaims } from './claims.ts'
import type { ServerEvent } from './events.ts'
import { taskEnded } from './job-run.ts'
import { createRecord, ending, endOf, type Failure, offer, openTask, tellChanged, tellVm } from './task-effects.ts'
import { keepTold, told } from './told.ts'

/** Beyond an agent's own limit of a task, before the compute node ends it in its place. */
const RUN_GRACE_MS = 60_000

export function open({ context, event }: { context: ServerContext; event: ServerEvent }): Partial<ServerContext> {
  if (event.type !== 'task_add') return {}
  const task: OpenTask = {
    task: event.task,
    vm_uuid: event.vm_uuid ?? null,
    state: event.held ? 'held' : 'offered',
    at: event.at,
    ...(event.req_id === undefined ? {} : { req_id: event.req_id }),
  }
  const used = event.task === 'machine_create' ? useClaims(context, event.vm_uuid) : {}
  return { open: { ...context.open, [event.task_id]: task }, ...used }
}

export function release({ context, event }: { context: ServerContext; event: ServerEvent }): Partial<ServerContext> {
  return 'task_id' in event ? moved(context, event.task_id, 'offered') : {}
}

export function accept({ context, event }: { context: ServerContext; event: ServerEvent }): Partial<ServerContext> {
  return event.type === 'report' ? moved(context, event.id, 'accepted') : {}
}

function moved(context: ServerContext, taskId: string, state: OpenTask['state']): Partial<ServerContext> {
  const task = openTask(context, taskId)
  return task ? { open: { ...context.open, [taskId]: { ...task, state } } } : {}
}

export function close({ context, event }: { context: ServerContext; event: ServerEvent }): Partial<ServerContext> {
  const { [taskIdOf(event)]: _ended, ...rest } = context.open
  return { open: rest, ...told(context, event), ...taskEnded(context, taskIdOf(event), outcomeOf(event)) }
}

export function addTask(context: ServerContext, event: ServerEvent): Effect[] {
  if (event.type !== 'task_add') return []
  const offered: Effect[] = event.held ? [] : offer(context, event.task_id, event.at)
  const kept: Effect[] = event.taken_over
    ? [
        {
          type: 'patch',
          bucket: 'task',
          key: event.task_id,
          while: { status: 'active' },
          patch: { server_uuid: context.uuid },
        },
      ]
    : [createRecord(context, event)]
  return [...kept, ...offered, ...reply({ id: event.task_id })]
}

export function recordRefusedTask(context: ServerContext, event: ServerEvent): Effect[] {
  if (event.type !== 'task_add' || !event.failed) return []
  return [createRecord(context, event, endOf(event.at, event.failed)), ...reply({ id: event.task_id })]
}

/** As a paused node agent refuses it; its VM hears of the end as of any other. */
export function refusePaused(context: ServerContext, event: ServerEvent): Effect[] {
  if (event.type !== 'task_add') return []
  const failure = rejection('AgentPaused')
  return [
    createRecord(context, event, endOf(event.at, failure)),
    ...tellVm(event.vm_uuid, event.task_id, { failure }),
    ...reply({ id: event.task_id }),
  ]
}

export function offerAndAnswer(context: ServerContext, event: ServerEvent): Effect[] {
  return [...offer(context, taskIdOf(event), event.at), ...reply({})]
}

export function startClock(context: ServerContext, event: ServerEvent): Effect[] {
  if (event.type !== 'report') return []
  const limitMs = TASKS[openTask(context, event.id)?.task as TaskName]?.limitMs ?? 0
  return [
    { type: 'withdraw', task_id: event.id },
    { type: 'cancel_timer', name: `accept_${event.id}` },
    {
      type: 'set_timer',
      name: `run_${event.id}`,
      at: event.at + limitMs + RUN_GRACE_MS,
      event: { type: 'run_limit', task_id: event.id },
    },
    ...reply({ go: true }),
  ]
}

export function noteProgress(context: ServerContext, event: ServerEvent): Effect[] {
  if (event.type !== 'report') return []
  const patch = {
    ...(event.progress === undefined ? {} : { progress: event.progress }),
    ...(event.step ? { step: event.step } : {}),
  }
  return [
    { type: 'patch', bucket: 'task', key: event.id, while: { status: 'active' }, patch },
    ...tellChanged(context.uuid, event.changed),
    ...reply({ go: true }),
  ]
}

export function endByReport(context: ServerContext, event: ServerEvent): Effect[] {
  if (event.type !== 'report') return []
  const end = { ...outcomeOf(event), ended_at: event.reported_at }
  return [...ending(context, event.id, event.at, end), ...keepTold(context, event), ...reply({ go: false })]
}

export function failTask(context: ServerContext, event: ServerEvent): Effect[] {
  return [...giveUp(context, event), ...reply({})]
}

/** A composed task, as its VM tells it. */
export function noteStep(_context: ServerContext, event: ServerEvent): Effect[] {
  if (event.type !== 'task_note') return []
  const { progress, step } = event
  const patch = { progress, step }
  return [{ type: 'patch', bucket: 'task', key: event.task_id, while: { status: 'active' }, patch }, ...reply({})]
}

export function endWell(context: ServerContext, event: ServerEvent): Effect[] {
  if (event.type !== 'task_done') return []
  return [...ending(context, event.task_id, event.at, { result: event.result }), ...reply({})]
}

export function giveUp(context: ServerContext, event: ServerEvent): Effect[] {
  return ending(context, taskIdOf(event), event.at, outcomeOf(event))
}

/** What a task has come to, by the event that ended it. */
function outcomeOf(event: ServerEvent): { failure?: Failure; result?: unknown } {
  switch (event.type) {
    case 'task_fail':
      return { failure: { code: event.code, message: event.message } }
    case 'accept_limit':
      return { failure: rejection('AgentNotConnected') }
    case 'run_limit':
      return { failure: rejection('TaskTimedOut') }
    case 'report':
      return event.status === 'failure'
        ? { failure: event.error ?? rejection('TaskFailed'), result: event.result }
        : { result: event.result }
    default:
      return {}
  }
}

const reply = (value: unknown): Effect[] => [{ type: 'reply', value }]
const taskIdOf = (event: ServerEvent): string =>
  'task_id' in event ? event.task_id : event.type === 'report' ? event.id : ''
