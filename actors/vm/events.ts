/** What a VM's machine hears: verbs, the end of a task, reports of its node; and the operation that a verb asks for. */
import type { VerbParams } from '../contract/verbs.ts'
import type { Operation, VmVerb } from '../contract/vm.ts'
import type { Refused, Stamp } from '../effects.ts'
import type { LostServerEvent } from './lost-server.ts'
import { OPERATIONS } from './operations.ts'

export type Verb = Exclude<VmVerb, 'create'>
type OperationEvent = { [V in Verb]: Stamp & { type: V; task_id: string; params: Record<string, unknown> } }[Verb]
type CreateEvent = Stamp & { type: 'create' } & VerbParams<'vm', 'create'>
type EndedEvent = Stamp & { type: 'task_ended' } & VerbParams<'vm', 'task_ended'>
type ReportedEvent = Stamp & {
  type: 'reported'
  server_uuid: string
  seen_at: number
  vm: { uuid: string; state: string } & Record<string, unknown>
}
type AdoptEvent = Stamp & { type: 'adopt' } & VerbParams<'vm', 'adopt'>
type VanishedEvent = Stamp & { type: 'vanished'; server_uuid: string; seen_at: number }
type MigrationEvent = Stamp &
  ({ type: 'migrate_abort'; force: boolean } | { type: 'migrate_finish' | 'clear_leftovers' })
export type VmEvent =
  | MigrationEvent
  | OperationEvent
  | CreateEvent
  | AdoptEvent
  | EndedEvent
  | ReportedEvent
  | VanishedEvent
  | LostServerEvent
  | Refused

/** The operation of a verb; null for events that ask for none. */
export function operationOf(event: VmEvent): Operation | null {
  if (!('task_id' in event) || !('params' in event)) return null
  const verb = event.type as VmVerb
  const { complete = given => given } = OPERATIONS[verb]
  return { verb, task_id: event.task_id, at: event.at, params: complete(event.params, event.at), ...reqId(event) }
}

/** The request behind an event, for what it leads to. */
export const reqId = (event: Stamp) => (event.req_id === undefined ? {} : { req_id: event.req_id })

/**
 * The operation as its VM's record remembers it: without manifest, script, and of an update all but numbers and the like, which its task
 * has already and which, times all that may wait, would make the record larger than a message may be.
 */
export function remembered(operation: Operation): Operation {
  const { changes, update: _, manifest: __, prepare_image_script: ___, ...params } = operation.params
  if (typeof changes !== 'object' || changes === null) return { ...operation, params }
  const kept = Object.entries(changes).filter(([, value]) => typeof value !== 'object' || value === null)
  return { ...operation, params: { ...params, changes: Object.fromEntries(kept) } }
}
