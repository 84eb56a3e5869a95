/**
 * What a migration could not remove because a node did not answer: its tasks are ordered again, at most a minute apart, until they end well. They
 * are marked with their migration, so they can do no harm to what came after; no new migration begins before they are gone.
 */
import type { Leftover, Migration } from '../contract/migration.ts'
import type { VmContext } from '../contract/vm.ts'
import type { Effect } from '../effects.ts'
import type { VmEvent } from './events.ts'

/** Pauses between two tries double from the first to the second. */
const PAUSE_MS = { first: 1_000, longest: 60_000 } as const

/** Each kind numbers its tasks apart from the migration's own steps, and from the others. */
const NUMBERS: Record<Leftover['task'], number> = {
  machine_migrate_finish: 1,
  machine_migrate_remove: 2,
  machine_migrate_discard: 3,
  machine_migrate_release: 4,
}

/** The id of a migration's nth task: the same whenever it is worked out. A UUIDv8 (RFC 9562) whose last 32 bits are the number. */
export function stepTaskId(taskId: string, n: number): string {
  const own = taskId.toLowerCase()
  return `${own.slice(0, 14)}8${own.slice(15, 28)}${n.toString(16).padStart(8, '0')}`
}

/** One more, to be ordered when the timer says so. */
export function leave(
  { leftovers = [], migration }: VmContext,
  one: Pick<Leftover, 'server_uuid' | 'task' | 'params'>,
): Leftover[] {
  const { task_id } = migration as Migration
  return [...leftovers, { ...one, task_id: null, migration: task_id, ordered: NUMBERS[one.task] << 24 }]
}

/** For those that are to be ordered again. */
export function leftoversTimer(at: number, leftovers: Leftover[]): Effect[] {
  const pauses = leftovers
    .filter(({ task_id }) => task_id === null)
    .map(({ ordered }) => Math.min(PAUSE_MS.longest, PAUSE_MS.first * 2 ** Math.min(10, ordered & 0xffffff)))
  if (pauses.length === 0) return [{ type: 'cancel_timer', name: 'leftovers' }]
  return [{ type: 'set_timer', name: 'leftovers', at: at + Math.min(...pauses), event: { type: 'clear_leftovers' } }]
}

/** Orders those of which no task is under way. */
export function clearLeftovers(context: VmContext) {
  const effects: Effect[] = []
  const leftovers = (context.leftovers ?? []).map(one => {
    if (one.task_id !== null) return one
    const ordered = one.ordered + 1
    const task_id = stepTaskId(one.migration, ordered)
    const params = { task_id, task: one.task, vm_uuid: context.uuid, params: one.params }
    effects.push({ type: 'send', kind: 'cn', id: one.server_uuid, verb: 'task_add', params })
    return { ...one, ordered, task_id }
  })
  return { context: { leftovers }, effects }
}

/** The end of one's task, or its refusal; undefined where the event is about something else. */
export function leftoverEnded(context: VmContext, event: VmEvent) {
  const id =
    event.type === 'task_ended' ? event.task_id : event.type === 'refused' ? event.params['task_id'] : undefined
  const one = context.leftovers?.find(({ task_id }) => task_id !== null && task_id === id)
  if (!one) return undefined
  // A server whose record is gone has nothing that anybody could remove.
  const isGone = event.type === 'refused' && GONE.has(event.rejection.code)
  const isDone = isGone || (event.type === 'task_ended' && event.status === 'complete')
  const others = (context.leftovers ?? []).filter(other => other !== one)
  const leftovers = isDone ? others : [...others, { ...one, task_id: null }]
  const effects: Effect[] = [...leftoversTimer(event.at, leftovers), { type: 'reply', value: {} }]
  return { context: { leftovers }, effects }
}

const GONE: ReadonlySet<string> = new Set(['ServerDeleted', 'ResourceNotFound'])
