/**
 * The machine of a compute node: whether it is alive, and every task it has not ended. It is the sole writer of its tasks' records.
 *
 *   unregistered --register--> running --silent--> unknown --heard/register--> running
 *   running/unknown --delete--> deleted --register--> running, or after a while forgotten
 *   unregistered --boot_set/boot_update, id `default` only--> defaults
 *
 * A task is held (its VM is busy), offered (until the agent accepts) or accepted; it ends by the agent's report, by its VM, by an
 * operator, or by one of its two deadlines. Surprising: `silent` changes no task and no VM, since absence of a report is not death;
 * an agent that accepts a task which has ended meanwhile is told not to begin.
 */
import { setup } from 'xstate'
import { rejection } from '../contract/errors.ts'
import type { TaskReport } from '../contract/messages.ts'
import { newServer } from '../contract/new-server.ts'
import { OPEN_TASKS_MAX, type OpenTask, type ServerContext } from '../contract/server.ts'
import { TASKS, type TaskName } from '../contract/task.ts'
import type { VerbParams } from '../contract/verbs.ts'
import { type Effect, effect, type Refused, type Stamp } from '../effects.ts'
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
import { DELETED_KEPT_MS, type DeleteEvent, deleteServer, forgotten } from './delete.ts'
import {
  advance,
  cancel,
  isLate,
  isPaused,
  isRunningJob,
  type JobEvent,
  refuseJob,
  running,
  runLate,
  runsSame,
  start,
  started,
  taskEnded,
} from './job-run.ts'
import { endOrphan, failOrphan } from './orphans.ts'
import { fromSysinfo } from './sysinfo.ts'
import { createRecord, ending, endOf, offer, openTask, tellVm, type Failure } from './task-effects.ts'
import { keepTold, settled, told } from './told.ts'
import { changesOf, isChange, isServer, isTooLong, type RecordEvent, refuseTooLong } from './update.ts'

type Of<V extends 'register' | 'task_add' | 'task_release' | 'task_fail' | 'task_note' | 'task_done' | 'task_drop'> = Stamp & { type: V } & VerbParams<'cn', V>
type Report = Stamp & { type: 'report'; reported_at: number } & Omit<TaskReport, 'at'>
export type ServerEvent =
  | Of<'register'>
  | Of<'task_add'>
  | Of<'task_release'>
  | Of<'task_fail'>
  | Of<'task_note'>
  | Of<'task_done'>
  | Of<'task_drop'>
  | (Stamp & { type: 'heard' | 'silent' })
  | (Stamp & { type: 'accept_limit' | 'run_limit'; task_id: string })
  | Report
  | ClaimEvent
  | (Stamp & { type: 'pause' | 'resume' })
  | JobEvent
  | RecordEvent
  | DeleteEvent
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
    startJob: noted,
    runJob: noted,
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
    takesNothingNew: ({ context }) => isPaused(context),
    isPaused: ({ context, event }) => isPaused(context) && 'task_id' in event && !openTask(context, event.task_id),
    runsSame: ({ context, event }) => runsSame(context, event),
    runsJob: ({ context }) => context.job !== undefined,
    isRunningJob: ({ context, event }) => isRunningJob(context, event),
    isLate: ({ context, event }) => isLate(context, event),
    jobMoves: ({ context, event }) => advance(context, event.at) !== undefined,
    isServer: ({ context }) => isServer(context),
    isChange: ({ context, event }) => isChange(context, event),
    isTooLong: ({ context, event }) => isTooLong(context, event),
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
  delays: { deletedKept: DELETED_KEPT_MS },
})

const answered = effect('answer', () => reply({}))
const refuseNotRunning = effect('refuse', () => [{ type: 'reject' as const, rejection: rejection('ServerNotRunning') }])
/** A change of the record itself: what is so already is not written again. */
const changeRecord = [
  { guard: 'isTooLong' as const, actions: [effect('refuse', refuseTooLong)] },
  {
    guard: 'isChange' as const,
    actions: [states.assign(({ context, event }) => changesOf(context, event)), answered],
  },
  { actions: [answered] },
]
/** The same for the record `default`, which begins with its first change; other unknown ids are answered nothing: there is no such server. */
const changeDefaults = [
  { guard: 'isServer' as const },
  ...changeRecord.map(change => ({
    ...change,
    ...(change.guard === 'isChange' ? { target: 'defaults' as const } : {}),
  })),
]

/** One job at a time: the same again is the one that runs. Where the node is not running, none begins. */
const startJob = [
  { guard: 'runsSame' as const, actions: [effect('answer', running)] },
  { guard: 'runsJob' as const, actions: [effect('refuse', refuseJob)] },
  { actions: [states.assign(({ context, event }) => start(context, event)), effect('startJob', started)] },
]

const tasks = states.createStateConfig({
  always: {
    guard: 'jobMoves',
    actions: [
      effect('runJob', (context: ServerContext, { at }: ServerEvent) => advance(context, at)?.effects ?? []),
      states.assign(({ context, event }) => advance(context, event.at)?.context ?? {}),
    ],
  },
  on: {
    job_cancel: [
      { guard: 'isRunningJob', actions: [states.assign(({ context }) => cancel(context)), answered] },
      { actions: [answered] },
    ],
    job_limit: { guard: 'isLate', actions: [states.assign(({ context }) => runLate(context))] },
    pause: { actions: [states.assign({ paused: true }), answered] },
    resume: { actions: [states.assign({ paused: undefined }), answered] },
    update: changeRecord,
    boot_set: changeRecord,
    boot_update: changeRecord,
    delete: {
      target: 'deleted' as const,
      actions: [effect('endTask', deleteServer), states.assign(({ context }) => forgotten(context))],
    },
    task_add: [
      { guard: 'isFailedFromTheStart', actions: [effect('recordRefusedTask', recordRefusedTask)] },
      { guard: 'isPaused', actions: [effect('recordRefusedTask', refusePaused)] },
      { guard: 'hasRoom', actions: [effect('addTask', addTask), states.assign(open)] },
      { actions: [effect('refuse', () => [{ type: 'reject', rejection: rejection('TooManyWaiting') }])] },
    ],
    task_release: [
      { guard: 'isHeld', actions: [states.assign(release), effect('offerTask', offerAndAnswer)] },
      { actions: [effect('answer', () => reply({}))] },
    ],
    task_fail: [
      { guard: 'isOpen', actions: [effect('endTask', failTask), states.assign(close)] },
      { actions: [effect('endTask', failOrphan)] },
    ],
    task_note: [
      { guard: 'isOpen', actions: [effect('noteProgress', noteStep)] },
      { actions: [effect('answer', () => reply({}))] },
    ],
    task_done: [
      { guard: 'isOpen', actions: [effect('endTask', endWell), states.assign(close)] },
      { actions: [effect('answer', () => reply({}))] },
    ],
    task_drop: [
      { guard: 'isHeld', actions: [states.assign(close), effect('answer', () => reply({}))] },
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
      { actions: [effect('endTask', endOrphan)] },
    ],
  },
})

const register = (isNew: boolean, { wasUnknown = false } = {}) => ({
  target: 'running' as const,
  actions: [
    states.assign(({ context, event }) =>
      event.type === 'register'
        ? settled(context, fromSysinfo(context, event.sysinfo, event.at, isNew, event.defaults), { wasUnknown })
        : {},
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
    unregistered: {
      on: {
        register: { guard: 'isServer' as const, ...register(true) },
        boot_set: changeDefaults,
        boot_update: changeDefaults,
        task_fail: { actions: [effect('endTask', failOrphan)] },
      },
    },
    defaults: { on: { boot_set: changeRecord, boot_update: changeRecord } },
    deleted: { on: { register: register(true) }, after: { deletedKept: 'forgotten' } },
    forgotten: { type: 'final' },
    running: {
      ...tasks,
      on: {
        ...tasks.on,
        register: register(false),
        silent: { target: 'unknown', actions: [heard] },
        job_start: startJob,
        claim: [
          { guard: 'takesNothingNew', actions: [refuseNotRunning] },
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
        register: register(false, { wasUnknown: true }),
        heard: {
          target: 'running',
          actions: [states.assign(({ context }) => settled(context, {}, { wasUnknown: true })), heard],
        },
        silent: { actions: [heard] },
        job_start: [
          ...startJob.slice(0, 2),
          { actions: [refuseNotRunning] },
        ],
        claim: { actions: [refuseNotRunning] },
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
  return { open: rest, ...told(context, event), ...taskEnded(context, taskIdOf(event), outcomeOf(event)) }
}

// Effects.

function keepSysinfo(context: ServerContext, event: ServerEvent): Effect[] {
  if (event.type !== 'register') return []
  return [{ type: 'put', bucket: 'inventory', key: `${context.uuid}.sysinfo`, value: event.sysinfo }, ...reply({})]
}

function addTask(context: ServerContext, event: ServerEvent): Effect[] {
  if (event.type !== 'task_add') return []
  const offered: Effect[] = event.held ? [] : offer(context, event.task_id, event.at)
  const kept: Effect[] = event.taken_over
    ? [{ type: 'patch', bucket: 'task', key: event.task_id, while: { status: 'active' }, patch: { server_uuid: context.uuid } }]
    : [createRecord(context, event)]
  return [...kept, ...offered, ...reply({ id: event.task_id })]
}

function recordRefusedTask(context: ServerContext, event: ServerEvent): Effect[] {
  if (event.type !== 'task_add' || !event.failed) return []
  return [createRecord(context, event, endOf(event.at, event.failed)), ...reply({ id: event.task_id })]
}

/** As a paused node agent refuses it; its VM hears of the end as of any other. */
function refusePaused(context: ServerContext, event: ServerEvent): Effect[] {
  if (event.type !== 'task_add') return []
  const failure = rejection('AgentPaused')
  return [
    createRecord(context, event, endOf(event.at, failure)),
    ...tellVm(event.vm_uuid, event.task_id, { failure }),
    ...reply({ id: event.task_id }),
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
  const end = { ...outcomeOf(event), ended_at: event.reported_at }
  return [...ending(context, event.id, event.at, end), ...keepTold(context, event), ...reply({ go: false })]
}

function failTask(context: ServerContext, event: ServerEvent): Effect[] {
  return [...giveUp(context, event), ...reply({})]
}

/** A composed task, as its VM tells it. */
function noteStep(_context: ServerContext, event: ServerEvent): Effect[] {
  if (event.type !== 'task_note') return []
  const { progress, step } = event
  const patch = { progress, step }
  return [{ type: 'patch', bucket: 'task', key: event.task_id, while: { status: 'active' }, patch }, ...reply({})]
}

function endWell(context: ServerContext, event: ServerEvent): Effect[] {
  if (event.type !== 'task_done') return []
  return [...ending(context, event.task_id, event.at, { result: event.result }), ...reply({})]
}

function giveUp(context: ServerContext, event: ServerEvent): Effect[] {
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
function noted(_: unknown, _params: { effects: Effect[] }): void {}
