/** Servers: the records of compute nodes, what their agents report over HTTP, and the task that does nothing. */
import * as v from 'valibot'
import { rejection } from '../../actors/contract/errors.ts'
import { StatusEvent, Sysinfo } from '../../actors/contract/server.ts'
import type { Backend, Server } from '../backend.ts'
import { isUuid, serverNow } from '../gates.ts'
import { type AnyRow, row } from '../row.ts'
import { booleanWord, integer, listMatching, numberFromZero, objectOf, text, trimmed } from '../rules.ts'
import { listedText, serverText } from '../server-text.ts'
import { shownServer } from '../shown-server.ts'
import { started } from '../tasks.ts'
import { unreserved } from '../unreserved.ts'

const words = /^[a-zA-Z_]+(,[a-zA-Z_]+)*$/
const outOfRange = 'limit must be in the range 1-1000 (inclusive)'
const shown = v.looseObject({ uuid: v.string(), hostname: v.string(), status: v.string(), setup: v.boolean() })
const invalidId = { error: rejection('InvalidArgument', 'Invalid server_uuid') }
const limitDefault = 1000
/** Reports over HTTP are passed on in one message. */
const reportMaxBytes = 768 * 1024

export const serverRows: AnyRow[] = [
  row({
    method: 'GET',
    path: '/servers',
    name: 'ServerList',
    summary: 'Servers by uuid. `extras` adds groups of properties: agents, vms, memory, disk, sysinfo, capacity, all.',
    gate: 'GM',
    strict: true,
    params: {
      uuids: v.optional(listMatching('uuids', /^[-a-zA-Z0-9]+(,[-a-zA-Z0-9]+)*$/)),
      setup: v.optional(booleanWord),
      reserved: v.optional(booleanWord),
      reservoir: v.optional(booleanWord),
      headnode: v.optional(booleanWord),
      hostname: v.optional(trimmed),
      extras: v.optional(listMatching('extras', words)),
      fields: v.optional(listMatching('fields', words)),
      limit: v.optional(v.pipe(integer('limit'), v.minValue(1, outOfRange), v.maxValue(1000, outOfRange))),
      offset: v.optional(integer('offset')),
    },
    success: { status: 200, description: 'Servers', body: v.array(shown) },
    errors: [],
    handle: async ({ params, accepted }, backend) => {
      const extras = new Set(params.extras)
      await barriers(extras, backend)
      const { setup, reserved, reservoir, headnode, hostname, limit = limitDefault, offset = 0 } = params
      const wanted = Object.entries({ setup, reserved, reservoir, headnode, hostname }).filter(
        ([, value]) => value !== undefined,
      ) as [keyof Server, unknown][]
      const ids = params.uuids && new Set(params.uuids.map(id => id.toLowerCase()))
      const from = Math.max(0, offset)
      const page = [...backend.servers.all()]
        .filter(server => !ids || ids.has(server.uuid))
        .filter(server => wanted.every(([name, value]) => server[name] === value))
        .sort((a, b) => (a.uuid < b.uuid ? -1 : 1))
        .slice(from, from + limit)
      if (extras.size === 0 && !params.fields) {
        const texts = page.map(server => listedText(server, backend))
        return { status: 200, body: `[${texts.join(',')}]`, type: accepted }
      }
      const left =
        extras.has('capacity') || extras.has('all') ? await backend.left(page.map(({ uuid }) => uuid)) : undefined
      const show = (server: Server) => ({
        ...shownServer(server, extras, backend),
        ...(left ? unreserved(server.uuid, left) : {}),
      })
      return { status: 200, body: page.map(server => pick(show(server), params.fields)) }
    },
  }),
  row({
    method: 'GET',
    path: '/servers/:server_uuid',
    name: 'ServerGet',
    summary: 'A server with everything known of it. The id `default` holds the boot defaults of servers to come.',
    gate: 'GS',
    strict: true,
    params: {},
    success: { status: 200, description: 'The server', body: shown },
    errors: [],
    handle: async ({ server, accepted }, backend) => {
      const left = await backend.whole(server.uuid)
      const now = await serverNow(server, backend)
      if ('error' in now) return now
      const body = serverText(now, left, backend)
      return { status: 200, body, type: accepted }
    },
  }),
  row({
    method: 'POST',
    path: '/servers/:server_uuid/sysinfo',
    name: 'ServerSysinfoRegister',
    summary: 'The inventory of a compute node; the first one creates the server.',
    gate: 'GMW',
    strict: true,
    params: { sysinfo: objectOf(Sysinfo.entries) },
    success: { status: 200, description: 'Registered; no body' },
    errors: ['InvalidArgument'],
    maxBodyBytes: reportMaxBytes,
    handle: async ({ all: merged, params: { sysinfo }, key, reqId }, backend) => {
      if (!isUuid(merged['server_uuid'])) return invalidId
      const uuid = merged['server_uuid'].toLowerCase()
      if (sysinfo.UUID !== undefined && sysinfo.UUID.toLowerCase() !== uuid) {
        return { error: rejection('InvalidArgument', `sysinfo is of server ${sysinfo.UUID}`) }
      }
      const defaults = await backend.bootDefaults()
      const params = { sysinfo, ...(defaults ? { defaults } : {}) }
      const outcome = await backend.call('cn', uuid, 'register', params, { key, reqId })
      if (!('error' in outcome)) return { status: 200 }
      // A deleted one that is not quite gone yet: node agents take a 404 here for a reason to stop.
      if (outcome.error.code === 'ResourceNotFound') return { error: rejection('ServiceUnavailableError') }
      return outcome
    },
  }),
  row({
    method: 'POST',
    path: '/servers/:server_uuid/events/heartbeat',
    name: 'ServerEventHeartbeat',
    summary: 'A beat of liveness. Not looked up: the beat of an unknown server is lost.',
    gate: 'G0',
    strict: true,
    params: {},
    success: { status: 204, description: 'Heard' },
    errors: ['InvalidArgument'],
    handle: ({ all: merged }, backend) => {
      if (!isUuid(merged['server_uuid'])) return invalidId
      backend.beat(merged['server_uuid'].toLowerCase())
      return { status: 204 }
    },
  }),
  row({
    method: 'POST',
    path: '/servers/:server_uuid/events/status',
    name: 'ServerEventStatusUpdate',
    summary: 'The periodic report of a compute node: its VMs, memory and disks. What is left out keeps its last value.',
    gate: 'GL',
    strict: false,
    params: StatusEvent.entries,
    success: { status: 204, description: 'Durable' },
    errors: [],
    maxBodyBytes: reportMaxBytes,
    handle: async ({ all: merged, server, params, key, reqId }, backend) => {
      const { server_uuid: _, ...posted } = merged
      const outcome = await backend.call(
        'cn',
        server.uuid,
        'status',
        { status: { ...posted, ...params } },
        { key, reqId },
      )
      return 'error' in outcome ? outcome : { status: 204 }
    },
  }),
  row({
    method: 'POST',
    path: '/servers/:server_uuid/nop',
    name: 'DoNop',
    summary: 'A task that does nothing for `sleep` seconds, then ends well, or with `error` as its message.',
    gate: 'GSR',
    strict: false,
    params: {
      sleep: v.optional(v.pipe(numberFromZero, v.maxValue(3600, 'must be at most 3600'))),
      error: v.optional(text),
    },
    success: { status: 200, description: 'The task', body: v.object({ id: v.string() }) },
    errors: [],
    handle: async ({ server, params, ids, key, reqId }, backend) => {
      const task = { task_id: ids.task(), task: 'nop' as const, params: { ...params }, req_id: reqId }
      return started(await backend.call('cn', server.uuid, 'task_add', task, { key, reqId }))
    },
  }),
]

/** Views that the groups asked for are read from, brought up to now. */
async function barriers(extras: ReadonlySet<string>, backend: Backend): Promise<void> {
  const withVms = extras.has('all') || (extras.has('capacity') && extras.has('vms'))
  await Promise.all([
    backend.servers.barrier(),
    ...(extras.size > 0 ? [backend.inventory.barrier()] : []),
    ...(withVms ? [backend.vms.barrier()] : []),
  ])
}

/** Only these properties, in the order asked for; ones that are not there are left out. */
function pick(record: Record<string, unknown>, fields: string[] | undefined): Record<string, unknown> {
  if (!fields) return record
  return Object.fromEntries(fields.filter(name => Object.hasOwn(record, name)).map(name => [name, record[name]]))
}
