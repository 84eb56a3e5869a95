/**
 * The end of a server's record (ServerDelete): its job and its open tasks fail, its VMs and hostnames are forgotten, its inventory goes.
 * One decision with all of it in the outbox, so that a crash in the middle leaves nothing behind; of more VMs and hostnames than one commit
 * should hold, the owner has the rest forgotten while the mark stays. The node itself is not touched: one that goes on reporting registers
 * anew, and its VMs are discovered again.
 */
import { rejection } from '../contract/errors.ts'
import { newServer } from '../contract/new-server.ts'
import { FORGOTTEN_AT_ONCE, type ServerContext } from '../contract/server.ts'
import type { VerbParams } from '../contract/verbs.ts'
import type { Effect, Stamp } from '../effects.ts'
import { abandon } from './job-run.ts'
import { ending } from './task-effects.ts'

export type DeleteEvent = Stamp & (({ type: 'delete' } & VerbParams<'cn', 'delete'>) | { type: 'drop_inventory' })

/** How long the mark of a deletion answers repeats, and a node may register anew without meeting a record that is on its way out. */
export const DELETED_KEPT_MS = 10 * 60_000

/** A record as if the server had never been there, but for what the site sets of every new one. */
export function forgotten(context: ServerContext, event: { type: string }): Partial<ServerContext> {
  const emptied = Object.fromEntries(Object.keys(context).map(field => [field, undefined]))
  const { uuid, datacenter, boot_params } = context
  const smt = Object.hasOwn(boot_params, 'smt_enabled') ? { smt_enabled: boot_params['smt_enabled'] } : {}
  const { rest } = event as Extract<DeleteEvent, { type: 'delete' }>
  const forgetting = rest || belongings(context, event).length > FORGOTTEN_AT_ONCE
  return { ...emptied, ...newServer(uuid), datacenter, boot_params: smt, ...(forgetting ? { forgetting } : {}) }
}

/** The VMs and hostnames that are known to be its own, those with an open task first. */
function belongings({ open }: ServerContext, event: { type: string }): { kind: 'vm' | 'host'; id: string }[] {
  const { vm_uuids = [], host_keys = [] } = event as Extract<DeleteEvent, { type: 'delete' }>
  const busy = Object.values(open).flatMap(({ vm_uuid }) => (vm_uuid === null ? [] : [vm_uuid]))
  return [
    ...[...new Set([...busy, ...vm_uuids])].map(id => ({ kind: 'vm' as const, id })),
    ...host_keys.map(id => ({ kind: 'host' as const, id })),
  ]
}

/** Ends of tasks come before the word that their VMs are forgotten: what one receiver is sent arrives in order. */
export function deleteServer(context: ServerContext, event: { type: string }): Effect[] {
  const { at } = event as Extract<DeleteEvent, { type: 'delete' }>
  const { uuid, open, claims = {} } = context
  const failure = rejection('ServerDeleted')
  const params = { server_uuid: uuid }
  return [
    ...Object.keys(open).flatMap(taskId => ending(context, taskId, at, { failure })),
    ...abandon(context, at, failure),
    ...Object.keys(claims).map((id): Effect => ({ type: 'cancel_timer', name: `claim_${id}` })),
    ...belongings(context, event)
      .slice(0, FORGOTTEN_AT_ONCE)
      .map(({ kind, id }): Effect => ({ type: 'send', kind, id, verb: 'forget', params, before_reply: true })),
    { type: 'set_timer', name: 'inventory', at, event: { type: 'drop_inventory' } },
    { type: 'reply', value: {} },
  ]
}

/** After the commit: a deletion that was never committed must not have taken what its server has told. */
export const dropInventory = ({ uuid }: ServerContext): Effect[] =>
  ['sysinfo', 'status'].map((part): Effect => ({ type: 'delete', bucket: 'inventory', key: `${uuid}.${part}` }))
