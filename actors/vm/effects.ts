/** What a VM's machine asks for, as data: tasks of its compute node, answers to callers, word to its host. */
import type { Operation, VmContext } from '../contract/vm.ts'
import type { Effect } from '../effects.ts'
import { operationOf, type VmEvent } from './events.ts'
import { migrationRefusal } from './migration.ts'
import { OPERATIONS, refusalOf, type Settled } from './operations.ts'

export function createTask(context: VmContext, event: VmEvent): Effect[] {
  if (event.type !== 'create') return []
  return [
    addTask(context, context.operation as Operation, { params: { spec: event.spec } }),
    { type: 'reply', value: { id: event.task_id, vm_uuid: context.uuid } },
  ]
}

export function askForTask(context: VmContext, event: VmEvent): Effect[] {
  const operation = operationOf(event) as Operation
  return [addTask(context, operation, {}), { type: 'reply', value: { id: operation.task_id } }]
}

export function askForHeldTask(context: VmContext, event: VmEvent): Effect[] {
  const operation = operationOf(event) as Operation
  return [addTask(context, operation, { held: true }), { type: 'reply', value: { id: operation.task_id } }]
}

export function refusedTask(context: VmContext, event: VmEvent, state: string): Effect[] {
  const operation = operationOf(event) as Operation
  const { code, message } = whyNot(context, operation, state)
  return [
    addTask(context, operation, { failed: { code, message } }),
    { type: 'reply', value: { id: operation.task_id } },
  ]
}

export function releaseTask(context: VmContext): Effect[] {
  const task_id = (context.operation as Operation).task_id
  return [{ type: 'send', kind: 'cn', id: context.server_uuid, verb: 'task_release', params: { task_id } }]
}

export function failNext(context: VmContext, state: string): Effect[] {
  const next = context.waiting[0] as Operation
  const { code, message } = whyNot(context, next, state)
  const params = { task_id: next.task_id, code, message }
  return [{ type: 'send', kind: 'cn', id: context.server_uuid, verb: 'task_fail', params }]
}

export function tellHost(context: VmContext, state: Settled): Effect[] {
  if (!context.host_key || (state !== 'destroyed' && state !== 'incomplete')) return []
  return [{ type: 'send', kind: 'host', id: context.host_key, verb: 'vm_gone', params: { vm_uuid: context.uuid } }]
}

export function done(): Effect[] {
  return [{ type: 'reply', value: {} }]
}

function whyNot(context: VmContext, { verb, params }: Operation, state: string) {
  return (verb === 'migrate' && migrationRefusal(context, params, state)) || refusalOf(verb, state)
}

function addTask(context: VmContext, operation: Operation, more: Record<string, unknown>): Effect {
  return {
    type: 'send',
    kind: 'cn',
    id: context.server_uuid,
    verb: 'task_add',
    before_reply: true,
    req_id: operation.req_id,
    params: {
      task_id: operation.task_id,
      task: OPERATIONS[operation.verb].task,
      vm_uuid: context.uuid,
      params: { ...operation.params, uuid: context.uuid },
      ...more,
    },
  }
}
