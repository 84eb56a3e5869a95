/**
 * The machine of a compute node: whether it is alive, and every task it has not ended. It is the sole writer of its tasks' records.
 *
 *   unregistered --register--> running --silent--> unknown --heard/register--> running
 *   running/unknown --delete--> deleted --register--> running, or after a while, when nothing of it is left, forgotten
 *   unregistered --boot_set/boot_update, id `default` only--> defaults
 *
 * A task is held (its VM is busy), offered (until the agent accepts) or accepted; it ends by the agent's report, by its VM, by an
 * operator, or by one of its two deadlines. Surprising: `silent` changes no task and no VM, since absence of a report is not death;
 * an agent that accepts a task which has ended meanwhile is told not to begin.
 */
import { setup } from 'xstate'
import { rejection } from '../contract/errors.ts'
import { newServer } from '../contract/new-server.ts'
import { OPEN_TASKS_MAX, type ServerContext } from '../contract/server.ts'
import { type Effect, effect } from '../effects.ts'
import { claimEffects, dropClaim, hasClaim, isFresh, refuseClaim, takeClaim, unclaimEffects } from './claims.ts'
import { DELETED_KEPT_MS, deleteServer, dropInventory, forgotten } from './delete.ts'
import type { ServerEvent } from './events.ts'
import {
  advance,
  cancel,
  isLate,
  isPaused,
  isRunningJob,
  refuseJob,
  runLate,
  running,
  runsSame,
  start,
  started,
} from './job-run.ts'
import { cancelOrphan, endOrphan, failOrphan } from './orphans.ts'
import { fromSysinfo } from './sysinfo.ts'
import { openTask } from './task-effects.ts'
import {
  accept,
  addTask,
  close,
  endByReport,
  endWell,
  failTask,
  giveUp,
  noteProgress,
  noteStep,
  offerAndAnswer,
  open,
  recordRefusedTask,
  refusePaused,
  release,
  startClock,
} from './tasks.ts'
import { keepSysinfo, settled } from './told.ts'
import { changesOf, isChange, isServer, isTooLong, refuseTooLong } from './update.ts'

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
    endJob: noted,
    dropInventory: noted,
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
    isPaused: ({ context, event }) =>
      isPaused(context) && event.type === 'task_add' && !event.taken_over && !openTask(context, event.task_id),
    runsSame: ({ context, event }) => runsSame(context, event),
    runsJob: ({ context }) => context.job !== undefined,
    isRunningJob: ({ context, event }) => isRunningJob(context, event),
    isLate: ({ context, event }) => isLate(context, event),
    jobMoves: ({ context, event }) => advance(context, event.at) !== undefined,
    isServer: ({ context }) => isServer(context),
    isForgetting: ({ context }) => context.forgetting === true,
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

const orphanedJob = { actions: [effect('endJob', cancelOrphan)] }

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
      orphanedJob,
    ],
    job_limit: { guard: 'isLate', actions: [states.assign(({ context }) => runLate(context))] },
    pause: { actions: [states.assign({ paused: true }), answered] },
    resume: { actions: [states.assign({ paused: undefined }), answered] },
    update: changeRecord,
    boot_set: changeRecord,
    boot_update: changeRecord,
    delete: {
      target: 'deleted' as const,
      actions: [effect('endTask', deleteServer), states.assign(({ context, event }) => forgotten(context, event))],
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
    ...(isNew ? [states.assign({ forgetting: undefined })] : []),
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
        job_cancel: orphanedJob,
      },
    },
    defaults: { on: { boot_set: changeRecord, boot_update: changeRecord } },
    deleted: {
      on: {
        register: register(true),
        task_fail: { actions: [effect('endTask', failOrphan)] },
        job_cancel: orphanedJob,
        drop_inventory: { actions: [effect('dropInventory', dropInventory)] },
        forgot_all: [
          { guard: 'isForgetting' as const, actions: [states.assign({ forgetting: undefined }), heard] },
          { actions: [heard] },
        ],
      },
      after: {
        deletedKept: [
          { guard: 'isForgetting' as const, target: 'deleted' as const, reenter: true },
          { target: 'forgotten' as const },
        ],
      },
    },
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
        job_start: [...startJob.slice(0, 2), { actions: [refuseNotRunning] }],
        claim: { actions: [refuseNotRunning] },
      },
    },
  },
})

const reply = (value: unknown): Effect[] => [{ type: 'reply', value }]
function noted(_: unknown, _params: { effects: Effect[] }): void {}
