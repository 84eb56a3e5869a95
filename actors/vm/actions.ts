/** Which verbs of a VM are legal now and, for the others, the guard that says no. */
import { rejection } from '../contract/errors.ts'
import { VM_VERBS, type VmContext, WAITING_MAX } from '../contract/vm.ts'
import { mayBegin, OPERATIONS, refusalOf } from './operations.ts'

export interface VmAction {
  verb: string
  allowed: boolean
  /** Set for a legal verb that would wait for the operation in flight. */
  waits_for?: string
  guard?: string
  code?: string
  reason?: string
}

export function legalActions(state: string, context: VmContext): VmAction[] {
  const { operation, waiting } = context
  return VM_VERBS.map((verb): VmAction => {
    if (operation && verb === 'create') return refused(verb, 'is_new', rejection('VmExists'))
    if (operation && waiting.length >= WAITING_MAX) return refused(verb, 'has_room', rejection('TooManyWaiting'))
    if (operation) return { verb, allowed: true, waits_for: operation.verb }
    if (mayBegin(verb, state, {})) return { verb, allowed: true }
    return refused(verb, OPERATIONS[verb].guard, refusalOf(verb, state))
  })
}

function refused(verb: string, guard: string, { code, message }: { code: string; message: string }): VmAction {
  return { verb, allowed: false, guard, code, reason: message }
}
