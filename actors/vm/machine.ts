/**
 * The machine of a VM: which operation is in flight, what waits, what the node last said.
 *
 *   absent --create--> provisioning --> running | stopped | incomplete
 *   stopped --start--> starting --> running          running --stop/kill/reboot--> stopping/killing/rebooting
 *   any settled --destroy--> destroying --> destroyed --24 h--> forgotten
 *
 * Surprising transitions: a report moves a settled VM between running, stopped, failed and missing without any verb; a verb that
 * arrives while another runs waits, and may be refused at its turn; a destroyed VM that the node still reports comes back.
 */
import { setup } from 'xstate'
import { rejection } from '../contract/errors.ts'
import { TASKS } from '../contract/task.ts'
import { VM_VERBS, type VmContext, type VmVerb, WAITING_MAX } from '../contract/vm.ts'
import { type Effect, effect } from '../effects.ts'
import { adopt, begin, beginNext, dropEnded, dropNext, note, settle, takeWanted, waitTurn } from './changes.ts'
import {
  askForHeldTask,
  askForTask,
  createTask,
  done,
  failNext,
  refusedTask,
  releaseTask,
  tellHost,
} from './effects.ts'
import type { Verb, VmEvent } from './events.ts'
import { clearLeftovers, leftoverEnded } from './leftovers.ts'
import { failOrphans, isOfServer } from './lost-server.ts'
import { migrationRefusal, proceed, startMigration } from './migration.ts'
import { stepTask } from './migration-steps.ts'
import { newVm } from './new-vm.ts'
import { lookedAt, looksAlike } from './observed.ts'
import {
  canBegin,
  endsOf,
  limitMsOf,
  mayBegin,
  OBSERVED,
  OPERATIONS,
  observedOf,
  outcomeOf,
  returnsOf,
  type Settled,
} from './operations.ts'

const VERBS_AFTER_CREATE = VM_VERBS.filter((verb): verb is Verb => verb !== 'create')

/** How long a destroyed VM, or one that never came to be, stays readable. */
const FORGET_AFTER_MS = 24 * 3600_000
/** A task always ends before this, by the agent or its compute node; past it something was lost. */
const OPERATION_GRACE_MS = 10 * 60_000
/** Nodes report each minute: what arrives so long after an operation's end was seen after it, whatever the node's clock says. */
const REPORT_LATE_MS = 2 * 60_000

/** An uncertain migration's target is asked this often. */
const ASK_AGAIN_MS = 60_000

const states = setup({
  types: { context: {} as VmContext, events: {} as VmEvent, input: {} as { id: string } },
  actions: {
    askForTask: noted,
    askForHeldTask: noted,
    releaseTask: noted,
    failTask: noted,
    recordRefusal: noted,
    refuse: noted,
    tellHost: noted,
    done: noted,
    migrate: noted,
  },
  guards: {
    mayBegin: ({ context, event }, params: { state: string; verb: VmVerb }) => {
      const given = 'params' in event ? event.params : {}
      return mayBegin(params.verb, params.state, given) && mayLeave(context, params.verb, given, params.state)
    },
    hasRoom: ({ context }) => context.waiting.length < WAITING_MAX,
    nextMayBegin: ({ context }, params: { state: string; verb: VmVerb }) => {
      const next = context.waiting[0]
      if (next?.verb !== params.verb) return false
      return mayBegin(next.verb, params.state, next.params) && mayLeave(context, next.verb, next.params, params.state)
    },
    migratesTo: ({ context, event }, params: { to: string }) => proceed(context, event)?.to === params.to,
    isLeftover: ({ context, event }) => leftoverEnded(context, event) !== undefined,
    isOfServer: ({ context, event }) => isOfServer(context, event),
    lostIn: ({ context, event }, params: { state: Settled }) =>
      isOfServer(context, event) && outcomeOf(context, { status: 'failure' }) === params.state,
    hasWaiting: ({ context }) => context.waiting.length > 0,
    isWaiting: ({ context, event }) =>
      event.type === 'task_ended' && context.waiting.some(({ task_id }) => task_id === event.task_id),
    endsIn: ({ context, event }, params: { state: Settled }) =>
      event.type === 'task_ended' &&
      event.task_id === context.operation?.task_id &&
      outcomeOf(context, event) === params.state,
    beganIn: ({ context }, params: { state: Settled }) => outcomeOf(context, { status: 'failure' }) === params.state,
    taskRefused: ({ context, event }, params: { state: Settled }) =>
      event.type === 'refused' &&
      event.params['task_id'] === context.operation?.task_id &&
      outcomeOf(context, { status: 'failure' }) === params.state,
    isKnown: ({ context, event }, params: { state?: Settled }) =>
      event.type === 'reported' &&
      event.server_uuid === context.server_uuid &&
      (params.state === undefined || observedOf(event.vm.state) === params.state) &&
      looksAlike(context.observed, lookedAt(event.vm, event.seen_at)),
    isNews: ({ context, event }, params: { state?: Settled }) =>
      event.type === 'reported' &&
      event.server_uuid === (context.server_uuid || event.server_uuid) &&
      isLater(context, event) &&
      (params.state === undefined || observedOf(event.vm.state) === params.state),
    mustWait: ({ context, event }) => event.type === 'adopt' && event.idle === true && context.operation !== null,
    isFromNode: ({ context, event }) => event.type === 'adopt' && event.server_uuid === context.server_uuid,
    isGone: ({ context, event }) =>
      event.type === 'vanished' && event.server_uuid === context.server_uuid && isLater(context, event),
  },
  delays: {
    operationLimit: ({ context }) => (context.operation ? limitMsOf(context.operation.verb) : 0) + OPERATION_GRACE_MS,
    stepLimit: ({ context }) => TASKS[stepTask(context) ?? 'nop'].limitMs + OPERATION_GRACE_MS,
    askAgain: ASK_AGAIN_MS,
    forgetAfter: FORGET_AFTER_MS,
  },
})

const noMigration = {
  actions: [effect('refuse', () => [{ type: 'reject' as const, rejection: rejection('MigrationNotFound') }])],
}

export const vmMachine = states.createMachine({
  id: 'vm',
  options: { maxIterations: 1000 },
  context: ({ input }) => newVm(input?.id ?? ''),
  initial: 'absent',
  on: {
    forget: [
      {
        guard: 'isOfServer',
        target: '.forgotten',
        actions: [
          effect('failTask', failOrphans),
          effect('tellHost', (context: VmContext) => tellHost(context, 'destroyed')),
          effect('done', done),
        ],
      },
      { actions: [effect('done', done)] },
    ],
    server_lost: { actions: [effect('done', done)] },
    clear_leftovers: {
      actions: [
        effect('migrate', (context: VmContext) => clearLeftovers(context).effects),
        states.assign(({ context }) => clearLeftovers(context).context),
      ],
    },
    migrate_abort: noMigration,
    migrate_finish: noMigration,
  },
  states: {
    absent: {
      on: {
        create: { target: OPERATIONS.create.during, actions: [states.assign(adopt), effect('askForTask', createTask)] },
        reported: reportedTargets('absent'),
      },
    },
    ...Object.fromEntries(VM_VERBS.map(verb => [OPERATIONS[verb].during, operating(verb)])),
    migrating: migrating('stepLimit', operating('migrate')),
    uncertain: migrating('askAgain', settled('uncertain' as never)),
    running: settled('running'),
    stopped: settled('stopped'),
    failed: settled('failed'),
    missing: settled('missing'),
    incomplete: settled('incomplete', { forgets: true }),
    destroyed: settled('destroyed', { forgets: true }),
    forgotten: { type: 'final' },
  },
})

/** A VM at rest: verbs that are legal here begin, others become failed tasks; reports move it. */
function settled(state: Settled, { forgets = false } = {}) {
  const canBeginHere = (verb: VmVerb) => canBegin(verb, state)
  const verbs = Object.fromEntries(
    VERBS_AFTER_CREATE.map(verb => [
      verb,
      [
        ...[verb].filter(canBeginHere).map(() => ({
          guard: { type: 'mayBegin' as const, params: { state, verb } },
          target: OPERATIONS[verb].during,
          actions:
            verb === 'migrate'
              ? [states.assign(begin(state)), effect('askForHeldTask', askForHeldTask), ...firstStep()]
              : [states.assign(begin(state)), effect('askForTask', askForTask)],
        })),
        {
          actions: [
            effect('recordRefusal', (context: VmContext, event: VmEvent) => refusedTask(context, event, state)),
          ],
        },
      ],
    ]),
  )
  const create = mayBegin('create', state, {})
    ? { target: OPERATIONS.create.during, actions: [states.assign(adopt), effect('askForTask', createTask)] }
    : { actions: [effect('refuse', () => [{ type: 'reject' as const, rejection: rejection('VmExists') }])] }
  return states.createStateConfig({
    always: [
      ...VERBS_AFTER_CREATE.filter(canBeginHere).map(verb => ({
        guard: { type: 'nextMayBegin' as const, params: { state, verb } },
        target: OPERATIONS[verb].during,
        actions:
          verb === 'migrate'
            ? [states.assign(beginNext(state)), ...firstStep()]
            : [states.assign(beginNext(state)), effect('releaseTask', releaseTask)],
      })),
      {
        guard: 'hasWaiting' as const,
        actions: [effect('failTask', (context: VmContext) => failNext(context, state)), states.assign(dropNext)],
      },
    ],
    on: {
      create,
      ...verbs,
      reported: reportedTargets(state),
      vanished: vanishedTarget(state),
      adopt: adoptions(),
      // The end of a task that this VM no longer waits for.
      task_ended: [leftoverEnds(), { actions: [effect('done', done)] }],
      refused: leftoverEnds(),
    },
    ...(forgets ? { after: { forgetAfter: 'forgotten' } } : {}),
  })
}

/** A VM with an operation in flight: verbs wait, reports are noted, and the task's end, its refusal or the deadline settles it. */
function operating(verb: VmVerb) {
  const ends = (guard: 'endsIn' | 'taskRefused' | 'beganIn') =>
    (guard === 'endsIn' ? endsOf(verb) : returnsOf(verb)).map(state => ({
      guard: { type: guard, params: { state } },
      target: state,
      actions: [
        effect('tellHost', (context: VmContext) => tellHost(context, state)),
        states.assign(settle),
        effect('done', done),
      ],
    }))
  const lost = returnsOf(verb).map(state => ({
    guard: { type: 'lostIn' as const, params: { state } },
    target: state,
    actions: [
      effect('failTask', failOrphans),
      effect('tellHost', (context: VmContext) => tellHost(context, state)),
      states.assign({ waiting: [] }),
      states.assign(settle),
      effect('done', done),
    ],
  }))
  const wait = [
    { guard: 'hasRoom' as const, actions: [states.assign(waitTurn), effect('askForHeldTask', askForHeldTask)] },
    { actions: [effect('refuse', () => [{ type: 'reject' as const, rejection: rejection('TooManyWaiting') }])] },
  ]
  return states.createStateConfig({
    after: { operationLimit: ends('beganIn') },
    on: {
      create: { actions: [effect('refuse', () => [{ type: 'reject' as const, rejection: rejection('VmExists') }])] },
      ...Object.fromEntries(VERBS_AFTER_CREATE.map(other => [other, wait])),
      task_ended: [
        ...ends('endsIn'),
        leftoverEnds(),
        // Its task was ended while it waited, by an operator: its turn must not come.
        { guard: 'isWaiting' as const, actions: [states.assign(dropEnded), effect('done', done)] },
        { actions: [effect('done', done)] },
      ],
      refused: [...ends('taskRefused'), leftoverEnds(), { actions: [states.assign(dropEnded)] }],
      reported: [
        { guard: { type: 'isKnown' as const, params: {} }, actions: [effect('done', done)] },
        { guard: { type: 'isNews' as const, params: {} }, actions: [states.assign(note), effect('done', done)] },
        { actions: [effect('done', done)] },
      ],
      vanished: { actions: [effect('done', done)] },
      server_lost: lost,
      adopt: adoptions(),
    },
    meta: { verb },
  })
}

/** A migration under way, or one of which nobody can say how it went: every word of its tasks and every deadline moves it on. */
function migrating(deadline: 'stepLimit' | 'askAgain', like: ReturnType<typeof operating | typeof settled>) {
  const moves = ['migrating', 'uncertain', ...OBSERVED, 'missing'].map(to => ({
    guard: { type: 'migratesTo' as const, params: { to } },
    target: to,
    reenter: true,
    actions: [
      effect('migrate', (context: VmContext, event: VmEvent) => proceed(context, event)?.effects ?? []),
      states.assign(({ context, event }) => proceed(context, event)?.context ?? {}),
    ],
  }))
  const { reported, vanished } = operating('migrate').on
  return states.createStateConfig({
    ...like,
    after: { [deadline]: moves },
    on: {
      ...like.on,
      reported,
      vanished,
      migrate_abort: moves,
      migrate_finish: moves,
      server_lost: [...moves, { actions: [effect('done', done)] }],
      task_ended: [
        ...moves,
        leftoverEnds(),
        { guard: 'isWaiting' as const, actions: [states.assign(dropEnded), effect('done', done)] },
        { actions: [effect('done', done)] },
      ],
      refused: [...moves, leftoverEnds(), { actions: [states.assign(dropEnded)] }],
    },
  })
}

function leftoverEnds() {
  return {
    guard: 'isLeftover' as const,
    actions: [
      effect('migrate', (context: VmContext, event: VmEvent) => leftoverEnded(context, event)?.effects ?? []),
      states.assign(({ context, event }) => leftoverEnded(context, event)?.context ?? {}),
    ],
  }
}

function firstStep() {
  return [
    effect('migrate', (context: VmContext) => startMigration(context).effects),
    states.assign(({ context }) => startMigration(context).context),
  ]
}

function reportedTargets(state: Settled | 'absent') {
  return [
    // What is known already is not written again: every VM of a node is told of after its owner changed.
    ...OBSERVED.filter(other => other === state).map(same => ({
      guard: { type: 'isKnown' as const, params: { state: same } },
      actions: [effect('done', done)],
    })),
    ...OBSERVED.map(other => ({
      guard: { type: 'isNews' as const, params: { state: other } },
      ...(other === state ? {} : { target: other }),
      actions: [states.assign(note), effect('done', done)],
    })),
    { actions: [effect('done', done)] },
  ]
}

/** What a task of this VM's node made of it is how it is from now on; word from a node it has left is not. */
function adoptions() {
  return [
    {
      guard: 'mustWait' as const,
      actions: [effect('refuse', () => [{ type: 'reject' as const, rejection: rejection('VmBusy') }])],
    },
    {
      guard: 'isFromNode' as const,
      actions: [states.assign(takeWanted), effect('done', done)],
    },
    { actions: [effect('done', done)] },
  ]
}

function vanishedTarget(state: Settled) {
  const stays = state === 'missing' || state === 'destroyed' || state === 'incomplete'
  return [
    ...(stays ? [] : [{ guard: 'isGone' as const, target: 'missing', actions: [effect('done', done)] }]),
    { actions: [effect('done', done)] },
  ]
}

/** A verb that would take the VM from its server has conditions of its own. */
function mayLeave(context: VmContext, verb: VmVerb, params: Record<string, unknown>, state: string): boolean {
  return verb !== 'migrate' || migrationRefusal(context, params, state) === undefined
}

/** Did the node look after the last operation ended? By its own clock, unless that was set back meanwhile. */
function isLater(context: VmContext, { seen_at, at }: { seen_at: number; at: number }): boolean {
  return seen_at > context.settled_at || at - context.modified_at > REPORT_LATE_MS
}

function noted(_: unknown, _params: { effects: Effect[] }): void {}
