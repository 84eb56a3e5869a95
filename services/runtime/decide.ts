/**
 * Decides one input of an actor: (record, input, time) -> (record, reply, effects). Pure, so the runtime may decide again after a lost
 * commit. Everything the envelope promises is kept here: repeats are answered from the record, effects enter the outbox, timers and
 * the last transitions are stored, and an input that changes nothing leaves the very same record.
 */
import * as v from 'valibot'
import { type AnyMachineSnapshot, initialTransition } from 'xstate'
import { ACTORS, type ActorKind, type ActorKinds } from '../../actors/actors.ts'
import { type ErrorCode, type Rejection, rejection } from '../../actors/contract/errors.ts'
import { type Command, TaskReport } from '../../actors/contract/messages.ts'
import { type ActorRecord, type OutboxEntry, RECENT_MAX, type Reply } from '../../actors/contract/record.ts'
import { type Effect, iso } from '../../actors/effects.ts'
import type { Bucket, MortalBucket } from '../nats/buckets.ts'
import { fieldErrors } from './field-errors.ts'
import { isBelowFloor, remember, repeated, takeBack } from './repeats.ts'
import { transition } from './transition.ts'

export type Input =
  | { type: 'command'; channel: 'cmd' | 'agent'; verb: string; command: Command }
  /** A stored deadline; one that was moved or cancelled meanwhile changes nothing. */
  | { type: 'timer'; name: string; at: number }
  /** Outbox entries that were answered leave the record; a refused one is told to the machine that sent it. */
  | { type: 'sent'; sequences: number[]; refused?: { sequence: number; rejection: Rejection }[] }

export interface Decision {
  /** The given reference when nothing is to be written; undefined when the actor is forgotten and its key is to be deleted. */
  record: ActorRecord | undefined
  reply?: Reply
  /** Performed before the commit; each is safe to repeat. */
  puts: SidePut[]
  /** Outbox sequences whose acknowledgement the reply waits for. */
  waitFor: number[]
  transition?: { event: string; from: string; to: string }
  /** A bug: the machine threw. The record is unchanged and the reply is InternalError. */
  fault?: unknown
}

export type SidePut =
  | { type: 'create' | 'put'; bucket: Bucket; key: string; value: unknown }
  | { type: 'delete'; bucket: MortalBucket; key: string }
  | {
      type: 'patch'
      bucket: Bucket
      key: string
      while: Record<string, unknown>
      patch: Record<string, unknown>
      ttl_ms?: number
    }

export type Decide = (kind: string, id: string, record: ActorRecord | undefined, input: Input, at: number) => Decision

export const decide: Decide = createDecide(ACTORS)

/** A decider over a table of actor kinds. */
export function createDecide(kinds: ActorKinds): Decide {
  return (kind, id, record, input, at) => {
    const definition = kinds[kind]
    if (!definition) return refused(record, rejection('ResourceNotFound', `there is no actor kind ${kind}`))
    if (record && record.version > definition.version) return refused(record, rejection('VersionTooNew'))
    try {
      return decideInput(definition, kind, id, record, input, at)
    } catch (fault) {
      return { ...refused(record, rejection('InternalError')), fault }
    }
  }
}

type Event = { type: string; at: number } & Record<string, unknown>

function decideInput(
  definition: ActorKind,
  kind: string,
  id: string,
  record: ActorRecord | undefined,
  input: Input,
  at: number,
): Decision {
  const draft = draftOf(definition, kind, id, record, at)
  switch (input.type) {
    case 'timer': {
      const timer = draft.timers[input.name]
      if (timer?.at !== input.at) return unchanged(record)
      delete draft.timers[input.name]
      draft.changed = true
      step(draft, { ...timer.event, at })
      return finish(draft, record)
    }
    case 'sent': {
      for (const { sequence, rejection } of input.refused ?? []) tellRefused(draft, sequence, rejection)
      const left = draft.outbox.filter(entry => !input.sequences.includes(entry.sequence))
      draft.changed ||= left.length !== draft.outbox.length
      draft.outbox = left
      return finish(draft, record)
    }
    case 'command':
      return decideCommand(definition, draft, record, input)
  }
}

function decideCommand(
  definition: ActorKind,
  draft: Draft,
  record: ActorRecord | undefined,
  { channel, verb, command }: Extract<Input, { type: 'command' }>,
): Decision {
  const known = repeated(draft, command)
  if (!known && isBelowFloor(draft, command)) {
    return refused(record, rejection('ServiceUnavailableError', 'Its sender has been answered and moved on'))
  }
  if (known) return { ...unchanged(record), reply: known.reply, waitFor: pendingOf(draft, known.after) }

  const { key, req_id } = command
  const kept = key && Object.hasOwn(draft.keys, key.value) ? draft.keys[key.value] : undefined
  if (kept && kept.fingerprint !== key?.fingerprint) return refused(record, rejection('IdempotencyKeyReused'))
  if (kept) return { ...unchanged(record), reply: kept.stored.reply, waitFor: pendingOf(draft, kept.stored.after) }

  const schema =
    channel === 'agent' ? AGENT_VERBS[verb] : definition.verbs[verb as keyof ActorKind['verbs']]?.['params']
  if (!schema) return refused(record, rejection('ResourceNotFound', `${draft.kind} has no verb ${verb}`))
  const params = v.safeParse(schema as v.GenericSchema<Record<string, unknown>>, command.params)
  if (!params.success) return refused(record, rejection('InvalidParameters', undefined, fieldErrors(params.issues)))

  if (verb === 'get') return { ...unchanged(record), reply: record ? { value: record } : notFound(draft) }
  if (verb === 'actions' && definition.actions) {
    if (!record) return refused(record, notFound(draft).error)
    return {
      ...unchanged(record),
      reply: { value: { state: draft.state(), actions: definition.actions(draft.snapshot) } },
    }
  }

  step(draft, eventOf(verb, params.output, draft.at, req_id))
  const reply = draft.reply ?? notFound(draft)
  if ('error' in reply && !draft.changed) return { ...unchanged(record), reply, puts: draft.puts }
  if (draft.changed) remember(draft, command, { reply, ...(draft.waitFor.length ? { after: draft.waitFor } : {}) })
  return { ...finish(draft, record), reply }
}

/** Calls of an agent that its machine sees; the others are answered by the owner itself. */
const AGENT_VERBS: Record<string, v.GenericSchema> = { report: TaskReport }

/** The owner's clock is `at` in every event; an agent's own `at` is renamed. */
function eventOf(verb: string, params: Record<string, unknown>, at: number, req_id: string | undefined): Event {
  const reported = 'at' in params ? { reported_at: params['at'] } : {}
  return { ...params, ...reported, type: verb, at, ...(req_id === undefined ? {} : { req_id }) }
}

// The draft of the next record.

interface Draft {
  definition: ActorKind
  kind: string
  id: string
  at: number
  count: number
  sent: number
  snapshot: AnyMachineSnapshot
  outbox: OutboxEntry[]
  timers: ActorRecord['timers']
  replies: ActorRecord['replies']
  keys: ActorRecord['keys']
  recent: ActorRecord['recent']
  changed: boolean
  reply?: Reply
  puts: SidePut[]
  waitFor: number[]
  transition?: { event: string; from: string; to: string }
  state(): string
}

function draftOf(definition: ActorKind, kind: string, id: string, record: ActorRecord | undefined, at: number): Draft {
  const { machine } = definition
  return {
    definition,
    kind,
    id,
    at,
    count: record?.count ?? 0,
    // A new life of an actor numbers above its earlier ones: receivers that remember those must not take it for a repeat.
    sent: record?.sent ?? at,
    snapshot: record
      ? machine.resolveState(
          (record.version < definition.version
            ? definition.migrate(record.snapshot, record.version)
            : record.snapshot) as never,
        )
      : initialTransition(machine, { id, ...definition.input })[0],
    outbox: record?.outbox ?? [],
    timers: { ...record?.timers },
    replies: { ...record?.replies },
    keys: { ...record?.keys },
    recent: record?.recent ?? [],
    changed: false,
    puts: [],
    waitFor: [],
    state() {
      return stateText(this.snapshot.value)
    },
  }
}

/** One transition of the machine, its effects taken into the draft. */
function step(draft: Draft, event: Event): void {
  const before = draft.snapshot
  const from = draft.state()
  const [next, actions] = transition(draft.definition.machine, before, event)
  if (next.status === 'error') throw next.error
  draft.snapshot = next
  const moved = next.context !== before.context || stateText(next.value) !== from
  for (const action of actions) take(draft, action as { type: string; params?: unknown })
  if (!moved) return
  draft.changed = true
  draft.count += 1
  draft.transition = { event: event.type, from, to: draft.state() }
  draft.recent = [...draft.recent, { at: iso(draft.at), ...draft.transition, count: draft.count }].slice(-RECENT_MAX)
}

function take(draft: Draft, action: { type: string; params?: unknown }): void {
  const params = (action.params ?? {}) as Record<string, unknown>
  if (action.type === 'xstate.raise' && typeof params['delay'] === 'number') {
    const event = params['event'] as { type: string }
    setTimer(draft, String(params['id'] ?? event.type), draft.at + params['delay'], event)
  } else if (action.type === 'xstate.cancel') {
    dropTimer(draft, String(params['sendId']))
  } else if (Array.isArray(params['effects'])) {
    for (const effect of params['effects'] as Effect[]) perform(draft, effect)
  }
}

function perform(draft: Draft, effect: Effect): void {
  switch (effect.type) {
    case 'reply':
      draft.reply = { value: effect.value }
      return
    case 'reject':
      draft.reply = { error: effect.rejection }
      return
    case 'send': {
      const { type, kind, id, verb, params, req_id, before_reply } = effect
      const entry = {
        type,
        kind,
        id,
        verb,
        params: plain(params),
        ...(req_id === undefined ? {} : { req_id }),
      } as const
      push(draft, entry, before_reply === true)
      return
    }
    case 'offer':
      push(draft, { type: 'offer', server_uuid: effect.server_uuid, task_id: effect.task_id }, false)
      return
    case 'cancel':
      push(draft, { type: 'cancel', server_uuid: effect.server_uuid, task_id: effect.task_id }, false)
      return
    case 'withdraw': {
      const left = draft.outbox.filter(({ effect: sent }) => sent.type !== 'offer' || sent.task_id !== effect.task_id)
      draft.changed ||= left.length !== draft.outbox.length
      draft.outbox = left
      return
    }
    case 'create':
    case 'put':
      draft.puts.push({ ...effect, value: plain(effect.value) })
      return
    case 'delete':
      draft.puts.push(effect)
      return
    case 'patch':
      draft.puts.push({ ...effect, patch: plain(effect.patch) })
      return
    case 'set_timer':
      setTimer(draft, effect.name, effect.at, effect.event)
      return
    case 'cancel_timer':
      dropTimer(draft, effect.name)
      return
  }
}

function push(draft: Draft, effect: OutboxEntry['effect'], beforeReply: boolean): void {
  draft.sent += 1
  const entry = { id: `${draft.kind}.${draft.id}:${draft.sent}`, sequence: draft.sent, effect }
  draft.outbox = [...draft.outbox, beforeReply ? { ...entry, before_reply: true } : entry]
  draft.changed = true
  if (beforeReply) draft.waitFor.push(draft.sent)
}

function setTimer(draft: Draft, name: string, at: number, event: { type: string }): void {
  if (draft.timers[name]?.at === at) return
  draft.timers[name] = { at, event }
  draft.changed = true
}

function dropTimer(draft: Draft, name: string): void {
  if (!(name in draft.timers)) return
  delete draft.timers[name]
  draft.changed = true
}

/** The machine hears that an effect was refused, and callers that repeat hear the refusal instead of the stored promise. */
function tellRefused(draft: Draft, sequence: number, refusal: Rejection): void {
  const entry = draft.outbox.find(entry => entry.sequence === sequence)
  if (!entry) return
  takeBack(draft, sequence, refusal)
  const { effect } = entry
  if (effect.type !== 'send') return
  step(draft, { type: 'refused', at: draft.at, verb: effect.verb, params: effect.params, rejection: refusal })
}

const pendingOf = (draft: Draft, after: number[] | undefined): number[] =>
  (after ?? []).filter(sequence => draft.outbox.some(entry => entry.sequence === sequence))

// Results.

function finish(draft: Draft, record: ActorRecord | undefined): Decision {
  const { puts, waitFor } = draft
  const more = draft.transition ? { transition: draft.transition } : {}
  if (!draft.changed) return { record, puts, waitFor, ...more }
  if (draft.snapshot.status === 'done' && draft.outbox.length === 0)
    return { record: undefined, puts, waitFor, ...more }
  const { definition, kind, id } = draft
  const state = draft.state()
  const { value, context } = draft.snapshot
  const next: ActorRecord = {
    state,
    status: definition.status(state, context as Record<string, unknown>),
    updated_at: iso(draft.at),
    kind,
    id,
    version: definition.version,
    count: draft.count,
    sent: draft.sent,
    snapshot: { value, context: context as Record<string, unknown>, status: draft.snapshot.status },
    outbox: draft.outbox,
    timers: draft.timers,
    replies: draft.replies,
    keys: draft.keys,
    recent: draft.recent,
  }
  return { record: next, puts, waitFor, ...more }
}

const unchanged = (record: ActorRecord | undefined) => ({ record, puts: [] as SidePut[], waitFor: [] as number[] })
const refused = (record: ActorRecord | undefined, error: Rejection): Decision => ({
  ...unchanged(record),
  reply: { error },
})
const notFound = (draft: Draft) => ({
  error: rejection(
    (draft.kind === 'vm' ? 'VmNotFound' : 'ResourceNotFound') satisfies ErrorCode,
    `${draft.kind} ${draft.id} not found`,
  ),
})

/** State values are strings, or objects for nested states: `a`, `a.b`. */
function stateText(value: unknown): string {
  if (typeof value === 'string') return value
  return Object.entries(value as Record<string, unknown>)
    .map(([name, inner]) => `${name}.${stateText(inner)}`)
    .join(' ')
}

/** What JSON keeps of a value: records are compared and stored as they will be read. */
function plain<T>(value: T): T {
  return value === undefined ? value : (JSON.parse(JSON.stringify(value)) as T)
}
