/**
 * The life of durable actors on one host: takes part in the division of partitions, passes what arrives to the actors it owns,
 * fires their deadlines, performs their effects, and hands all of it over when it stops.
 */
import * as v from 'valibot'
import { rejection } from '../../actors/contract/errors.ts'
import { COMMAND_DEADLINE_MS, Command, REPLY_MAX_BYTES } from '../../actors/contract/messages.ts'
import type { Reply } from '../../actors/contract/record.ts'
import type { Msg, NatsConnection, Subscription } from '../nats/connect.ts'
import { decode, encode } from '../nats/json.ts'
import { openRecords, type Records } from '../nats/records.ts'
import { type Arrival, type Kind, parseArrival, partitionOf, pattern, subject } from '../nats/subjects.ts'
import { createDeadlines } from './deadlines.ts'
import type { Decide } from './decide.ts'
import type { Log } from './log.ts'
import { type Committed, createMailboxes, type MailboxDeps, type Put } from './mailbox.ts'
import { createMembership } from './membership.ts'
import { createPendingIndex, type PendingIndex } from './pending-index.ts'
import { createPerformer, type PerformerDeps } from './performer.ts'

export interface RuntimeOptions {
  nc: NatsConnection
  /** Never the same for two lives of a process. */
  hostId: string
  kinds: readonly Kind[]
  decide: Decide
  log: Log
  /** Calls that the owner answers by itself, by `<kind>.<channel>.<verb>`: no decision, no commit. */
  calls?: Record<string, Call>
  /** A liveness beat of a node that this host owns. */
  onHeartbeat?: (serverUuid: string) => void
  /** A record of ours was stored. */
  onCommitted?: (committed: Committed) => void
  /** An attempt to store a record has ended. */
  onPut?: (put: Put) => void
  /** Partitions became ours. */
  onTook?: (partitions: Set<number>) => void
  /** The lease lapsed, or the process paused for more than a second. */
  onLapse?: () => void
  batching?: boolean
  cacheMax?: number
  /** Told where things stand; tests stop the process there. */
  step?: (step: Step, what: string) => void
}

export type Step = Parameters<NonNullable<MailboxDeps['step']>>[0] | Parameters<NonNullable<PerformerDeps['step']>>[0]
export type Call = (call: { id: string; command: Command; payload: unknown }) => Promise<Reply>

export interface Runtime {
  /** Resolves when this host is live; what is pending becomes known while it serves already. */
  start(): Promise<void>
  /** Hands over without a failed request. */
  stop(): Promise<void>
  owns(id: string): boolean
  /** What the headers of all records tell. */
  index: PendingIndex
  records: Records
  stats(): {
    partitions: number
    hosts: string[]
    actors: number
    items: number
    deadlines: number
    /** Actors of ours with effects that are not acknowledged. */
    unsent: number
    commits: number
    misdirected: number
  }
}

type ActorArrival = Exclude<Arrival, { kind: 'hb' }>

const tickMs = 50
const sweepMs = 5_000
const sweepAtOnce = 64
/** A record of our own is told by the bucket about when its commit is acknowledged. */
const suspectMs = 100
/** Messages kept for a partition that another host is letting go of. */
const heldMax = 10_000
const drainLimitMs = 2_000
const answersLimitMs = 2_000

const pause = (ms: number) => new Promise<void>(resolve => setTimeout(resolve, ms))

export function createRuntime(options: RuntimeOptions): Runtime {
  const { nc, hostId, kinds, decide, log, calls = {}, step } = options
  const records = openRecords(nc)
  const index = createPendingIndex(nc, kinds, log)
  const deadlines = createDeadlines()
  const subscriptions = new Map<number, Subscription>()
  let held: { arrival: ActorArrival; message: Msg }[] = []
  let [commits, misdirected, unnamed] = [0, 0, 0]
  let timers: NodeJS.Timeout[] = []
  const suspects: { kind: Kind; id: string; at: number }[] = []

  const onMessage = (error: Error | null, message: Msg) => {
    if (error) return log.error({ err: error }, 'a subscription failed')
    const arrival = parseArrival(message.subject)
    if (!arrival) {
      misdirected += 1
      return answer(message, {
        error: rejection('InvalidArgument', 'The partition of this subject is not that of its id'),
      })
    }
    if (arrival.kind === 'hb') {
      if (membership.owns(arrival.partition)) options.onHeartbeat?.(arrival.id)
    } else if (membership.owns(arrival.partition)) dispatch(arrival, message)
    else if (membership.awaits(arrival.partition) && held.length < heldMax) held.push({ arrival, message })
    // Otherwise another host answers, or the sender asks again.
  }

  const dispatch = ({ kind, id, channel, verb }: ActorArrival, message: Msg) => {
    let payload: unknown
    try {
      payload = decode(message.data) ?? {}
    } catch {
      return answer(message, { error: rejection('InvalidContent') })
    }
    const parsed = v.safeParse(Command, channel === 'agent' ? wrapped(payload) : payload)
    if (!parsed.success) {
      return answer(message, { error: rejection('InvalidParameters', parsed.issues[0]?.message) })
    }
    const call = calls[`${kind}.${channel}.${verb}`]
    if (call) {
      call({ id, command: parsed.output, payload }).then(
        reply => answer(message, reply),
        error => {
          log.error({ err: error, kind, id, verb }, 'a call failed')
          answer(message, { error: rejection('InternalError') })
        },
      )
      return
    }
    const command = channel === 'cmd' ? named(parsed.output) : parsed.output
    mailboxes.add(kind, id, {
      input: { type: 'command', channel, verb, command },
      endsAt: performance.now() + COMMAND_DEADLINE_MS,
      answer: reply => answer(message, reply),
    })
  }

  /** A person's command has no number; it gets one here, so that an unknown outcome can be looked up. */
  const named = (command: Command): Command => {
    if (command.sender !== undefined) return command
    unnamed += 1
    return { ...command, sender: `person@${hostId}`, sequence: unnamed, floor: Math.max(1, unnamed - 32) }
  }

  const answer = (message: Msg, reply: Reply) => {
    if (!message.reply || nc.isClosed()) return
    let bytes = encode(reply)
    if (bytes.length > REPLY_MAX_BYTES) {
      bytes = encode({
        error: rejection('InternalError', `The answer has ${bytes.length} bytes; at most ${REPLY_MAX_BYTES} travel`),
      })
    }
    message.respond(bytes)
  }

  const release = async (partitions: Set<number>) => {
    for (const partition of partitions) {
      subscriptions.get(partition)?.unsubscribe()
      subscriptions.delete(partition)
      deadlines.clear(partition)
    }
    await Promise.race([mailboxes.idle(partitions), pause(drainLimitMs)])
  }

  const released = async (partitions: Set<number>) => {
    // Also those of what was still decided while letting go.
    for (const partition of partitions) deadlines.clear(partition)
    const gone = (id: string) => partitions.has(partitionOf(id))
    for (const end = performance.now() + answersLimitMs; performer.waiting(gone) > 0 && performance.now() < end; )
      await pause(10)
    performer.drop(gone)
  }

  const membership = createMembership(
    nc,
    hostId,
    {
      subscribe: async partitions => {
        for (const partition of partitions) {
          if (subscriptions.has(partition)) continue
          subscriptions.set(partition, nc.subscribe(pattern.partition(partition), { callback: onMessage }))
        }
        await nc.flush()
      },
      release,
      released,
      took: partitions => {
        mailboxes.forget(partitions)
        options.onTook?.(partitions)
        for (const partition of partitions) deadlines.clear(partition)
        const due = [...partitions].flatMap(partition => [...index.in(partition)])
        for (const { kind, id, due: at } of due) if (at !== undefined) deadlines.add(partitionOf(id), { at, kind, id })
        sweep(partitions).catch(error => log.error({ err: error }, 'a sweep failed'))
        const ours = held.filter(({ arrival }) => partitions.has(arrival.partition))
        held = held.filter(({ arrival }) => membership.awaits(arrival.partition))
        for (const { arrival, message } of ours) if (isNumbered(message)) dispatch(arrival, message)
      },
      lapsed: () => {
        held = []
        mailboxes.forget()
        performer.drop(() => true)
        options.onLapse?.()
      },
    },
    log,
  )

  const mailboxes = createMailboxes({
    nc,
    records,
    decide,
    log,
    now: Date.now,
    batching: options.batching ?? true,
    cacheMax: options.cacheMax ?? 20_000,
    mayWork: partition => membership.owns(partition),
    known: (kind, id, record) => performer.known(kind, id, record),
    put: options.onPut,
    acknowledged: (kind, id) => performer.acknowledged(kind, id),
    outcome: (kind, id, sequence, endsAt) => performer.outcome(kind, id, sequence, endsAt),
    committed: committed => {
      commits += 1
      index.committed(committed.kind, committed.id, committed.record, committed.revision)
      announce(committed)
      options.onCommitted?.(committed)
    },
    step,
  })

  const performer = createPerformer({
    nc,
    records,
    log,
    add: (kind, id, item) => mailboxes.add(kind, id, item),
    mayAct: id => membership.owns(partitionOf(id)),
    step,
  })

  /** A hint for people and gateways; the bucket is the truth. */
  const announce = ({ kind, id, record, revision, transitions }: Committed) => {
    for (const transition of transitions) {
      const event = {
        kind,
        id,
        revision,
        ...transition,
        status: record?.status ?? null,
        at: record?.updated_at ?? null,
      }
      nc.publish(subject.event(kind, id), encode(event))
    }
  }

  index.onDue(({ kind, id, due }) => {
    // Those of others come from the index if their partitions ever become ours.
    const partition = partitionOf(id)
    if (due !== undefined && membership.owned().has(partition)) deadlines.add(partition, { at: due, kind, id })
  })
  index.onTold(({ kind, id, revision, outbox }) => {
    mailboxes.seen(kind, id, revision)
    if (outbox && !performer.has(kind, id)) suspects.push({ kind, id, at: performance.now() })
  })

  /** Deadlines of our partitions that have passed become inputs of their actors. */
  const tick = () => {
    attendTo(suspects.splice(0, suspects.findLastIndex(({ at }) => performance.now() - at > suspectMs) + 1))
    const now = Date.now()
    for (const partition of membership.owned()) {
      if (!membership.owns(partition)) return
      for (const { kind, id } of deadlines.take(partition, now)) {
        const due = index.get(kind, id)?.due
        if (due === undefined || due > now) continue
        const settled = () => {
          // Not through (no leader, say): once more in a second.
          const still = index.get(kind, id)?.due
          if (still !== undefined && still <= Date.now()) deadlines.add(partition, { at: Date.now() + 1_000, kind, id })
        }
        mailboxes.add(kind, id, { input: { type: 'due' }, endsAt: performance.now() + COMMAND_DEADLINE_MS, settled })
      }
    }
  }

  /** Loads actors whose effects nobody has in hand: after a take-over, and whatever was lost on the way. */
  const sweep = async (partitions: Set<number>) => {
    await attend([...partitions].flatMap(partition => [...index.in(partition)]))
  }

  const attend = async (actors: { kind: Kind; id: string }[]) => {
    const unattended = actors.filter(({ kind, id }) => index.get(kind, id)?.outbox && !performer.has(kind, id))
    const next = async () => {
      for (let actor = unattended.pop(); actor; actor = unattended.pop()) {
        const { kind, id } = actor
        if (!membership.owns(partitionOf(id))) continue
        mailboxes.forgetOne(kind, id)
        const endsAt = performance.now() + COMMAND_DEADLINE_MS
        await new Promise<void>(settled => mailboxes.add(kind, id, { input: { type: 'due' }, endsAt, settled }))
      }
    }
    await Promise.all(Array.from({ length: Math.min(sweepAtOnce, unattended.length) }, next))
  }

  /** Records with effects that another host stored just before it let go, and that were told only after we took over. */
  const attendTo = (actors: { kind: Kind; id: string }[]) => {
    if (actors.length > 0) attend(actors).catch(error => log.error({ err: error }, 'a sweep failed'))
  }

  const unsent = () => {
    let count = 0
    for (const partition of membership.owned()) for (const { outbox } of index.in(partition)) if (outbox) count += 1
    return count
  }

  return {
    index,
    records,
    owns: id => membership.owns(partitionOf(id)),
    start: async () => {
      await membership.join()
      timers = [
        setInterval(tick, tickMs),
        setInterval(() => {
          sweep(membership.owned()).catch(error => log.error({ err: error }, 'a sweep failed'))
        }, sweepMs),
      ]
    },
    stop: async () => {
      await membership.leave()
      for (const timer of timers) clearInterval(timer)
      index.close()
    },
    stats: () => ({
      partitions: membership.owned().size,
      hosts: membership.hosts(),
      ...mailboxes.size(),
      deadlines: deadlines.size(),
      unsent: unsent(),
      commits,
      misdirected,
    }),
  }
}

/** An agent's call carries its report bare, or as a numbered command. */
function wrapped(payload: unknown): unknown {
  return typeof payload === 'object' && payload !== null && 'params' in payload ? payload : { params: payload }
}

/** Only a numbered command may be kept while another host could have carried it out already. */
function isNumbered(message: Msg): boolean {
  try {
    const payload = decode(message.data) as { sender?: unknown } | undefined
    return typeof payload?.sender === 'string'
  } catch {
    return false
  }
}
