/**
 * The end of a server's record (ServerDelete): its job and its open tasks fail, its VMs and hostnames are forgotten, its inventory goes.
 * One decision with all of it in the outbox, so that a crash in the middle leaves nothing behind. The node itself is not touched: one
 * that goes on reporting registers anew, and its VMs are discovered again.
 */
import { rejection } from '../contract/errors.ts'
import { newServer } from '../contract/new-server.ts'
import type { ServerContext } from '../contract/server.ts'
import type { VerbParams } from '../contract/verbs.ts'
import type { Effect, Stamp } from '../effects.ts'
import { abandon } from './job-run.ts'
import { ending } from './task-effects.ts'

export type DeleteEvent = Stamp & (({ type: 'delete' } & VerbParams<'cn', 'delete'>) | { type: 'drop_inventory' })

/** How long the mark of a deletion answers repeats, and a node may register anew without meeting a record that is on its way out. */
export const DELETED_KEPT_MS = 10 * 60_000

/** A record as if the server had never been there, but for what the site sets of every new one. */
export function forgotten(context: ServerContext): Partial<ServerContext> {
  const emptied = Object.fromEntries(Object.keys(context).map(field => [field, undefined]))
  const { uuid, datacenter, boot_params } = context
  const smt = Object.hasOwn(boot_params, 'smt_enabled') ? { smt_enabled: boot_params['smt_enabled'] } : {}
  return { ...emptied, ...newServer(uuid), datacenter, boot_params: smt }
}

/** Ends of tasks come before the word that their VMs are forgotten: what one receiver is sent arrives in order. */
export function deleteServer(context: ServerContext, event: { type: string }): Effect[] {
  const { at, vm_uuids = [], host_keys = [] } = event as Extract<DeleteEvent, { type: 'delete' }>
  const { uuid, open, claims = {} } = context
  const failure = rejection('ServerDeleted')
  const busy = Object.values(open).flatMap(({ vm_uuid }) => (vm_uuid === null ? [] : [vm_uuid]))
  const forget =
    (kind: 'vm' | 'host') =>
    (id: string): Effect => ({
      type: 'send',
      kind,
      id,
      verb: 'forget',
      params: { server_uuid: uuid },
      before_reply: true,
    })
  return [
    ...Object.keys(open).flatMap(taskId => ending(context, taskId, at, { failure })),
    ...abandon(context, at, failure),
    ...Object.keys(claims).map((id): Effect => ({ type: 'cancel_timer', name: `claim_${id}` })),
    ...[...new Set([...busy, ...vm_uuids])].map(forget('vm')),
    ...host_keys.map(forget('host')),
    { type: 'set_timer', name: 'inventory', at, event: { type: 'drop_inventory' } },
    { type: 'reply', value: {} },
  ]
}

/** After the commit: a deletion that was never committed must not have taken what its server has told. */
export const dropInventory = ({ uuid }: ServerContext): Effect[] =>
  ['sysinfo', 'status'].map((part): Effect => ({ type: 'delete', bucket: 'inventory', key: `${uuid}.${part}` }))
