/**
 * The machine of a compute node: whether it is alive, and every task it has not ended. It is the sole writer of its tasks' records.
 *
 *   unregistered --register--> running --silent--> unknown --heard/register--> running
 *
 * A task is held (its VM is busy), offered (until the agent accepts) or accepted; it ends by the agent's report, by its VM, by an
 * operator, or by one of its two deadlines. Surprising: `silent` changes no task and no VM, since absence of a report is not death;
 * an agent that accepts a task which has ended meanwhile is told not to begin.
 */
import { setup } from 'xstate'
import { type Rejection, rejection } from '../contract/errors.ts'
import type { TaskReport } from '../contract/messages.ts'
import { OPEN_TASKS_MAX, type OpenTask, type ServerContext } from '../contract/server.ts'
import { ACCEPT_LIMIT_MS, TASKS, type TaskName, type TaskRecord } from '../contract/task.ts'
import type { VerbParams } from '../contract/verbs.ts'
import { type Effect, effect, iso, type Refused, type Stamp } from '../effects.ts'
import {
  type ClaimEvent,
  claimEffects,
  dropClaim,
  hasClaim,
  isFresh,
  refuseClaim,
  takeClaim,
  unclaimEffects,
  useClaims,
} from './claims.ts'
import { fromSysinfo, newServer } from './sysinfo.ts'

type Of<V extends 'register' | 'task_add' | 'task_release' | 'task_fail'> = Stamp & { type: V } & VerbParams<'cn', V>
type Report = Stamp & { type: 'report'; reported_at: number } & Omit<TaskReport, 'at'>
export type ServerEvent =
  | Of<'register'>
  | Of<'task_add'>
  | Of<'task_release'>
  | Of<'task_fail'>
  | (Stamp & { type: 'heard' | 'silent' })
  | (Stamp & { type: 'accept_limit' | 'run_limit'; task_id: string })
  | Report
  | ClaimEvent
  | Refused

/** Beyond an agent's own limit of a task, before the compute node ends it in its place. */
const RUN_GRACE_MS = 60_000

const states = setup({
  types: {
    context: {} as ServerContext,
    events: {} as ServerEvent,
    input: {} as { id: string; fresh?: Partial<ServerContext> },
  },
  actions: {
    keepSysinfo: noted,
    addTask: noted,
    offerTask: noted,
    recordRefusedTask: noted,
    startClock: noted,
    noteProgress: noted,
    endTask: noted,
    answer: noted,
    refuse: noted,
  },
  guards: {
    isOpen: ({ context, event }) => 'task_id' in event && openTask(context, event.task_id) !== undefined,
    isHeld: ({ context, event }) => 'task_id' in event && openTask(context, event.task_id)?.state === 'held',
    isOffered: ({ context, event }) => 'task_id' in event && openTask(context, event.task_id)?.state === 'offered',
    isFailedFromTheStart: ({ event }) => event.type === 'task_add' && event.failed !== undefined,
    isFreshClaim: ({ context, event }) => isFresh(context, event),
    hasClaim: ({ context, event }) => hasClaim(context, event),
    hasRoom: ({ context, event }) =>
      Object.keys(context.open).length < OPEN_TASKS_MAX ||
      (event.type === 'task_add' && openTask(context, event.task_id) !== undefined),
    isAcceptance: ({ context, event }) =>
      event.type === 'report' && event.status === 'accepted' && openTask(context, event.id) !== undefined,
    isProgress: ({ context, event }) =>
      event.type === 'report' && event.status === 'active' && openTask(context, event.id) !== undefined,
    isEnd: ({ context, event }) =>
      event.type === 'report' &&
      (event.status === 'complete' || event.status === 'failure') &&
      openTask(context, event.id) !== undefined,
  },
})

const tasks = states.createStateConfig({
  on: {
    task_add: [
      { guard: 'isFailedFromTheStart', actions: [effect('recordRefusedTask', recordRefusedTask)] },
      { guard: 'hasRoom', actions: [effect('addTask', addTask), states.assign(open)] },
      { actions: [effect('refuse', () => [{ type: 'reject', rejection: rejection('TooManyWaiting') }])] },
    ],
    task_release: [
      { guard: 'isHeld', actions: [states.assign(release), effect('offerTask', offerAndAnswer)] },
      { actions: [effect('answer', () => reply({}))] },
    ],
    task_fail: [
      { guard: 'isOpen', actions: [effect('endTask', failTask), states.assign(close)] },
      { actions: [effect('answer', () => reply({}))] },
    ],
    accept_limit: { guard: 'isOffered', actions: [effect('endTask', giveUp), states.assign(close)] },
    // A claim is a promise about the node as it was: only a running one makes it (below).
    unclaim: [
      {
        guard: 'hasClaim',
        actions: [states.assign(({ context, event }) => dropClaim(context, event)), effect('answer', unclaimEffects)],
      },
      { actions: [effect('answer', () => reply({}))] },
    ],
    claim_limit: {
      guard: 'hasClaim',
      actions: [states.assign(({ context, event }) => dropClaim(context, event))],
    },
    run_limit: { guard: 'isOpen', actions: [effect('endTask', giveUp), states.assign(close)] },
    report: [
      { guard: 'isAcceptance', actions: [states.assign(accept), effect('startClock', startClock)] },
      { guard: 'isProgress', actions: [effect('noteProgress', noteProgress)] },
      { guard: 'isEnd', actions: [effect('endTask', endByReport), states.assign(close)] },
      { actions: [effect('answer', () => reply({ go: false }))] },
    ],
  },
})

const register = (isNew: boolean) => ({
  target: 'running' as const,
  actions: [
    states.assign(({ context, event }) =>
      event.type === 'register' ? fromSysinfo(context, event.sysinfo, event.at, isNew) : {},
    ),
    effect('keepSysinfo', keepSysinfo),
  ],
})
const heard = effect('answer', () => reply({}))

export const computeNodeMachine = states.createMachine({
  id: 'cn',
  options: { maxIterations: 1000 },
  context: ({ input }) => ({ ...newServer(input?.id ?? ''), ...input?.fresh }),
  initial: 'unregistered',
  states: {
    unregistered: { on: { register: register(true) } },
    running: {
      ...tasks,
      on: {
        ...tasks.on,
        register: register(false),
        silent: { target: 'unknown', actions: [heard] },
        claim: [
          {
            guard: 'isFreshClaim',
            actions: [states.assign(({ context, event }) => takeClaim(context, event)), effect('answer', claimEffects)],
          },
          { actions: [effect('refuse', refuseClaim)] },
        ],
        heard: { actions: [heard] },
      },
    },
    unknown: {
      ...tasks,
      on: {
        ...tasks.on,
        register: register(false),
        heard: { target: 'running', actions: [heard] },
        silent: { actions: [heard] },
        claim: { actions: [effect('refuse', () => [{ type: 'reject', rejection: rejection('ServerNotRunning') }])] },
      },
    },
  },
})

// Changes of the context.

function open({ context, event }: { context: ServerContext; event: ServerEvent }): Partial<ServerContext> {
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

function release({ context, event }: { context: ServerContext; event: ServerEvent }): Partial<ServerContext> {
  return 'task_id' in event ? moved(context, event.task_id, 'offered') : {}
}

function accept({ context, event }: { context: ServerContext; event: ServerEvent }): Partial<ServerContext> {
  return event.type === 'report' ? moved(context, event.id, 'accepted') : {}
}

function moved(context: ServerContext, taskId: string, state: OpenTask['state']): Partial<ServerContext> {
  const task = openTask(context, taskId)
  return task ? { open: { ...context.open, [taskId]: { ...task, state } } } : {}
}

function close({ context, event }: { context: ServerContext; event: ServerEvent }): Partial<ServerContext> {
  const { [taskIdOf(event)]: _ended, ...rest } = context.open
  return { open: rest }
}

// Effects.

function keepSysinfo(context: ServerContext, event: ServerEvent): Effect[] {
  if (event.type !== 'register') return []
  return [{ type: 'put', bucket: 'inventory', key: `${context.uuid}.sysinfo`, value: event.sysinfo }, ...reply({})]
}

function addTask(context: ServerContext, event: ServerEvent): Effect[] {
  if (event.type !== 'task_add') return []
  const offered: Effect[] = event.held ? [] : offer(context, event.task_id, event.at)
  return [createRecord(context, event, { status: 'active' }), ...offered, ...reply({ id: event.task_id })]
}

function recordRefusedTask(context: ServerContext, event: ServerEvent): Effect[] {
  if (event.type !== 'task_add' || !event.failed) return []
  return [createRecord(context, event, endOf(event.at, event.failed)), ...reply({ id: event.task_id })]
}

function createRecord(context: ServerContext, event: Of<'task_add'>, more: Partial<TaskRecord>): Effect {
  const value = {
    id: event.task_id,
    req_id: event.req_id,
    task: event.task,
    server_uuid: context.uuid,
    status: 'active',
    timestamp: iso(event.at),
    vm_uuid: event.vm_uuid,
    ...more,
    params: event.params,
  }
  return { type: 'create', bucket: 'task', key: event.task_id, value }
}

function offer(context: ServerContext, taskId: string, at: number): Effect[] {
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

function offerAndAnswer(context: ServerContext, event: ServerEvent): Effect[] {
  return [...offer(context, taskIdOf(event), event.at), ...reply({})]
}

function startClock(context: ServerContext, event: ServerEvent): Effect[] {
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

function noteProgress(_context: ServerContext, event: ServerEvent): Effect[] {
  if (event.type !== 'report') return []
  const patch = {
    ...(event.progress === undefined ? {} : { progress: event.progress }),
    ...(event.step ? { step: event.step } : {}),
  }
  return [{ type: 'patch', bucket: 'task', key: event.id, while: { status: 'active' }, patch }, ...reply({ go: true })]
}

function endByReport(context: ServerContext, event: ServerEvent): Effect[] {
  if (event.type !== 'report') return []
  const failure = event.status === 'failure' ? (event.error ?? rejection('TaskFailed')) : undefined
  return [...ending(context, event.id, event.at, failure, event.result, event.reported_at), ...reply({ go: false })]
}

function failTask(context: ServerContext, event: ServerEvent): Effect[] {
  if (event.type !== 'task_fail') return []
  const { code, message } = event
  return [...ending(context, event.task_id, event.at, { code, message }), ...reply({})]
}

function giveUp(context: ServerContext, event: ServerEvent): Effect[] {
  const failure = event.type === 'accept_limit' ? rejection('AgentNotConnected') : rejection('TaskTimedOut')
  return ending(context, taskIdOf(event), event.at, failure)
}

/** The end of a task: its record, its timers, its offer, and word to its VM. */
function ending(
  context: ServerContext,
  taskId: string,
  at: number,
  failure?: Pick<Rejection, 'message'> & { code: string },
  result?: unknown,
  endedAt?: number,
): Effect[] {
  const task = openTask(context, taskId)
  const vm = vmOf(result)
  const told: Effect[] = task?.vm_uuid
    ? [
        {
          type: 'send',
          kind: 'vm',
          id: task.vm_uuid,
          verb: 'task_ended',
          params: {
            task_id: taskId,
            status: failure ? 'failure' : 'complete',
            ended_at: endedAt ?? 0,
            ...(failure ? { error: { code: failure.code, message: failure.message } } : {}),
            ...(vm === undefined ? {} : { vm }),
          },
        },
      ]
    : []
  return [
    { type: 'patch', bucket: 'task', key: taskId, while: { status: 'active' }, patch: endOf(at, failure, result) },
    { type: 'withdraw', task_id: taskId },
    { type: 'cancel_timer', name: `accept_${taskId}` },
    { type: 'cancel_timer', name: `run_${taskId}` },
    ...told,
  ]
}

/** CNAPI's history: one `finish` on success, `error` and `finish` on failure (cnapi-behaviour §5.1). */
function endOf(at: number, failure?: { code: string; message: string }, result?: unknown): Partial<TaskRecord> {
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

const reply = (value: unknown): Effect[] => [{ type: 'reply', value }]
const openTask = (context: ServerContext, taskId: string): OpenTask | undefined =>
  Object.hasOwn(context.open, taskId) ? context.open[taskId] : undefined
const taskIdOf = (event: ServerEvent): string =>
  'task_id' in event ? event.task_id : event.type === 'report' ? event.id : ''
function noted(_: unknown, _params: { effects: Effect[] }): void {}
