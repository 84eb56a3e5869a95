/** The verbs of a VM as a table: which task each becomes, the state while it runs, where it may begin and where it ends. */
import { type ErrorCode, type Rejection, rejection } from '../contract/errors.ts'
import { snapshotNameAt } from '../contract/snapshot.ts'
import { type ComposedTask, TASKS, type TaskName } from '../contract/task.ts'
import type { Operation, VmContext, VmVerb } from '../contract/vm.ts'

export const SETTLED = ['running', 'stopped', 'failed', 'missing', 'incomplete', 'destroyed'] as const
export type Settled = (typeof SETTLED)[number]

export interface VmOperation {
  /** A composed one is ordered step by step: migration.ts. */
  task: TaskName | ComposedTask
  during: string
  /** Settled states it may begin in. */
  from: readonly (Settled | 'absent')[]
  /** Where it ends when the agent's report does not say; `as_before`: where it began. */
  to: Settled | 'as_before'
  /** Goes before the others that wait. */
  urgent: (params: Record<string, unknown>) => boolean
  /** The guard that refuses it elsewhere. */
  guard: GuardName
  /** Adds what its caller left to the VM; `at`: when it was asked for, ms. */
  complete?: (params: Record<string, unknown>, at: number) => Record<string, unknown>
}

const never = () => false
const always = () => true

export const OPERATIONS: Record<VmVerb, VmOperation> = {
  create: {
    task: 'machine_create',
    during: 'provisioning',
    from: ['absent', 'incomplete', 'destroyed'],
    to: 'running',
    urgent: never,
    guard: 'is_new',
  },
  start: {
    task: 'machine_boot',
    during: 'starting',
    from: ['stopped', 'failed'],
    to: 'running',
    urgent: never,
    guard: 'is_stopped',
  },
  stop: {
    task: 'machine_shutdown',
    during: 'stopping',
    from: ['running'],
    to: 'stopped',
    urgent: params => params['force'] === true,
    guard: 'is_running',
  },
  reboot: {
    task: 'machine_reboot',
    during: 'rebooting',
    from: ['running'],
    to: 'running',
    urgent: never,
    guard: 'is_running',
  },
  kill: {
    task: 'machine_kill',
    during: 'killing',
    from: ['running'],
    to: 'stopped',
    urgent: always,
    guard: 'is_running',
  },
  destroy: {
    task: 'machine_destroy',
    during: 'destroying',
    from: ['running', 'stopped', 'failed', 'missing', 'incomplete', 'destroyed'],
    to: 'destroyed',
    urgent: always,
    guard: 'exists',
  },
  update: {
    task: 'machine_update',
    during: 'updating',
    from: ['running', 'stopped', 'failed'],
    to: 'as_before',
    urgent: never,
    guard: 'exists',
  },
  reprovision: {
    task: 'machine_reprovision',
    during: 'reprovisioning',
    from: ['running', 'stopped', 'failed'],
    to: 'as_before',
    urgent: never,
    guard: 'exists',
  },
  create_snapshot: {
    task: 'machine_create_snapshot',
    during: 'snapshotting',
    from: ['running', 'stopped', 'failed'],
    to: 'as_before',
    urgent: never,
    guard: 'exists',
    complete: (params, at) => ({ snapshot_name: snapshotNameAt(at), ...params }),
  },
  rollback_snapshot: {
    task: 'machine_rollback_snapshot',
    during: 'rolling_back',
    from: ['running', 'stopped', 'failed'],
    to: 'as_before',
    urgent: never,
    guard: 'exists',
  },
  delete_snapshot: {
    task: 'machine_delete_snapshot',
    during: 'deleting_snapshot',
    from: ['running', 'stopped', 'failed'],
    to: 'as_before',
    urgent: never,
    guard: 'exists',
  },
  create_image: {
    task: 'machine_create_image',
    during: 'imaging',
    from: ['running', 'stopped', 'failed'],
    to: 'as_before',
    urgent: never,
    guard: 'exists',
  },
  migrate: {
    task: 'machine_migrate',
    during: 'migrating',
    from: ['running', 'stopped', 'failed'],
    to: 'as_before',
    urgent: never,
    guard: 'is_whole',
  },
}

/** Guards by name: what each refuses with. A guard that says no is named to the caller. */
export const GUARDS = {
  is_new: 'VmExists',
  is_whole: 'MigrationNotSupported',
  is_stopped: 'VmNotStopped',
  is_running: 'VmNotRunning',
  exists: 'VmNotFound',
} as const satisfies Record<string, ErrorCode>
export type GuardName = keyof typeof GUARDS

/** How long an agent may work on this verb's task, ms. */
export function limitMsOf(verb: VmVerb): number {
  const { task } = OPERATIONS[verb]
  return task === 'machine_migrate' ? 0 : TASKS[task].limitMs
}

/** May this verb begin in this settled state? `idempotent` lets a verb begin where it would end: the agent then finds nothing to do. */
export function mayBegin(verb: VmVerb, state: string, params: Record<string, unknown>): boolean {
  const { from, to } = OPERATIONS[verb]
  return (from as readonly string[]).includes(state) || (params['idempotent'] === true && state === to)
}

/** Why a verb may not begin here. */
export function refusalOf(verb: VmVerb, state: string): Rejection {
  if (state === 'destroyed' && verb !== 'create') return rejection('VmDestroyed')
  if (state === 'uncertain') return rejection('MigrationUncertain')
  const code = GUARDS[OPERATIONS[verb].guard]
  return rejection(code, `cannot ${verb} a VM that is ${state}`)
}

/** Where the operation in flight ends: what the agent saw decides, then the operation's own end, then where it began. */
export function outcomeOf(
  context: Pick<VmContext, 'operation' | 'before'>,
  end: { status: 'complete' | 'failure'; vm?: { state: string } | null | undefined },
): Settled {
  const verb = context.operation?.verb ?? 'start'
  if (end.status === 'failure' && verb === 'create') return 'incomplete'
  if (end.status === 'complete' && verb === 'destroy') return 'destroyed'
  if (end.vm === null) return 'missing'
  if (end.vm) return observedOf(end.vm.state)
  const { to } = OPERATIONS[verb]
  if (end.status === 'complete' && to !== 'as_before') return to
  return (context.before as Settled | null) ?? 'missing'
}

/** What an agent can see of a VM that is there. */
export const OBSERVED = ['running', 'stopped', 'failed'] as const satisfies Settled[]

/** The settled state for a word of a status event; a word we do not know means that it does not run. */
export function observedOf(state: string): (typeof OBSERVED)[number] {
  return OBSERVED.find(known => known === state) ?? 'stopped'
}

/** Every state in which the end of this operation's task can leave the VM. */
export function endsOf(verb: VmVerb): Settled[] {
  const own = verb === 'create' ? (['incomplete'] as const) : returnsOf(verb)
  return [...new Set<Settled>([...OBSERVED, 'missing', ...own])]
}

/** Where an operation that never began, or whose end was lost, leaves the VM: where it began. */
export function returnsOf(verb: VmVerb): Settled[] {
  const { from, to } = OPERATIONS[verb]
  if (verb === 'create') return ['incomplete']
  return [...new Set([...from, to])].filter(state => state !== 'absent' && state !== 'as_before')
}

/** May this verb ever begin in this state? */
export function canBegin(verb: VmVerb, state: string): boolean {
  return mayBegin(verb, state, { idempotent: true })
}

/** Puts an operation in line: urgent ones before the others, in order among themselves. */
export function enqueue(waiting: Operation[], next: Operation): Operation[] {
  if (!OPERATIONS[next.verb].urgent(next.params)) return [...waiting, next]
  const at = waiting.findIndex(other => !OPERATIONS[other.verb].urgent(other.params))
  return at < 0 ? [...waiting, next] : [...waiting.slice(0, at), next, ...waiting.slice(at)]
}
