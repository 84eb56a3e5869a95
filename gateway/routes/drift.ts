/**
 * Drift (ours): what a server's node has against what its VMs' records want, part by part, and what an operator makes of it: the record
 * takes what was found, or the VM becomes what is wanted. VMs that nobody ordered, and VMs that are gone, are listed and stay as they are.
 */
import * as v from 'valibot'
import { rejection } from '../../actors/contract/errors.ts'
import { TEXT_TYPE } from '../accept.ts'
import type { Backend, CallOptions, Outcome } from '../backend.ts'
import { type WantedVm, wantedParts } from '../drift.ts'
import { adoption, enforcement, type Settlement } from '../drift-settle.ts'
import { type Survey, survey } from '../drift-survey.ts'
import type { IdSource } from '../ids.ts'
import { type Answer, type AnyRow, row } from '../row.ts'
import { booleanWord, text, uuid } from '../rules.ts'
import { taskHeaders } from '../tasks.ts'

const operation = v.optional(v.object({ verb: v.string(), task_id: v.string() }))
/** Since when it is known to be so, by the agent's clock; null where nobody knows. */
const age = { since: v.nullable(v.string()), age_s: v.nullable(v.number()) }
const about = { vm_uuid: v.string(), name: v.string() }
const Drift = v.object({
  server_uuid: v.string(),
  /** `report`: the agent did not answer, for the reason in `not_live`; this is what its last report tells. */
  source: v.picklist(['live', 'report']),
  seen_at: v.nullable(v.string()),
  age_s: v.nullable(v.number()),
  not_live: v.optional(v.object({ code: v.string(), message: v.string() })),
  drift: v.array(v.object({ ...about, field: v.string(), wanted: v.unknown(), found: v.unknown(), ...age, operation })),
  /** The definition is as wanted; the running guest has it when it boots next. */
  pending: v.array(v.object({ ...about, field: v.string() })),
  /** On the node, and nobody ordered it there. */
  zombies: v.array(v.object({ ...about, state: v.string(), ...age, operation })),
  /** Ordered, and not on the node; `since`: when it was last seen there. */
  missing: v.array(v.object({ ...about, ...age, operation })),
  /** Those that the agent could not look at, or whose record could not be read. */
  unread: v.array(v.object({ vm_uuid: v.string(), code: v.string(), message: v.string() })),
})
type Drift = v.InferOutput<typeof Drift>

export const driftRows: AnyRow[] = [
  row({
    method: 'GET',
    path: '/servers/:server_uuid/drift',
    name: 'ServerDrift',
    summary:
      'Where VMs are not as their records want them, part by part with its age and the operation that explains it; VMs that nobody ordered, and missing ones. As text/plain a table.',
    gate: 'GS',
    strict: true,
    params: {},
    success: { status: 200, description: 'Differences', body: Drift },
    errors: [],
    handle: async ({ server, accepted, reqId }, backend) => {
      if (server.uuid === 'default') return { error: rejection('ResourceNotFound', 'default is no node') }
      const body = shown(server.uuid, await survey(backend, server.uuid, reqId), Date.now())
      return accepted === TEXT_TYPE ? { status: 200, body: table(body), type: TEXT_TYPE } : { status: 200, body }
    },
  }),
  row({
    method: 'POST',
    path: '/servers/:server_uuid/drift',
    name: 'ServerDriftSettle',
    summary:
      'Settles one difference: `adopt` makes what was found what is wanted (without `field`: a VM that nobody ordered becomes an ordered one), `enforce` makes the VM what is wanted, `forget` ends the record of a missing VM.',
    gate: 'GS',
    strict: true,
    params: {
      vm_uuid: uuid,
      field: v.optional(text),
      action: v.picklist(['adopt', 'enforce', 'forget'], "value was not 'adopt', 'enforce' or 'forget'"),
      dry_run: v.optional(booleanWord),
    },
    success: {
      status: 200,
      description: 'What was done, or with `dry_run` would be; `id` is the task of what takes time',
      body: v.object({
        vm_uuid: v.string(),
        field: v.nullable(v.string()),
        action: v.string(),
        dry_run: v.boolean(),
        /** The verb of the VM that does it, and what it is given. */
        verb: v.string(),
        params: v.record(v.string(), v.unknown()),
        id: v.optional(v.string()),
      }),
    },
    errors: [
      'VmBusy',
      'InvalidArgument',
      'ResourceNotFound',
      'TooManyWaiting',
      'AgentNotConnected',
      'HypervisorUnavailable',
      'HypervisorError',
    ],
    handle: async ({ server, params, ids, key, reqId }, backend) => {
      const seen = await survey(backend, server.uuid, reqId)
      // Nothing is decided on hearsay.
      if (seen.notLive) return { error: seen.notLive }
      const unread = seen.unread.find(one => one.vm_uuid === params.vm_uuid)
      if (unread) return { error: notCompared(unread) }
      const order = { server_uuid: server.uuid, ...params }
      const step = params.field === undefined ? wholeVm(order, seen) : ofField(order, params.field, seen)
      if ('error' in step) return step
      const { vm_uuid, action, field = null, dry_run = false } = params
      const done = { vm_uuid, field, action, dry_run, verb: step.verb, params: step.params }
      if (dry_run) return { status: 200, body: done }
      return send(backend, step, vm_uuid, done, ids, { key, reqId })
    },
  }),
]

interface Order {
  server_uuid: string
  vm_uuid: string
  action: 'adopt' | 'enforce' | 'forget'
}

/** A command to the VM's actor; `isTask`: it becomes a task. */
type Step = { verb: string; params: Record<string, unknown>; isTask: boolean } | { error: ReturnType<typeof rejection> }

const refused = (message: string) => ({ error: rejection('InvalidArgument', message) })
const busy = (verb: string, task_id: string) => ({
  error: rejection('VmBusy', `${verb} is in flight and may explain it: wait for task ${task_id}`),
})

const notCompared = ({ vm_uuid, code, message }: Survey['unread'][0]) =>
  rejection('VmBusy', `VM ${vm_uuid} could not be compared with its record (${code}: ${message}): ask again`)

function ofField({ server_uuid, vm_uuid, action }: Order, field: string, seen: Survey): Step {
  const [found, wanted] = [seen.found.get(vm_uuid), seen.wanted.get(vm_uuid)]
  const difference = seen.drift.find(one => one.vm_uuid === vm_uuid && one.field === field)
  const isPending = seen.pending.some(one => one.vm_uuid === vm_uuid && one.field === field)
  if (!found || !wanted || (!difference && !isPending))
    return { error: rejection('ResourceNotFound', `VM ${vm_uuid} has no drift in ${field}`) }
  if (difference?.operation) return busy(difference.operation.verb, difference.operation.task_id)
  if (action === 'forget') return refused('only a VM that is missing is forgotten')
  if (action === 'adopt' && !difference) return refused(`${field} is as wanted, and comes with the next boot`)
  const settlement: Settlement =
    action === 'adopt' && difference
      ? adoption(difference, found)
      : enforcement(difference ?? asWanted(field, wanted), wanted)
  if ('error' in settlement) return settlement
  if ('verb' in settlement) return { ...settlement, isTask: true }
  if ('adopt' in settlement)
    return { verb: 'adopt', params: { server_uuid, wanted: settlement.adopt, idle: true }, isTask: false }
  const { uuid, state } = found
  const at = seen.seenAt ?? 0
  return { verb: 'reported', params: { server_uuid, seen_at: at, vm: { uuid, state } }, isTask: false }
}

/** A part whose definition is as wanted. */
function asWanted(field: string, vm: WantedVm) {
  const wanted = wantedParts(vm)[field] ?? null
  return { field, wanted, found: wanted }
}

function wholeVm({ server_uuid, vm_uuid, action }: Order, seen: Survey): Step {
  const zombie = seen.zombies.find(one => one.vm_uuid === vm_uuid)
  const missing = seen.missing.find(one => one.vm_uuid === vm_uuid)
  const operation = zombie?.operation ?? missing?.operation
  if (operation) return busy(operation.verb, operation.task_id)
  if (zombie) {
    if (action !== 'adopt') return refused('a VM that nobody ordered is adopted, or destroyed as any other VM')
    const record = seen.wanted.get(vm_uuid)
    const definition = seen.found.get(vm_uuid)?.definition
    if (!definition || record?.context.server_uuid !== server_uuid || !record.context.discovered)
      return refused('its server has not reported it yet, or it belongs to another one: look again in a minute')
    const image_uuid = definition.disks.find(({ image }) => image !== undefined)?.image ?? null
    const wanted = { ...definition, image_uuid }
    return { verb: 'adopt', params: { server_uuid, wanted, ordered: true, idle: true }, isTask: false }
  }
  if (missing) {
    if (action !== 'forget') return refused('a VM that is missing is forgotten, or comes back by itself')
    const context = seen.wanted.get(vm_uuid)?.context
    if (context?.operation) return busy(context.operation.verb, context.operation.task_id)
    return { verb: 'forget', params: { server_uuid }, isTask: false }
  }
  return { error: rejection('ResourceNotFound', `VM ${vm_uuid} is neither missing nor without an order: name a field`) }
}

async function send(
  backend: Backend,
  { verb, params, isTask }: Exclude<Step, { error: unknown }>,
  vmUuid: string,
  done: Record<string, unknown>,
  ids: IdSource,
  options: CallOptions,
): Promise<Answer> {
  const given = isTask ? { task_id: ids.task(), params } : params
  const outcome = (await backend.call('vm', vmUuid, verb as 'update', given as never, options)) as Outcome<unknown>
  if ('error' in outcome) return outcome
  if (!isTask) return { status: 200, body: done }
  const { id } = outcome.value as { id: string }
  return { status: 200, body: { ...done, id }, headers: taskHeaders(id) }
}

function shown(server_uuid: string, seen: Survey, now: number): Drift {
  const iso = (ms: number | null) => (ms === null ? null : new Date(ms).toISOString())
  const ageOf = (ms: number | null) => (ms === null ? null : Math.max(0, Math.round((now - ms) / 1000)))
  const timed = <T extends { since: number | null }>(one: T) => ({
    ...one,
    since: iso(one.since),
    age_s: ageOf(one.since),
  })
  const { seenAt, notLive, drift, pending, zombies, missing, unread } = seen
  return {
    server_uuid,
    source: notLive ? 'report' : 'live',
    seen_at: iso(seenAt),
    age_s: ageOf(seenAt),
    ...(notLive ? { not_live: { code: notLive.code, message: notLive.message } } : {}),
    drift: drift.map(timed),
    pending,
    zombies: zombies.map(timed),
    missing: missing.map(timed),
    unread,
  }
}

function table({ server_uuid, source, age_s, not_live, drift, pending, zombies, missing, unread }: Drift): string {
  const header = ['VM', 'NAME', 'FIELD', 'WANTED', 'FOUND', 'AGE', 'EXPLAINED BY']
  const old = (s: number | null) => (s === null ? '-' : `${s} s`)
  const by = (one: { operation?: { verb: string } | undefined }) => one.operation?.verb ?? '-'
  const rows = [
    ...drift.map(one => [
      one.vm_uuid,
      one.name,
      one.field,
      ...[one.wanted, one.found].map(value => JSON.stringify(value)),
      old(one.age_s),
      by(one),
    ]),
    ...pending.map(one => [one.vm_uuid, one.name, one.field, 'as defined', 'with its next boot', '-', '-']),
    ...zombies.map(one => [one.vm_uuid, one.name, '(vm)', 'none', one.state, old(one.age_s), by(one)]),
    ...missing.map(one => [one.vm_uuid, one.name, '(vm)', 'there', 'missing', old(one.age_s), by(one)]),
    ...unread.map(one => [one.vm_uuid, '-', '(vm)', '-', one.code, '-', '-']),
  ]
  const cells = [header, ...rows].map(line => line.map(plain))
  const widths = header.map((_, at) => Math.max(...cells.map(line => line[at]!.length)))
  const lines = cells.map(line =>
    line
      .map((cell, at) => cell.padEnd(widths[at]!))
      .join('  ')
      .trimEnd(),
  )
  const from = source === 'live' ? 'seen now' : `not seen now (${not_live?.code}); last report ${old(age_s)} ago`
  return `${server_uuid}: ${plain(from)}\n${lines.join('\n')}\n`
}

/** Names come from nodes; a terminal acts on control characters. */
const plain = (words: string) => words.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '?')
