/** Whether a compute node works, with the evidence: what each part was seen to do, by whom and how long ago; looked at anew on request. */
import * as v from 'valibot'
import { rejection } from '../../actors/contract/errors.ts'
import { HEARTBEAT_LIFETIME_MS, type HealthItem } from '../../actors/contract/server.ts'
import { TEXT_TYPE } from '../accept.ts'
import type { Backend, Server } from '../backend.ts'
import { type AnyRow, row } from '../row.ts'
import { booleanWord } from '../rules.ts'

const Evidence = v.object({
  /** Null: nobody can tell. */
  ok: v.nullable(v.boolean()),
  message: v.string(),
  /** When it was seen, and how long ago; null where it was never seen, or where the record says it. */
  at: v.nullable(v.string()),
  age_s: v.nullable(v.number()),
  /** Who saw it. */
  seen_by: v.picklist(['actor', 'gateway', 'agent', 'live']),
})
type Evidence = v.InferOutput<typeof Evidence>
const parts = ['liveness', 'heartbeat', 'agent', 'hypervisor', 'openvswitch', 'storage'] as const
type Part = (typeof parts)[number]

/** Status events come each minute, and are stored at most once a minute while nothing changes. */
const REPORT_LIFETIME_MS = 150_000
/** A live look may wait for a hypervisor that is stuck. */
const LIVE_LIMIT_MS = 15_000

export const serverStatusRows: AnyRow[] = [
  row({
    method: 'GET',
    path: '/servers/:server_uuid/status',
    name: 'ServerStatus',
    summary:
      'Whether a server works, with evidence and its age: heartbeat, agent, hypervisor, Open vSwitch, storage. `live=true` asks the agent to look now; as text/plain a table.',
    gate: 'GS',
    strict: true,
    params: { live: v.optional(booleanWord) },
    success: {
      status: 200,
      description: 'Status',
      body: v.object({
        server_uuid: v.string(),
        hostname: v.string(),
        status: v.string(),
        checked_at: v.string(),
        evidence: v.object(Object.fromEntries(parts.map(part => [part, Evidence])) as Record<Part, typeof Evidence>),
      }),
    },
    errors: [],
    handle: async ({ server, params, accepted, reqId }, backend) => {
      if (server.uuid === 'default') return { error: rejection('ResourceNotFound', 'default is no node') }
      await Promise.all([backend.servers.barrier(), backend.inventory.barrier()])
      const current = backend.servers.get(server.uuid) ?? server
      const evidence = evidenceOf(current, backend, Date.now())
      if (params.live) Object.assign(evidence, await liveEvidence(server.uuid, backend, reqId))
      if (accepted === TEXT_TYPE) return { status: 200, body: table(current, evidence), type: TEXT_TYPE }
      const { uuid, hostname, status } = current
      const body = { server_uuid: uuid, hostname, status, checked_at: new Date().toISOString(), evidence }
      return { status: 200, body }
    },
  }),
]

function evidenceOf({ uuid, status }: Server, backend: Backend, now: number): Record<Part, Evidence> {
  const heard = backend.lastHeartbeat(uuid)
  const report = backend.inventory.status(uuid)
  const seen = (ok: boolean | null, message: string, at: number | string | undefined, seen_by: Evidence['seen_by']) =>
    evidence({ ok, message, at, seen_by }, now)
  const reported = Date.parse(report?.timestamp ?? '')
  const isFresh = now - reported <= REPORT_LIFETIME_MS
  const told = (name: string): Evidence => {
    const item: HealthItem | undefined = report?.health?.[name]
    if (!item) return seen(null, 'the agent does not tell', undefined, 'agent')
    return seen(isFresh ? item.ok : null, item.message, item.at, 'agent')
  }
  return {
    liveness: seen(status === 'running', `the record says ${status}`, undefined, 'actor'),
    heartbeat:
      heard === undefined
        ? seen(null, 'none since this gateway began', undefined, 'gateway')
        : seen(now - heard <= HEARTBEAT_LIFETIME_MS, 'last heartbeat', heard, 'gateway'),
    agent: Number.isNaN(reported)
      ? seen(null, 'it has never reported', undefined, 'agent')
      : seen(isFresh ? true : null, 'last report stored; live=true asks it now', reported, 'agent'),
    hypervisor: told('hypervisor'),
    openvswitch: told('openvswitch'),
    storage: storageOf(report, isFresh, seen),
  }
}

type Seen = (ok: boolean | null, message: string, at: number | string | undefined, by: Evidence['seen_by']) => Evidence

function storageOf(report: ReturnType<Backend['inventory']['status']>, isFresh: boolean, seen: Seen): Evidence {
  const { pool_size_bytes: size, pool_alloc_bytes: used } = report?.diskinfo ?? {}
  if (size === undefined || used === undefined) return seen(null, 'the agent does not tell', undefined, 'agent')
  const gib = (bytes: number) => Math.floor(bytes / 1024 ** 3)
  const free = Math.max(0, size - used)
  return seen(isFresh ? free > 0 : null, `${gib(free)} of ${gib(size)} GiB free`, report?.timestamp, 'agent')
}

/** What the agent sees now; an agent that does not answer is evidence too, and leaves the rest as it was told last. */
async function liveEvidence(uuid: string, backend: Backend, reqId: string): Promise<Partial<Record<Part, Evidence>>> {
  const begun = performance.now()
  const read = { read: 'node_health', params: {} }
  const outcome = await backend.call('cn', uuid, 'read', read, { reqId, deadlineMs: LIVE_LIMIT_MS })
  const now = Date.now()
  const live = (ok: boolean | null, message: string) => evidence({ ok, message, at: now, seen_by: 'live' }, now)
  if ('error' in outcome) return { agent: live(false, outcome.error.message) }
  const tookMs = Math.round(performance.now() - begun)
  const items = Object.entries(outcome.value as Record<string, HealthItem>).filter(([name]) => isPart(name))
  return {
    agent: live(true, `connected; it answered in ${tookMs} ms`),
    ...Object.fromEntries(items.map(([name, { ok, message }]) => [name, live(ok, message)])),
  }
}

const isPart = (name: string) => ['hypervisor', 'openvswitch', 'storage'].includes(name)

interface Sight {
  ok: boolean | null
  message: string
  at: number | string | undefined
  seen_by: Evidence['seen_by']
}

/** Clocks of nodes may be ahead: nothing is younger than now. */
function evidence({ ok, message, at, seen_by }: Sight, now: number): Evidence {
  const ms = at === undefined ? Number.NaN : new Date(at).getTime()
  if (Number.isNaN(ms)) return { ok, message, at: null, age_s: null, seen_by }
  return { ok, message, at: new Date(ms).toISOString(), age_s: Math.max(0, Math.round((now - ms) / 100) / 10), seen_by }
}

function table({ uuid, hostname, status }: Server, evidence: Record<Part, Evidence>): string {
  const header = ['PART', 'OK', 'AGE', 'SEEN BY', 'MESSAGE']
  const rows = parts.map(part => {
    const { ok, age_s, seen_by, message } = evidence[part]
    return [part, ok === null ? '?' : ok ? 'yes' : 'NO', age_s === null ? '-' : `${age_s} s`, seen_by, message]
  })
  const cells = [header, ...rows].map(line => line.map(plain))
  const widths = header.map((_, at) => Math.max(...cells.map(line => line[at]!.length)))
  const lines = cells.map(line =>
    line
      .map((cell, at) => cell.padEnd(widths[at]!))
      .join('  ')
      .trimEnd(),
  )
  return `${plain(hostname)} (${uuid}): ${plain(status)}\n${lines.join('\n')}\n`
}

/** Names come from nodes; a terminal acts on control characters. */
const plain = (text: string) => text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '?')
