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
import { type Operation, VM_VERBS, type VmContext, type VmVerb, WAITING_MAX } from '../contract/vm.ts'
import { type Effect, effect } from '../effects.ts'
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
import { operationOf, reqId, type Verb, type VmEvent } from './events.ts'
import { newVm } from './new-vm.ts'
import {
  canBegin,
  endsOf,
  enqueue,
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
  },
  guards: {
    mayBegin: ({ event }, params: { state: string; verb: VmVerb }) =>
      mayBegin(params.verb, params.state, 'params' in event ? event.params : {}),
    hasRoom: ({ context }) => context.waiting.length < WAITING_MAX,
    nextMayBegin: ({ context }, params: { state: string; verb: VmVerb }) => {
      const next = context.waiting[0]
      return next?.verb === params.verb && mayBegin(next.verb, params.state, next.params)
    },
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
    isGone: ({ context, event }) =>
      event.type === 'vanished' && event.server_uuid === context.server_uuid && isLater(context, event),
  },
  delays: {
    operationLimit: ({ context }) =>
      (context.operation ? TASKS[OPERATIONS[context.operation.verb].task].limitMs : 0) + OPERATION_GRACE_MS,
    forgetAfter: FORGET_AFTER_MS,
  },
})

export const vmMachine = states.createMachine({
  id: 'vm',
  options: { maxIterations: 1000 },
  context: ({ input }) => newVm(input?.id ?? ''),
  initial: 'absent',
  states: {
    absent: {
      on: {
        create: { target: OPERATIONS.create.during, actions: [adopt(), effect('askForTask', createTask)] },
        reported: reportedTargets('absent'),
      },
    },
    ...Object.fromEntries(VM_VERBS.map(verb => [OPERATIONS[verb].during, operating(verb)])),
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
          actions: [begin(state), effect('askForTask', askForTask)],
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
    ? { target: OPERATIONS.create.during, actions: [adopt(), effect('askForTask', createTask)] }
    : { actions: [effect('refuse', () => [{ type: 'reject' as const, rejection: rejection('VmExists') }])] }
  return states.createStateConfig({
    always: [
      ...VERBS_AFTER_CREATE.filter(canBeginHere).map(verb => ({
        guard: { type: 'nextMayBegin' as const, params: { state, verb } },
        target: OPERATIONS[verb].during,
        actions: [beginNext(state), effect('releaseTask', releaseTask)],
      })),
      {
        guard: 'hasWaiting' as const,
        actions: [
          effect('failTask', (context: VmContext) => failNext(context, state)),
          states.assign({ waiting: dropNext }),
        ],
      },
    ],
    on: {
      create,
      ...verbs,
      reported: reportedTargets(state),
      vanished: vanishedTarget(state),
      // The end of a task that this VM no longer waits for.
      task_ended: { actions: [effect('done', done)] },
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
      actions: [effect('tellHost', (context: VmContext) => tellHost(context, state)), settle(), effect('done', done)],
    }))
  const wait = [
    { guard: 'hasRoom' as const, actions: [waitTurn(), effect('askForHeldTask', askForHeldTask)] },
    { actions: [effect('refuse', () => [{ type: 'reject' as const, rejection: rejection('TooManyWaiting') }])] },
  ]
  return states.createStateConfig({
    after: { operationLimit: ends('beganIn') },
    on: {
      create: { actions: [effect('refuse', () => [{ type: 'reject' as const, rejection: rejection('VmExists') }])] },
      ...Object.fromEntries(VERBS_AFTER_CREATE.map(other => [other, wait])),
      task_ended: [
        ...ends('endsIn'),
        // Its task was ended while it waited, by an operator: its turn must not come.
        { guard: 'isWaiting' as const, actions: [states.assign(dropEnded), effect('done', done)] },
        { actions: [effect('done', done)] },
      ],
      refused: [...ends('taskRefused'), { actions: [states.assign(dropEnded)] }],
      reported: [
        { guard: { type: 'isKnown' as const, params: {} }, actions: [effect('done', done)] },
        { guard: { type: 'isNews' as const, params: {} }, actions: [note(), effect('done', done)] },
        { actions: [effect('done', done)] },
      ],
      vanished: { actions: [effect('done', done)] },
    },
    meta: { verb },
  })
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
      actions: [note(), effect('done', done)],
    })),
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

// Changes of the context.

/** A new VM as its creator ordered it. */
function adopt() {
  return states.assign(({ context, event }) => {
    if (event.type !== 'create') return {}
    const { spec } = event
    return {
      server_uuid: event.server_uuid,
      name: spec.name,
      alias: spec.alias ?? null,
      owner_uuid: spec.owner_uuid ?? null,
      brand: spec.brand ?? 'kvm',
      ram: spec.memory_mib,
      vcpus: spec.vcpus,
      cpu_cap: spec.cpu_cap ?? null,
      quota: spec.quota_gib ?? null,
      image_uuid: event.image_uuid ?? null,
      disks: spec.disks,
      nics: spec.nics,
      host_key: event.host_key ?? null,
      discovered: false,
      created_at: event.at,
      modified_at: event.at,
      observed: null,
      before: 'absent',
      waiting: context.waiting,
      failure: null,
      operation: { verb: 'create', task_id: event.task_id, at: event.at, params: {}, ...reqId(event) },
    }
  })
}

function begin(state: string) {
  return states.assign(({ event }) => ({
    operation: operationOf(event),
    before: state,
    modified_at: event.at,
  }))
}

function beginNext(state: string) {
  return states.assign(({ context }) => ({
    operation: context.waiting[0] ?? null,
    waiting: context.waiting.slice(1),
    before: state,
  }))
}

function waitTurn() {
  return states.assign(({ context, event }) => {
    const next = operationOf(event)
    return next ? { waiting: enqueue(context.waiting, next) } : {}
  })
}

function settle() {
  return states.assign(({ context, event }) => {
    const verb = context.operation?.verb ?? 'create'
    const failure =
      event.type === 'task_ended'
        ? event.status === 'failure' && (event.error ?? rejection('TaskFailed'))
        : event.type === 'refused'
          ? event.rejection
          : rejection('TaskTimedOut', 'the end of the task was never reported')
    return {
      operation: null,
      before: null,
      modified_at: event.at,
      settled_at: Math.max(context.settled_at, event.type === 'task_ended' ? event.ended_at : 0),
      // The agent's last look, so that listings need not wait for the next status event.
      ...(event.type === 'task_ended' && event.vm ? { observed: lookedAt(event.vm, event.ended_at) } : {}),
      failure: failure ? { verb, code: failure.code, message: failure.message, at: event.at } : null,
    }
  })
}

/** What a report says of a VM: its state, and for one that nobody ordered here all that is known of it. */
function note() {
  return states.assign(({ context, event }) => {
    if (event.type !== 'reported') return {}
    const { vm } = event
    const observed = lookedAt(vm, event.seen_at)
    if (context.server_uuid) return { observed }
    return {
      observed,
      discovered: true,
      server_uuid: event.server_uuid,
      name: stringOr(vm['name'], vm.uuid),
      alias: stringOr(vm['alias'], null),
      owner_uuid: stringOr(vm['owner_uuid'], null),
      brand: stringOr(vm['brand'], 'kvm'),
      ram: numberOr(vm['max_physical_memory'], 0),
      vcpus: numberOr(vm['vcpus'], 1),
      cpu_cap: numberOr(vm['cpu_cap'], null),
      quota: numberOr(vm['quota'], null),
      created_at: event.at,
      modified_at: event.at,
    }
  })
}

function lookedAt(vm: { state: string } & Record<string, unknown>, at: number): VmContext['observed'] {
  return {
    state: vm.state,
    at,
    domain_id: numberOr(vm['domain_id'], null),
    domain_state: stringOr(vm['domain_state'], null),
  }
}

function dropNext({ context }: { context: VmContext }): Operation[] {
  return context.waiting.slice(1)
}

/** A verb that was to wait but whose task was refused, or ended by an operator. */
function dropEnded({ context, event }: { context: VmContext; event: VmEvent }): Partial<VmContext> {
  const ended = event.type === 'refused' ? event.params['task_id'] : event.type === 'task_ended' && event.task_id
  return { waiting: context.waiting.filter(({ task_id }) => task_id !== ended) }
}

/** Did the node look after the last operation ended? By its own clock, unless that was set back meanwhile. */
function isLater(context: VmContext, { seen_at, at }: { seen_at: number; at: number }): boolean {
  return seen_at > context.settled_at || at - context.modified_at > REPORT_LATE_MS
}

/** The same but for the time of looking. */
function looksAlike(known: VmContext['observed'], seen: VmContext['observed']): boolean {
  return (
    known?.state === seen?.state && known?.domain_id === seen?.domain_id && known?.domain_state === seen?.domain_state
  )
}

function stringOr<D extends string | null>(value: unknown, otherwise: D): string | D {
  return typeof value === 'string' ? value : otherwise
}
function numberOr<D extends number | null>(value: unknown, otherwise: D): number | D {
  return typeof value === 'number' ? value : otherwise
}

function noted(_: unknown, _params: { effects: Effect[] }): void {}
