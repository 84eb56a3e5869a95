/**
 * Performs what decisions asked for after their commit: commands to other actors and offers to agents, again and again until
 * acknowledged. Effects to one receiver go in order, one at a time. Acknowledged ones stay in memory and leave the record with its
 * next commit or after 5 s; a host that takes over performs what the record still holds, and receivers know repeats by their number.
 */
import { setMaxListeners } from 'node:events'
import { rejection } from '../../actors/contract/errors.ts'
import type { Command, TaskOffer } from '../../actors/contract/messages.ts'
import type { ActorRecord, OutboxEntry, Reply } from '../../actors/contract/record.ts'
import type { TaskRecord } from '../../actors/contract/task.ts'
import { key } from '../nats/buckets.ts'
import type { NatsConnection } from '../nats/connect.ts'
import type { Records } from '../nats/records.ts'
import { request } from '../nats/request.ts'
import { isKind, type Kind, subject } from '../nats/subjects.ts'
import type { Log } from './log.ts'
import type { Item } from './mailbox.ts'

export interface PerformerDeps {
  nc: NatsConnection
  records: Records
  log: Log
  add: (kind: Kind, id: string, item: Item) => void
  /** Whether this host may start an effect of the actor now. */
  mayAct: (id: string) => boolean
  /** Told where things stand; tests stop the process there. */
  step?: ((step: 'performing' | 'acknowledged', effect: string) => void) | undefined
}

export interface Performer {
  /** The record as it is in the bucket: performs what is new in it, forgets what has left it. */
  known(kind: Kind, id: string, record: ActorRecord | undefined): void
  acknowledged(kind: Kind, id: string): number[]
  outcome(kind: Kind, id: string, sequence: number, endsAt: number): Promise<Reply | undefined>
  /** Whether effects of this actor are in hand. */
  has(kind: Kind, id: string): boolean
  /** Another host owns these now. */
  drop(given: (id: string) => boolean): void
  /** Callers that wait for effects of these actors. */
  waiting(of: (id: string) => boolean): number
}

/** Acknowledged entries leave the record by a commit of their own after this time. */
export const CLEAR_AFTER_MS = 5_000
const sendDeadlineMs = 15_000
const offerDeadlineMs = 4_000
const offerAttemptMs = 2_000
const pauseMs = { first: 100, last: 5_000 } as const

interface Actor {
  kind: Kind
  id: string
  entries: OutboxEntry[]
  /** Receivers with an effect under way. */
  busy: Set<string>
  acknowledged: Map<number, Reply>
  waiters: Map<number, ((reply: Reply | undefined) => void)[]>
  clearing: NodeJS.Timeout | undefined
  abort: AbortController
}

export function createPerformer({ nc, records, log, add, mayAct, step }: PerformerDeps): Performer {
  const actors = new Map<string, Actor>()

  const advance = (actor: Actor) => {
    for (const entry of actor.entries) {
      const lane = laneOf(entry)
      if (actor.busy.has(lane) || actor.acknowledged.has(entry.sequence)) continue
      actor.busy.add(lane)
      perform(actor, entry)
        .catch(error => log.error({ err: error, effect: entry.id }, 'an effect failed'))
        .finally(() => {
          actor.busy.delete(lane)
          if (!actor.abort.signal.aborted) advance(actor)
        })
    }
  }

  const perform = async (actor: Actor, entry: OutboxEntry) => {
    const wanted = () =>
      !actor.abort.signal.aborted && actor.entries.some(({ sequence }) => sequence === entry.sequence)
    for (let wait: number = pauseMs.first; wanted(); wait = Math.min(wait * 2, pauseMs.last)) {
      if (mayAct(actor.id)) step?.('performing', entry.id)
      const reply = mayAct(actor.id) ? await attempt(actor, entry) : undefined
      if (!wanted()) return
      if (reply && !('error' in reply && transient.has(reply.error.code))) return acknowledge(actor, entry, reply)
      await sleep(wait * (0.5 + Math.random()), actor.abort.signal)
    }
  }

  const attempt = (actor: Actor, { sequence, effect }: OutboxEntry): Promise<Reply | undefined> => {
    if (effect.type === 'offer') return offer(actor, effect)
    if (effect.type === 'cancel') return cancel(actor, effect)
    if (!isKind(effect.kind)) {
      return Promise.resolve({ error: rejection('ResourceNotFound', `there is no actor kind ${effect.kind}`) })
    }
    const command: Command = {
      sender: `${actor.kind}:${actor.id}`,
      sequence,
      floor: floorOf(actor, effect.kind, effect.id, sequence),
      ...(effect.req_id ? { req_id: effect.req_id } : {}),
      params: effect.params,
    }
    const { signal } = actor.abort
    return request(nc, subject.command(effect.kind, effect.id, effect.verb), command, {
      deadlineMs: sendDeadlineMs,
      signal,
    })
  }

  /** Gives a task to its agent. What the agent refuses ends the task. */
  const offer = async (
    actor: Actor,
    effect: Extract<OutboxEntry['effect'], { type: 'offer' }>,
  ): Promise<Reply | undefined> => {
    const entry = await records.get('task', key.task(effect.task_id)).catch(() => undefined)
    const task = entry?.value as TaskRecord | undefined
    if (entry && task?.status !== 'active') return { value: {} }
    if (!task) return undefined
    const body: TaskOffer = {
      id: task.id,
      task: task.task,
      params: task.params ?? {},
      ...(task.req_id ? { req_id: task.req_id } : {}),
    }
    const reply = await request(nc, subject.agent(effect.server_uuid, 'task'), body, {
      deadlineMs: offerDeadlineMs,
      attemptMs: offerAttemptMs,
      signal: actor.abort.signal,
    })
    if ('error' in reply && !transient.has(reply.error.code)) {
      const { code, message } = reply.error
      const params = { task_id: effect.task_id, code, message }
      const input = { type: 'command', channel: 'cmd', verb: 'task_fail', command: { params } } as const
      await new Promise<void>(settled =>
        add(actor.kind, actor.id, { input, endsAt: performance.now() + sendDeadlineMs, settled }),
      )
    }
    return reply
  }

  /** Tells an agent of a task's end. One that cannot be reached now learns it from its next report, so it is not tried for ever. */
  const cancel = async (actor: Actor, effect: Extract<OutboxEntry['effect'], { type: 'cancel' }>): Promise<Reply> => {
    await request(
      nc,
      subject.agent(effect.server_uuid, 'cancel'),
      { id: effect.task_id },
      { deadlineMs: offerDeadlineMs, attemptMs: offerAttemptMs, signal: actor.abort.signal },
    )
    return { value: {} }
  }

  const acknowledge = async (actor: Actor, { sequence, effect, id }: OutboxEntry, reply: Reply) => {
    actor.acknowledged.set(sequence, reply)
    step?.('acknowledged', id)
    if ('error' in reply && effect.type === 'send') {
      const to = `${effect.kind}.${effect.id}`
      log.warn({ effect: id, to, verb: effect.verb, code: reply.error.code }, 'an effect was refused')
      // Its machine hears of it at once, and callers after it has.
      await new Promise<void>(settled => tell(actor, [sequence], settled))
    }
    for (const answer of actor.waiters.get(sequence) ?? []) answer(reply)
    actor.clearing ??= setTimeout(() => clear(actor), CLEAR_AFTER_MS)
  }

  /** Nothing else was committed meanwhile: the acknowledged entries leave by a commit of their own. */
  const clear = (actor: Actor) => {
    actor.clearing = undefined
    if (actor.acknowledged.size === 0 || actor.abort.signal.aborted) return
    tell(actor, [...actor.acknowledged.keys()], () => {
      if (actor.acknowledged.size > 0) actor.clearing ??= setTimeout(() => clear(actor), CLEAR_AFTER_MS)
    })
  }

  const tell = (actor: Actor, sequences: number[], settled: () => void) => {
    const refused = sequences.flatMap(sequence => {
      const reply = actor.acknowledged.get(sequence)
      const entry = actor.entries.find(other => other.sequence === sequence)
      return reply && 'error' in reply && entry?.effect.type === 'send' ? [{ sequence, rejection: reply.error }] : []
    })
    const input = { type: 'sent' as const, sequences, ...(refused.length > 0 ? { refused } : {}) }
    add(actor.kind, actor.id, { input, endsAt: performance.now() + sendDeadlineMs, settled })
  }

  const forget = (name: string, actor: Actor) => {
    actors.delete(name)
    clearTimeout(actor.clearing)
    actor.abort.abort()
    for (const answers of [...actor.waiters.values()]) for (const answer of answers) answer(undefined)
  }

  return {
    known: (kind, id, record) => {
      const name = nameOf(kind, id)
      const entries = record?.outbox ?? []
      let actor = actors.get(name)
      if (!actor && entries.length === 0) return
      actor ??= {
        kind,
        id,
        entries,
        busy: new Set(),
        acknowledged: new Map(),
        waiters: new Map(),
        clearing: undefined,
        abort: abortable(),
      }
      actors.set(name, actor)
      actor.entries = entries
      for (const [sequence, reply] of actor.acknowledged) {
        if (entries.some(entry => entry.sequence === sequence)) continue
        actor.acknowledged.delete(sequence)
        // Who waits for a refusal is told after this commit, by whoever had it committed.
        if (!('error' in reply)) for (const answer of actor.waiters.get(sequence) ?? []) answer(reply)
      }
      if (entries.length === 0 && actor.waiters.size === 0) forget(name, actor)
      else advance(actor)
    },
    acknowledged: (kind, id) => {
      const actor = actors.get(nameOf(kind, id))
      // A refusal has to reach the machine; it travels by itself.
      return actor
        ? [...actor.acknowledged].filter(([, reply]) => !('error' in reply)).map(([sequence]) => sequence)
        : []
    },
    outcome: (kind, id, sequence, endsAt) => {
      const actor = actors.get(nameOf(kind, id))
      const known = actor?.acknowledged.get(sequence)
      if (known) return Promise.resolve(known)
      if (!actor?.entries.some(entry => entry.sequence === sequence)) return Promise.resolve({ value: {} })
      return new Promise(resolve => {
        const finish = (reply: Reply | undefined) => {
          clearTimeout(timer)
          const left = actor.waiters.get(sequence)?.filter(other => other !== finish) ?? []
          if (left.length > 0) actor.waiters.set(sequence, left)
          else actor.waiters.delete(sequence)
          resolve(reply)
        }
        const timer = setTimeout(() => finish(undefined), Math.max(0, endsAt - performance.now()))
        actor.waiters.set(sequence, [...(actor.waiters.get(sequence) ?? []), finish])
      })
    },
    has: (kind, id) => actors.has(nameOf(kind, id)),
    drop: given => {
      for (const [name, actor] of actors) if (given(actor.id)) forget(name, actor)
    },
    waiting: of => {
      let count = 0
      for (const actor of actors.values()) if (of(actor.id)) count += actor.waiters.size
      return count
    },
  }
}

/** Answers that say nothing about the effect itself: it is tried again. */
const transient = new Set<string>(['ServiceUnavailableError', 'VersionTooNew', 'InternalError'])

/** Effects with the same lane go in order; tasks do not wait for each other. */
const laneOf = ({ effect }: OutboxEntry) =>
  effect.type === 'send' ? `${effect.kind}.${effect.id}` : `${effect.type} ${effect.task_id}`

/** The lowest number that the receiver may hear again: what the stored outbox holds for it, acknowledged or not. */
function floorOf(actor: Actor, kind: string, id: string, sequence: number): number {
  let floor = sequence
  for (const { sequence: other, effect } of actor.entries) {
    if (effect.type === 'send' && effect.kind === kind && effect.id === id && other < floor) floor = other
  }
  return floor
}

const nameOf = (kind: Kind, id: string) => `${kind}.${id}`

/** As many effects as an actor has pending wait on its signal; Node takes more than ten for a leak. */
function abortable(): AbortController {
  const controller = new AbortController()
  setMaxListeners(0, controller.signal)
  return controller
}

function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    const done = () => {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, ms)
    signal.addEventListener('abort', done, { once: true })
  })
}
