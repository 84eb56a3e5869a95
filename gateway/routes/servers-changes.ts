/** Changes of servers by their operators: attributes set, records deleted (cnapi-behaviour §1.5, §2.5). */
import * as v from 'valibot'
import { DEFAULTS_ID } from '../../actors/contract/boot.ts'
import { type FieldError, type Rejection, rejection } from '../../actors/contract/errors.ts'
import { FORGOTTEN_AT_ONCE, type ServerAttributes } from '../../actors/contract/server.ts'
import type { Backend } from '../backend.ts'
import { findServer } from '../gates.ts'
import { platformsOf } from '../platforms.ts'
import { type Answer, type AnyRow, type Incoming, row } from '../row.ts'
import { number, object, trimmed } from '../rules.ts'
import { deleteTicketsOf } from '../tickets.ts'

const updateMaxBytes = 64 * 1024

/** Longest an answer waits until this gateway no longer shows what was deleted. A node may have come back by then. */
const SEEN_GONE_MS = 1_000

const boolean = v.boolean('value was not true or false')
const array = v.array(v.unknown(), 'value was not an array')

const attributes = {
  agents: v.optional(array),
  boot_params: v.optional(object),
  boot_platform: v.optional(trimmed),
  comments: v.optional(trimmed),
  datacenter: v.optional(trimmed),
  default_console: v.optional(trimmed),
  next_reboot: v.optional(trimmed),
  rack_identifier: v.optional(trimmed),
  reservation_ratio: v.optional(
    v.pipe(number, v.minValue(0, 'must be between 0 and 1'), v.maxValue(1, 'must be between 0 and 1')),
  ),
  reserved: v.optional(boolean),
  reservoir: v.optional(boolean),
  serial: v.optional(trimmed),
  setting_up: v.optional(boolean),
  setup: v.optional(boolean),
  traits: v.optional(object),
  transitional_status: v.optional(v.picklist(['', 'rebooting'], "must be 'rebooting' or ''")),
}
const params = {
  ...attributes,
  /** Checked, and nothing more: ratios are the fleet's, since placement counts every server alike. */
  overprovision_ratios: v.optional(object),
  /** Taken and ignored, as ever: NICs are changed at /servers/:server_uuid/nics. */
  nics: v.optional(array),
  /** Changes of one server are made one after the other, so there is no conflict to retry. */
  etag_retries: v.optional(number),
}

export const serverChangeRows: AnyRow[] = [
  row({
    method: 'POST',
    path: '/servers/:server_uuid',
    name: 'ServerUpdate',
    summary:
      'Sets attributes of a server; those not given stay. `overprovision_ratios` are checked but not kept, `nics` and `etag_retries` change nothing.',
    gate: 'GSW',
    strict: true,
    params,
    check: ({ agents }) => badAgents(agents),
    maxBodyBytes: updateMaxBytes,
    success: { status: 204, description: 'Durable' },
    errors: ['InvalidArgument'],
    handle: update,
  }),
  row({
    method: 'DELETE',
    path: '/servers/:server_uuid',
    name: 'ServerDelete',
    summary:
      'Forgets a server with its VMs, its tickets and what it reported; its open tasks fail as ServerDeleted. The node is not touched: one that goes on reporting comes back.',
    // Not GSW: the repeat of a request with an Idempotency-Key finds no server.
    gate: 'GMW',
    strict: true,
    params: {},
    success: { status: 204, description: 'There is no such server any more' },
    errors: ['InvalidArgument', 'ResourceNotFound'],
    handle: remove,
  }),
]

const isDefaults = (what: string, instead: string): Answer => ({
  error: rejection('InvalidArgument', `The boot defaults ${what}: ${instead}`),
})

async function update(
  { server, params: asked, key, reqId }: Incoming<typeof params, 'GSW'>,
  backend: Backend,
): Promise<Answer> {
  if (server.uuid === DEFAULTS_ID) return isDefaults('have no attributes of a server', 'change them at /boot/default')
  const { overprovision_ratios, nics: _nics, etag_retries: _retries, ...change } = asked
  const refusal =
    badRatio(overprovision_ratios) ?? badDate(change.next_reboot) ?? (await badPlatform(change.boot_platform, backend))
  if (refusal) return { error: refusal }
  const outcome = await backend.call('cn', server.uuid, 'update', change as ServerAttributes, { key, reqId })
  return 'error' in outcome ? outcome : { status: 204 }
}

const badAgents = (agents: unknown[] | undefined): FieldError[] =>
  (agents ?? []).flatMap((agent, at) => {
    const { name, version } = (agent ?? {}) as Record<string, unknown>
    const fits = typeof name === 'string' && (version === undefined || typeof version === 'string')
    return fits ? [] : [{ field: `agents.${at}`, code: 'Invalid', message: 'must have a name, and a version if any' }]
  })

const ratioKeys = ['cpu', 'ram', 'disk', 'io', 'net']

function badRatio(ratios: Record<string, unknown> | undefined): Rejection | undefined {
  for (const [name, value] of Object.entries(ratios ?? {})) {
    const what = !ratioKeys.includes(name) ? 'key' : typeof value !== 'number' ? 'type' : value >= 0 ? '' : 'value'
    if (what)
      return rejection('InvalidArgument', what === 'key' ? `Invalid key ${name}` : `Invalid ${what} for ${name}`)
  }
  return undefined
}

/** '' clears it; any other must be a date as JavaScript writes it, with milliseconds and Z. */
function badDate(date: string | undefined): Rejection | undefined {
  const at = Date.parse(date ?? '')
  if (!date || (!Number.isNaN(at) && new Date(at).toISOString() === date)) return undefined
  return rejection('InvalidArgument', 'Invalid date for next_reboot; not an ISO date format')
}

async function badPlatform(platform: string | undefined, backend: Backend): Promise<Rejection | undefined> {
  if (platform === undefined || (await platformsOf(backend)).has(platform)) return undefined
  return rejection('InvalidArgument', `failed to find given platform image, ${platform}`)
}

/** Tickets first, the record last: whoever repeats the request after a crash finds the server and goes on. */
async function remove({ all, key, reqId }: Incoming, backend: Backend): Promise<Answer> {
  const found = await findServer(all['server_uuid'], backend)
  if ('error' in found && !(key && found.error.code === 'ResourceNotFound')) return found
  const uuid = 'error' in found ? String(all['server_uuid']).toLowerCase() : found.uuid
  if (uuid === DEFAULTS_ID) return isDefaults('cannot be deleted', 'PUT /boot/default empties them')
  if (!('error' in found)) {
    const refusal = await deleteTicketsOf(backend, uuid, reqId)
    if (refusal) return { error: refusal }
  }
  await Promise.all([backend.vms.barrier(), backend.hosts.barrier()])
  // Those that are there before those that are gone anyway.
  const vms = backend.vms.of(uuid).sort((a, b) => Number(b.present) - Number(a.present))
  const hosts = [...backend.hosts.all()].filter(host => host.server_uuid === uuid)
  const vm_uuids = vms.slice(0, FORGOTTEN_AT_ONCE).map(vm => vm.uuid)
  const host_keys = hosts.slice(0, FORGOTTEN_AT_ONCE - vm_uuids.length).map(host => host.key)
  const isMore = vms.length + hosts.length > FORGOTTEN_AT_ONCE
  const cascade = { vm_uuids, host_keys, ...(isMore ? { rest: true } : {}) }
  const outcome = await backend.call('cn', uuid, 'delete', cascade, { key, reqId })
  if (!('error' in outcome)) {
    // The deletion is true all the same; requests through this gateway should not meet the server any more.
    await backend.servers.until(uuid, server => server === undefined, SEEN_GONE_MS).catch(() => {})
    return { status: 204 }
  }
  return outcome.error.code === 'ResourceNotFound' && 'error' in found ? found : outcome
}
