/** What a VM's machine hears: verbs, the end of a task, reports of its node; and the operation that a verb asks for. */
import type { VerbParams } from '../contract/verbs.ts'
import type { Operation, VmVerb } from '../contract/vm.ts'
import type { Refused, Stamp } from '../effects.ts'

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
type VanishedEvent = Stamp & { type: 'vanished'; server_uuid: string; seen_at: number }
export type VmEvent = OperationEvent | CreateEvent | EndedEvent | ReportedEvent | VanishedEvent | Refused

/** The operation of a verb; null for events that ask for none. */
export function operationOf(event: VmEvent): Operation | null {
  if (!('task_id' in event) || !('params' in event)) return null
  return { verb: event.type as VmVerb, task_id: event.task_id, at: event.at, params: event.params, ...reqId(event) }
}

/** The request behind an event, for what it leads to. */
export const reqId = (event: Stamp) => (event.req_id === undefined ? {} : { req_id: event.req_id })
