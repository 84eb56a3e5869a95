/**
 * A VM whose server's record is gone. Deleted on purpose, the VM is forgotten with it; lost (somebody removed it by hand), nobody will
 * tell the ends of the tasks it held, so the VM ends them itself instead of waiting for its longest limit.
 */
import { rejection } from '../contract/errors.ts'
import type { VerbParams } from '../contract/verbs.ts'
import type { VmContext } from '../contract/vm.ts'
import type { Effect, Stamp } from '../effects.ts'

export type LostServerEvent = { [V in 'forget' | 'server_lost']: Stamp & { type: V } & VerbParams<'vm', V> }[
  | 'forget'
  | 'server_lost']

export const serverLost = rejection('ServerDeleted', 'the record of the server was lost while the task was open')

/** Is the event about the server of this VM; and, if its record was lost, about one that held the operation in flight. */
export function isOfServer(context: VmContext, event: { type: string }): boolean {
  const lost = event as LostServerEvent
  if (lost.server_uuid !== context.server_uuid) return false
  return lost.type === 'forget' || (context.operation !== null && context.operation.at <= lost.lost_at)
}

/** Ends the tasks that this VM waits for: those that its server has taken on, and those that it has yet to hear of. */
export function failOrphans({ operation, waiting, server_uuid }: VmContext): Effect[] {
  const { code, message } = serverLost
  return [...(operation ? [operation] : []), ...waiting].map(({ task_id }) => ({
    type: 'send',
    kind: 'cn',
    id: server_uuid,
    verb: 'task_fail',
    params: { task_id, code, message },
  }))
}
