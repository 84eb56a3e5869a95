/**
 * A migration as a saga of the VM's actor: one task after the other on source and target, each with its deadline, until the VM is the
 * target's; before that any failure, cancel or deadline takes everything back. Never do two copies run: the source's is held before
 * its disks are read, the target's is started by one step only, and once that was ordered the source starts again only after the
 * target has said that its copy is gone. While it cannot say so the VM is `uncertain` and stopped.
 *
 *   examine -> receive -> stop -> send -> adopt -> start -> | VM is the target's | -> finish -> remove
 *   any failure before: discard (target) -> release (source)
 *   a discard that finds the copy running there: -> | VM is the target's | -> finish -> remove
 *
 * A live one leaves out `stop` and `adopt`: its `send` ends with the guest paused on the source, and `start` lets it go on on the target.
 */
import { type Rejection, rejection } from '../contract/errors.ts'
import type { Migration, MigrationStep } from '../contract/migration.ts'
import type { Operation, VmContext } from '../contract/vm.ts'
import type { Effect } from '../effects.ts'
import type { VmEvent } from './events.ts'
import { leave, leftoversTimer, stepTaskId } from './leftovers.ts'
import { COMMITTED, nextStep, STEPS, UNDOING } from './migration-steps.ts'
import { lookedAt } from './observed.ts'
import { OPERATIONS, observedOf } from './operations.ts'

/** What an event does to a migration: where the VM is then, what changes, what is asked for. */
export interface Move {
  to: string
  context: Partial<VmContext>
  effects: Effect[]
}
type Failure = { code: string; message: string }
type Ended = { vm?: ({ state: string } & Record<string, unknown>) | null | undefined; ended_at?: number }

/** A source that does not answer is asked this often to take its VM back, a minute each. */
const RELEASE_TRIES = 30

/** Why a migration may not begin where its VM's state allows it. */
export function migrationRefusal(
  context: VmContext,
  params: Record<string, unknown>,
  state: string,
): Rejection | undefined {
  if (context.leftovers?.length) return rejection('MigrationLeftovers')
  if (params['live'] === true && state !== 'running') {
    return rejection('VmNotRunning', `a VM that is ${state} has nothing to move live: migrate it without \`live\``)
  }
  if (params['target_server_uuid'] !== context.server_uuid) return undefined
  return rejection('InvalidArgument', `the VM is on server ${context.server_uuid} already`)
}

/** The first step of the operation that has just begun; the caller's task is there. */
export function startMigration(context: VmContext): Move {
  const operation = context.operation as Operation
  const { target_server_uuid, token, timeout, force, live } = operation.params
  const migration: Migration = {
    task_id: operation.task_id,
    source: context.server_uuid,
    target: String(target_server_uuid),
    token: String(token),
    ...(operation.req_id === undefined ? {} : { req_id: operation.req_id }),
    stop: {
      ...(typeof timeout === 'number' ? { timeout } : {}),
      ...(typeof force === 'boolean' ? { force } : {}),
    },
    ...(live === true ? { live } : {}),
    step: 'examine',
    step_task: null,
    ordered: 0,
    ran: context.before === 'running',
    held: false,
    may_run_on_target: false,
    forced: false,
    failure: null,
  }
  const move = order(context, migration, 'examine')
  // Who asked is answered with the caller's task.
  return { ...move, effects: move.effects.filter(({ type }) => type !== 'reply') }
}

/** What an event means to the migration under way; null: nothing. */
export function proceed(context: VmContext, event: VmEvent): Move | null {
  const move = moveOf(context, event)
  const { leftovers } = move?.context ?? {}
  if (!move || leftovers === undefined || leftovers === context.leftovers) return move
  return { ...move, effects: [...move.effects, ...leftoversTimer(event.at, leftovers)] }
}

function moveOf(context: VmContext, event: VmEvent): Move | null {
  const { migration } = context
  if (!migration) return null
  if (event.type === 'migrate_abort') return abort(context, migration, event.force === true, event)
  if (event.type === 'migrate_finish') return finish(context, migration)
  if (event.type === 'task_ended') {
    if (event.task_id === migration.task_id) return cancelled(context, migration, event.error)
    if (event.task_id !== migration.step_task) return null
    const found = { ...migration, ...event.found } as Migration
    if (event.status === 'complete') return succeeded(context, found, event, event)
    return failed(context, migration, event.error ?? rejection('TaskFailed'), event, event)
  }
  if (event.type === 'refused') {
    if (event.params['task_id'] === migration.task_id) return cancelled(context, migration, event.rejection)
    if (event.params['task_id'] !== migration.step_task) return null
    return failed(context, migration, event.rejection, event)
  }
  if (event.type === 'server_lost') return lostServer(context, migration, event)
  // A deadline of the state it is in.
  return migration.step_task === null ? ask(context, migration) : overdue(context, migration, event)
}

// What events do.

function succeeded(context: VmContext, migration: Migration, event: Stamped, ended: Ended): Move {
  const { step } = migration
  if (step === 'discard') {
    if (!migration.arrived) return discarded(context, migration, event)
    return goOn(context, { ...migration, step: 'start', failure: null }, event, ended)
  }
  if (step === 'release') return settleFailed(context, migration, event, ended)
  if (step === 'remove') return settleMoved(context, migration, event, true)
  // What runs on the target is not taken back any more.
  if (migration.failure && step !== 'start') return takeBack(context, migration, migration.failure, event)
  if (step === 'send' && areNicsElsewhere(context, migration)) {
    const moved = rejection('MigrationInterrupted', 'NICs of the VM were moved meanwhile: migrate it again')
    return takeBack(context, migration, moved, event)
  }
  const seen = step === 'examine' ? { ...examined(context, migration), ran: ended.vm?.state === 'running' } : migration
  return goOn(context, seen, event, ended)
}

function failed(context: VmContext, migration: Migration, failure: Failure, event: Stamped, ended: Ended = {}): Move {
  const { step, forced, tries = 0 } = migration
  if (step === 'discard') {
    if (migration.may_run_on_target && !forced) return uncertain(context, migration, failure, event)
    return discarded(withLeftover(context, migration, 'discard'), migration, event)
  }
  if (step === 'release') {
    if (failure.code === 'AgentNotConnected' && tries < RELEASE_TRIES && !forced)
      return order(context, { ...migration, tries: tries + 1 }, 'release')
    const both = `${migration.failure?.message}; and it could not be given back on its server: ${failure.message}`
    const told = { ...migration, failure: { code: migration.failure?.code ?? failure.code, message: both } }
    return settleFailed(withLeftover(context, migration, 'release'), told, event, ended)
  }
  if (step === 'remove') return settleMoved(withLeftover(context, migration, 'remove'), migration, event, false)
  if (step === 'finish') return goOn(withLeftover(context, migration, 'finish'), migration, event, ended)
  // A task that no agent has accepted was never begun; the guest need not wait until that agent answers another one.
  if (step === 'start' && tries === 0 && failure.code === 'AgentNotConnected') {
    const never = { ...migration, may_run_on_target: false, failure: migration.failure ?? failure }
    return discarded(withLeftover(context, migration, 'discard'), never, event)
  }
  return takeBack(context, migration, failure, event)
}

function overdue(context: VmContext, migration: Migration, event: Stamped): Move {
  const lost = rejection('TaskTimedOut', `the end of ${STEPS[migration.step].task} was never reported`)
  const move = failed(context, migration, lost, event)
  return { ...move, effects: [...endStep(migration, lost), ...move.effects] }
}

/** The record of a server was lost, and its tasks with it: nobody will tell of the step's end. */
function lostServer(context: VmContext, migration: Migration, event: Stamped & { server_uuid: string }): Move | null {
  const { step, step_task } = migration
  if (step_task === null || migration[STEPS[step].on] !== event.server_uuid) return null
  return failed(context, migration, rejection('ServerDeleted'), event)
}

/** The caller's task was ended by somebody else, or never came to be. */
function cancelled(
  context: VmContext,
  migration: Migration,
  failure: Failure = rejection('TaskCancelled'),
): Move | null {
  if (migration.failure || COMMITTED.includes(migration.step)) return null
  return stay(context, { ...migration, failure }, endStep(migration, rejection('TaskCancelled')))
}

function abort(context: VmContext, migration: Migration, force: boolean, event: Stamped): Move {
  const { step, step_task, task_id } = migration
  const told: Effect = { type: 'reply', value: { id: task_id } }
  if (COMMITTED.includes(step)) {
    return stay(context, migration, [{ type: 'reject', rejection: rejection('MigrationCommitted') }])
  }
  if (step_task === null) {
    if (!force) return answered(ask(context, migration), told)
    return answered(discarded(withLeftover(context, migration, 'discard'), { ...migration, forced: true }, event), told)
  }
  if (!UNDOING.includes(step)) {
    const failure = migration.failure ?? rejection('TaskCancelled')
    return stay(context, { ...migration, forced: force, failure }, [...endStep(migration, failure), told])
  }
  if (!force) return stay(context, migration, [told])
  const given = rejection('TaskCancelled', 'given up by an operator')
  return stay(context, { ...migration, forced: true }, [...endStep(migration, given), told])
}

function finish(context: VmContext, migration: Migration): Move {
  const { step, step_task, task_id } = migration
  if (UNDOING.includes(step) && step_task !== null) {
    const busy = rejection('VmBusy', 'the migration is being taken back; ask again when that has ended')
    return stay(context, migration, [{ type: 'reject', rejection: busy }])
  }
  const told: Effect = { type: 'reply', value: { id: task_id } }
  if (step_task !== null) return stay(context, migration, [told])
  return answered(order(context, { ...migration, failure: null, tries: (migration.tries ?? 0) + 1 }, 'start'), told)
}

// Ways on.

type Stamped = { at: number }

/** The step after this one; between `start` and `finish` the VM changes hands. */
function goOn(context: VmContext, migration: Migration, event: Stamped, ended: Ended): Move {
  const next = nextStep(migration)
  if (next !== 'finish') return order(context, migration, next)
  const { change, effects } = handOver(context, migration, event, ended)
  const move = order({ ...context, ...change }, migration, next)
  return { ...move, context: { ...change, ...move.context }, effects: [...effects, ...move.effects] }
}

function takeBack(context: VmContext, migration: Migration, failure: Failure, event: Stamped): Move {
  const known = { ...migration, failure: migration.failure ?? { code: failure.code, message: failure.message } }
  if (migration.step === 'examine') return settleFailed(context, known, event, {})
  return order(context, known, 'discard')
}

/** The target's copy is gone, or can never have run. */
function discarded(context: VmContext, migration: Migration, event: Stamped): Move {
  if (migration.held) return order(context, migration, 'release')
  return settleFailed(context, migration, event, {})
}

/** Asks the target again to remove its copy. */
function ask(context: VmContext, migration: Migration): Move {
  return { ...order(context, migration, 'discard'), to: 'uncertain' }
}

function uncertain(context: VmContext, migration: Migration, failure: Failure, event: Stamped): Move {
  const { source, target, task_id } = migration
  const message = `it is not known whether the VM runs on server ${target}, which does not answer (${failure.message}); it stays stopped on server ${source} until that is known: see migrate abort and finish`
  const code = 'MigrationUncertain'
  return {
    to: 'uncertain',
    context: {
      ...kept(context),
      migration: { ...migration, step_task: null },
      operation: null,
      before: null,
      failure: { verb: 'migrate', code, message, at: event.at },
    },
    effects: [toNode(source, 'task_fail', { task_id, code, message }), ok],
  }
}

function order(context: VmContext, migration: Migration, step: MigrationStep): Move {
  const { on, task, percent, params } = STEPS[step]
  const ordered = migration.ordered + 1
  const next: Migration = {
    ...migration,
    step,
    ordered,
    step_task: stepTaskId(migration.task_id, ordered),
    held: migration.held || step === 'stop' || step === 'send',
    may_run_on_target: migration.may_run_on_target || step === 'start',
  }
  const mark = task === 'machine_shutdown' ? {} : { migration: migration.task_id }
  const add = {
    task_id: next.step_task,
    task,
    vm_uuid: context.uuid,
    params: { uuid: context.uuid, ...mark, ...params(next) },
  }
  const operation = context.operation ?? {
    verb: 'migrate' as const,
    task_id: migration.task_id,
    at: context.modified_at,
    params: {},
  }
  return {
    to: 'migrating',
    context: { ...kept(context), migration: next, operation, before: context.before ?? 'stopped' },
    effects: [
      { ...toNode(migration[on], 'task_add', add), ...(migration.req_id ? { req_id: migration.req_id } : {}) },
      toNode(migration.source, 'task_note', { task_id: migration.task_id, progress: percent, step }),
      ok,
    ],
  }
}

/** The VM is the target's. What waits for its turn, and the hostname, go with it. */
function handOver(context: VmContext, migration: Migration, event: Stamped, ended: Ended) {
  const { source, target, spec } = migration
  const change: Partial<VmContext> = {
    server_uuid: target,
    modified_at: event.at,
    settled_at: ended.ended_at ?? 0,
    ...(Array.isArray(spec?.['disks']) ? { disks: spec['disks'] as VmContext['disks'] } : {}),
    ...(ended.vm ? { observed: lookedAt(ended.vm, ended.ended_at ?? 0) } : {}),
  }
  const moved = context.waiting.flatMap((next): Effect[] => [
    {
      ...toNode(target, 'task_add', heldTask(context, next)),
      ...(next.req_id === undefined ? {} : { req_id: next.req_id }),
    },
    toNode(source, 'task_drop', { task_id: next.task_id }),
  ])
  const { host_key, uuid } = context
  const told: Effect[] = host_key
    ? [{ type: 'send', kind: 'host', id: host_key, verb: 'vm_moved', params: { vm_uuid: uuid, server_uuid: target } }]
    : []
  return { change, effects: [...moved, ...told] }
}

const heldTask = (context: VmContext, { verb, task_id, params }: Operation) => ({
  task_id,
  task: OPERATIONS[verb].task,
  vm_uuid: context.uuid,
  params: { ...params, uuid: context.uuid },
  held: true,
  taken_over: true,
})

function settleMoved(context: VmContext, migration: Migration, event: Stamped, removed: boolean): Move {
  const { task_id, source, target, downtime_ms } = migration
  const vm = context.observed && { uuid: context.uuid, state: context.observed.state }
  const result = {
    server_uuid: target,
    source_removed: removed,
    ...(downtime_ms === undefined ? {} : { downtime_ms }),
    ...(vm ? { vm } : {}),
  }
  return {
    to: observedOf(context.observed?.state ?? 'stopped'),
    context: { ...kept(context), ...rest, modified_at: event.at, failure: null },
    effects: [toNode(source, 'task_done', { task_id, result }), ok],
  }
}

function settleFailed(context: VmContext, migration: Migration, event: Stamped, ended: Ended): Move {
  const { source, task_id } = migration
  const { code, message } = migration.failure ?? rejection('TaskFailed')
  const { vm, ended_at = 0 } = ended
  return {
    to: vm === null ? 'missing' : observedOf(vm?.state ?? unseen(context, migration)),
    context: {
      ...kept(context),
      ...rest,
      modified_at: event.at,
      settled_at: Math.max(context.settled_at, ended_at),
      ...(vm ? { observed: lookedAt(vm, ended_at) } : {}),
      failure: { verb: 'migrate', code, message, at: event.at },
    },
    effects: [toNode(source, 'task_fail', { task_id, code, message }), ok],
  }
}

/** How it is on the source where nobody has looked: one that was held to be moved was stopped before. */
function unseen({ before }: VmContext, { held, live }: Migration): string {
  return held && !live ? 'stopped' : (before ?? 'stopped')
}

/** What the source found, as the target makes it: NICs as ordered (a nic tag may lead to another bridge there), disks whole. */
function examined(context: VmContext, migration: Migration): Migration {
  const spec = migration.spec ?? {}
  const nics = (Array.isArray(spec['nics']) ? spec['nics'] : []).map((nic: { mac: string }) => {
    const ordered = context.nics.find(({ mac }) => mac.toLowerCase() === nic.mac.toLowerCase())
    return ordered ?? nic
  })
  const disks = (Array.isArray(spec['disks']) ? spec['disks'] : []).map(({ image: _, ...disk }) => disk)
  return { ...migration, spec: { ...spec, nics, disks } }
}

/** A task of the node may move NICs until the VM is held: the target has made them where they were. */
function areNicsElsewhere(context: VmContext, { spec }: Migration): boolean {
  const made = (spec?.['nics'] ?? []) as VmContext['nics']
  return made.some(nic => {
    const now = context.nics.find(({ mac }) => mac.toLowerCase() === nic.mac.toLowerCase())
    return now !== undefined && NIC_PLACE.some(field => now[field] !== nic[field])
  })
}
const NIC_PLACE = ['network', 'nic_tag', 'bridge', 'vlan_id'] as const

// Parts of moves.

const ok: Effect = { type: 'reply', value: {} }
const rest = { operation: null, before: null, migration: null }
/** Leftovers may have been added on the way. */
const kept = ({ leftovers }: VmContext): Partial<VmContext> => (leftovers === undefined ? {} : { leftovers })

const stay = ({ operation }: VmContext, migration: Migration, effects: Effect[]): Move => ({
  to: operation ? 'migrating' : 'uncertain',
  context: { migration },
  effects: [ok, ...effects],
})

/** The last reply is the one that counts. */
const answered = (move: Move, told: Effect): Move => ({ ...move, effects: [...move.effects, told] })

function withLeftover(context: VmContext, migration: Migration, step: 'finish' | 'remove' | 'discard' | 'release') {
  const { on, task, params } = STEPS[step]
  // The source has the VM then, or will have it.
  const given = { ...params({ ...migration, forced: true }), ...(step === 'release' ? { start: false } : {}) }
  const all = { uuid: context.uuid, migration: migration.task_id, ...given }
  return { ...context, leftovers: leave(context, { server_uuid: migration[on], task: task as never, params: all }) }
}

/** Ends the task of the step under way; its end comes back as that of any task. */
function endStep({ step, step_task, source, target }: Migration, { code, message }: Failure): Effect[] {
  if (step_task === null) return []
  return [toNode(STEPS[step].on === 'source' ? source : target, 'task_fail', { task_id: step_task, code, message })]
}

function toNode(id: string, verb: string, params: Record<string, unknown>) {
  return { type: 'send' as const, kind: 'cn' as const, id, verb, params }
}
