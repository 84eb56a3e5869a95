/**
 * One actor at a time, many inputs at once: what queued up while a commit was under way is decided together and written with one
 * compare-and-set. Load, decide, write bodies, commit, answer, in this order and here only. A commit with an unknown outcome or
 * a conflict is read again and decided again; repeats are recognised by the decision itself.
 */
import { rejection } from '../../actors/contract/errors.ts'
import type { ActorRecord, Reply } from '../../actors/contract/record.ts'
import { DELETION } from '../nats/buckets.ts'
import type { NatsConnection } from '../nats/connect.ts'
import { encode } from '../nats/json.ts'
import {
  ConflictError,
  JetStreamRefusal,
  publish,
  type Records,
  UnavailableError,
  UnknownOutcomeError,
} from '../nats/records.ts'
import { type Kind, partitionOf } from '../nats/subjects.ts'
import type { Decide, Decision, Input, SidePut } from './decide.ts'
import type { Log } from './log.ts'
import { headersOf } from './pending-index.ts'
import { performPuts } from './side-puts.ts'

/** Something for an actor to decide. `due`: its stored deadlines that have passed. */
export interface Item {
  input: Input | { type: 'due' }
  /** Not worth doing after this, by performance.now(). */
  endsAt: number
  /** Called at most once. Nothing is answered when another host has to. */
  answer?: (reply: Reply) => void
  /** Called once when the item is through, answered or not. */
  settled?: () => void
}

/** One commit: the record as written (undefined: deleted) and what led to it. */
export interface Committed {
  kind: Kind
  id: string
  record: ActorRecord | undefined
  revision: number
  transitions: NonNullable<Decision['transition']>[]
}

/** One attempt to store a record: what led to it, how it went, how long it took. */
export interface Put {
  kind: Kind
  /** Events of the transitions it carries. */
  events: string[]
  outcome: 'stored' | 'conflict' | 'failed'
  ms: number
}

export interface MailboxDeps {
  nc: NatsConnection
  records: Records
  decide: Decide
  log: Log
  /** Wall clock, ms; deadlines are stored in it. */
  now: () => number
  /** Whether this host may work on the partition and answer without a write. */
  mayWork: (partition: number) => boolean
  /** Called after a load or commit, before anybody is answered. */
  known: (kind: Kind, id: string, record: ActorRecord | undefined) => void
  committed: (committed: Committed) => void
  /** Told of every attempt to store a record. */
  put?: ((put: Put) => void) | undefined
  /** Effects of this actor that were acknowledged and are still in its record. */
  acknowledged: (kind: Kind, id: string) => number[]
  /** The answer to an effect; undefined when it will not be known here. */
  outcome: (kind: Kind, id: string, sequence: number, endsAt: number) => Promise<Reply | undefined>
  /** One put for all that queued up; off only to measure what it brings. */
  batching: boolean
  /** Records kept in memory. */
  cacheMax: number
  /** Told where things stand; tests stop the process there. */
  step?: ((step: 'decided' | 'written' | 'committed', actor: string) => void) | undefined
}

export interface Mailboxes {
  /** Queues an item; one too many is refused at once. */
  add(kind: Kind, id: string, item: Item): void
  /** A revision seen in the bucket: a cached record older than that was written by another. */
  seen(kind: Kind, id: string, revision: number): void
  /** What is cached of these partitions may be old. */
  forget(partitions?: Set<number>): void
  /** The next input of this actor finds its record as it is in the bucket. */
  forgetOne(kind: Kind, id: string): void
  /** Resolves when nothing is queued or under way in these partitions. */
  idle(partitions: Set<number>): Promise<void>
  /** Actors in memory and items waiting, for statistics. */
  size(): { actors: number; items: number }
}

/** Most items that may wait for one actor, and most that one commit takes. */
export const QUEUE_MAX = 1_024
export const BATCH_MAX = 256

interface Cell {
  kind: Kind
  id: string
  partition: number
  queue: Item[]
  running: boolean
  loaded: boolean
  record: ActorRecord | undefined
  revision: number
  /** Highest revision that the bucket has told. */
  seen: number
}

export function createMailboxes(deps: MailboxDeps): Mailboxes {
  const { nc, records, decide, log, now, mayWork } = deps
  const cells = new Map<string, Cell>()
  let idleWaiters: (() => void)[] = []

  const cellOf = (kind: Kind, id: string): Cell => {
    const name = `${kind}.${id}`
    let cell = cells.get(name)
    if (cell) cells.delete(name)
    else {
      const partition = partitionOf(id)
      cell = { kind, id, partition, queue: [], running: false, loaded: false, record: undefined, revision: 0, seen: 0 }
    }
    cells.set(name, cell)
    if (cells.size > deps.cacheMax) evict()
    return cell
  }

  /** Drops the records that were used least recently and are at rest. */
  const evict = () => {
    let surplus = cells.size - deps.cacheMax
    for (const [name, cell] of cells) {
      if (surplus <= 0) return
      if (cell.running) continue
      cells.delete(name)
      surplus -= 1
    }
  }

  const run = async (cell: Cell) => {
    while (cell.queue.length > 0) {
      const batch = cell.queue.splice(0, deps.batching ? BATCH_MAX : 1)
      try {
        await settle(cell, batch)
      } catch (error) {
        cell.loaded = false
        log.error({ err: error, kind: cell.kind, id: cell.id }, 'a batch of inputs failed')
        for (const item of batch) item.answer?.({ error: rejection('InternalError') })
      }
      for (const item of batch) item.settled?.()
    }
    cell.running = false
    const waiting = idleWaiters
    idleWaiters = []
    for (const wake of waiting) wake()
  }

  /** Carries a batch through; leaves out what is past its time, and everything once another host owns the actor. */
  const settle = async (cell: Cell, batch: Item[]): Promise<void> => {
    for (let attempt = 0; ; attempt++) {
      if (attempt > 0) await pause(attempt)
      const items = batch.filter(({ endsAt }) => endsAt > performance.now())
      if (items.length === 0 || !mayWork(cell.partition)) return
      try {
        // Seen while an earlier batch was under way that wrote nothing: somebody else's write.
        if (!cell.loaded || cell.seen > cell.revision) await load(cell)
        const plan = decideAll(cell, items)
        deps.step?.('decided', `${cell.kind}.${cell.id}`)
        if (plan.puts.length > 0) await performPuts(records, plan.puts)
        deps.step?.('written', `${cell.kind}.${cell.id}`)
        if (plan.record !== cell.record) await commit(cell, plan)
        else if (!mayWork(cell.partition)) return
        answerAll(cell, plan)
        return
      } catch (error) {
        cell.loaded = false
        if (again(error)) continue
        if (!(error instanceof JetStreamRefusal)) throw error
        if (items.length > 1) {
          for (const item of items) await settle(cell, [item])
          return
        }
        log.error({ err: error, kind: cell.kind, id: cell.id }, 'a record cannot be stored')
        const reply = { error: rejection('ServiceUnavailableError', `It cannot be stored: ${error.message}`) }
        for (const item of items) item.answer?.(reply)
        return
      }
    }
  }

  const load = async (cell: Cell) => {
    const told = cell.seen
    const { value, revision } = await records.look(cell.kind, cell.id)
    // What had been told before is in this answer, also when its mark has expired since.
    if (cell.seen === told) cell.seen = revision
    cell.record = value as ActorRecord | undefined
    cell.revision = revision
    date(cell)
    cell.loaded = true
    deps.known(cell.kind, cell.id, cell.record)
  }

  const decideAll = (cell: Cell, items: Item[]): Plan => {
    const { kind, id } = cell
    const at = now()
    const plan: Plan = { record: cell.record, puts: [], transitions: [], answers: [] }
    const take = (input: Input): Decision => {
      const decision = decide(kind, id, plan.record, input, at)
      if (decision.fault !== undefined) {
        log.error({ err: decision.fault, kind, id, input: input.type }, 'a decision failed: this is a bug')
      }
      plan.record = decision.record
      plan.puts.push(...decision.puts)
      if (decision.transition) plan.transitions.push(decision.transition)
      return decision
    }
    for (const item of items) {
      if (item.input.type !== 'due') {
        plan.answers.push({ item, decision: take(item.input) })
        continue
      }
      const due = Object.entries(plan.record?.timers ?? {}).filter(([, timer]) => timer.at <= at)
      due.sort(([, a], [, b]) => a.at - b.at)
      for (const [name, timer] of due) take({ type: 'timer', name, at: timer.at })
    }
    // Acknowledged effects leave with a commit that happens anyway.
    if (plan.record && plan.record !== cell.record) {
      const sequences = deps.acknowledged(kind, id)
      if (sequences.length > 0) take({ type: 'sent', sequences })
    }
    return plan
  }

  const commit = async (cell: Cell, plan: Plan) => {
    const { kind, id, revision: expected } = cell
    const { record, transitions } = plan
    const begun = performance.now()
    const tell = (outcome: Put['outcome']) =>
      deps.put?.({ kind, events: transitions.map(({ event }) => event), outcome, ms: performance.now() - begun })
    const revision = await publish(nc, {
      bucket: kind,
      key: id,
      bytes: encode(record),
      expected,
      head: record ? headersOf(record) : DELETION,
      timeoutMs: commitTimeoutMs,
    }).catch(error => {
      tell(error instanceof ConflictError ? 'conflict' : 'failed')
      throw error
    })
    tell('stored')
    deps.step?.('committed', `${kind}.${id}`)
    cell.record = record
    cell.revision = revision
    date(cell)
    if (cell.seen > revision) cell.loaded = false
    deps.known(kind, id, record)
    deps.committed({ kind, id, record, revision, transitions })
  }

  const answerAll = (cell: Cell, plan: Plan) => {
    for (const { item, decision } of plan.answers) {
      const { reply, waitFor } = decision
      if (!item.answer || !reply) continue
      if (waitFor.length === 0 || 'error' in reply) item.answer(reply)
      else answerAfter(cell, item, reply, waitFor).catch(error => log.error({ err: error }, 'an answer failed'))
    }
  }

  /** The caller hears yes when those who must know have said yes. */
  const answerAfter = async (cell: Cell, item: Item, reply: Reply, waitFor: number[]) => {
    const outcomes = await Promise.all(waitFor.map(sequence => deps.outcome(cell.kind, cell.id, sequence, item.endsAt)))
    if (outcomes.some(outcome => outcome === undefined)) return
    const refused = outcomes.find(outcome => outcome && 'error' in outcome)
    item.answer?.(refused ?? reply)
  }

  return {
    add: (kind, id, item) => {
      const cell = cellOf(kind, id)
      if (cell.queue.length >= QUEUE_MAX) {
        item.answer?.({ error: rejection('ServiceUnavailableError', 'Too many commands wait for this actor') })
        item.settled?.()
        return
      }
      cell.queue.push(item)
      if (cell.running) return
      cell.running = true
      run(cell).catch(error => log.error({ err: error, kind, id }, 'a mailbox failed'))
    },
    seen: (kind, id, revision) => {
      const cell = cells.get(`${kind}.${id}`)
      if (!cell) return
      cell.seen = Math.max(cell.seen, revision)
      // While a commit is under way the revision may be its own: it looks for itself afterwards.
      if (!cell.running && revision > cell.revision) cell.loaded = false
    },
    forget: partitions => {
      for (const cell of cells.values()) if (!partitions || partitions.has(cell.partition)) cell.loaded = false
    },
    forgetOne: (kind, id) => {
      const cell = cells.get(`${kind}.${id}`)
      if (cell && !cell.running) cell.loaded = false
    },
    idle: async partitions => {
      const busy = () => [...cells.values()].some(cell => cell.running && partitions.has(cell.partition))
      while (busy()) await new Promise<void>(resolve => idleWaiters.push(resolve))
    },
    size: () => {
      let items = 0
      for (const cell of cells.values()) items += cell.queue.length
      return { actors: cells.size, items }
    },
  }
}

interface Plan {
  record: ActorRecord | undefined
  puts: SidePut[]
  transitions: NonNullable<Decision['transition']>[]
  answers: { item: Item; decision: Decision }[]
}

/**
 * Notes in memory with which revision the newest transitions came. The next commit stores it, so that whoever reads the record later can tell
 * what happened after a revision that he has seen.
 */
function date({ record, revision }: Cell): void {
  for (let at = (record?.recent.length ?? 0) - 1; at >= 0; at--) {
    const transition = record!.recent[at]!
    if (transition.revision !== undefined) return
    transition.revision = revision
  }
}

/** No PubAck within this time means unknown. */
const commitTimeoutMs = 2_000

const again = (error: unknown) =>
  error instanceof ConflictError || error instanceof UnknownOutcomeError || error instanceof UnavailableError

const pause = (attempt: number) =>
  new Promise(resolve => setTimeout(resolve, Math.min(500, 2 ** attempt) * (0.5 + Math.random())))
