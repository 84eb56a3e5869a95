/** What each event makes of a VM's record: changes of the machine's context, without its effects. */
import { rejection } from '../contract/errors.ts'
import type { VmContext } from '../contract/vm.ts'
import { adopted } from './adopted.ts'
import { operationOf, remembered, reqId, type VmEvent } from './events.ts'
import { serverLost } from './lost-server.ts'
import { lookedAt, numberOr, stringOr } from './observed.ts'
import { enqueue } from './operations.ts'

interface Change {
  context: VmContext
  event: VmEvent
}

/** A new VM as its creator ordered it. */
export function adopt({ context, event }: Change): Partial<VmContext> {
  if (event.type !== 'create') return {}
  const { spec } = event
  return {
    ...unsaid,
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
    autoboot: spec.autoboot ?? true,
    ...(spec.tags === undefined ? {} : { tags: spec.tags }),
    ...dockerId(spec),
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
}

/** Of a VM that had the same id before these are not the new one's. */
const unsaid: Partial<VmContext> = Object.fromEntries(['tags', 'docker_id'].map(field => [field, undefined]))

/** A container's id is how affinity rules name it. */
function dockerId({ internal_metadata }: { internal_metadata?: Record<string, unknown> | undefined }) {
  const id = internal_metadata?.['docker:id']
  return typeof id === 'string' ? { docker_id: id } : {}
}

/** The verb of the event is in flight. */
export const begin =
  (state: string) =>
  ({ event }: Change): Partial<VmContext> => {
    const operation = operationOf(event)
    return { operation: operation && remembered(operation), before: state, modified_at: event.at }
  }

/** The first that waits is in flight. */
export const beginNext =
  (state: string) =>
  ({ context }: Change): Partial<VmContext> => ({
    operation: context.waiting[0] ?? null,
    waiting: context.waiting.slice(1),
    before: state,
  })

/** The verb of the event waits for its turn. */
export function waitTurn({ context, event }: Change): Partial<VmContext> {
  const next = operationOf(event)
  return next ? { waiting: enqueue(context.waiting, remembered(next)) } : {}
}

/** The operation in flight has ended, however. */
export function settle({ context, event }: Change): Partial<VmContext> {
  const verb = context.operation?.verb ?? 'create'
  const failure =
    event.type === 'task_ended'
      ? event.status === 'failure' && (event.error ?? rejection('TaskFailed'))
      : event.type === 'refused'
        ? event.rejection
        : event.type === 'server_lost'
          ? serverLost
          : rejection('TaskTimedOut', 'the end of the task was never reported')
  return {
    ...(event.type === 'task_ended' && event.status === 'complete' ? adopted(context, event.wanted) : {}),
    operation: null,
    before: null,
    modified_at: event.at,
    settled_at: Math.max(context.settled_at, event.type === 'task_ended' ? event.ended_at : 0),
    // The agent's last look, so that listings need not wait for the next status event.
    ...(event.type === 'task_ended' && event.vm ? { observed: lookedAt(event.vm, event.ended_at) } : {}),
    failure: failure ? { verb, code: failure.code, message: failure.message, at: event.at } : null,
  }
}

/** What a report says of a VM: its state, and for one that nobody ordered here all that is known of it. */
export function note({ context, event }: Change): Partial<VmContext> {
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
}

export const dropNext = ({ context }: Change): Partial<VmContext> => ({ waiting: context.waiting.slice(1) })

/** A verb that was to wait but whose task was refused, or ended by an operator. */
export function dropEnded({ context, event }: Change): Partial<VmContext> {
  const ended = event.type === 'refused' ? event.params['task_id'] : event.type === 'task_ended' && event.task_id
  return { waiting: context.waiting.filter(({ task_id }) => task_id !== ended) }
}

/** What its node says it is from now on. */
export function takeWanted({ context, event }: Change): Partial<VmContext> {
  if (event.type !== 'adopt') return {}
  const ordered = event.ordered ? { discovered: false } : {}
  return { ...adopted(context, event.wanted), ...ordered, modified_at: event.at }
}
