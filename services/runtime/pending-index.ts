/**
 * What is pending in every actor of the cluster, from the headers of its record alone: next deadline and unsent effects.
 * Actors with nothing pending take no memory here, so 200,000 idle ones are read in seconds and forgotten.
 */
import type { ActorRecord } from '../../actors/contract/record.ts'
import type { Bucket } from '../nats/buckets.ts'
import type { NatsConnection } from '../nats/connect.ts'
import { type Follower, follow } from '../nats/follow.ts'
import type { EntryHeaders } from '../nats/records.ts'
import { type Kind, partitionOf } from '../nats/subjects.ts'
import type { Log } from './log.ts'

export interface Pending {
  kind: Kind
  id: string
  revision: number
  /** Earliest stored deadline, ms since the epoch. */
  due: number | undefined
  outbox: boolean
}

/** What the headers of a record tell, also of actors owned elsewhere. */
export interface Told {
  kind: Kind
  id: string
  revision: number
  gone: boolean
  /** Whether effects wait to be performed. */
  outbox: boolean
  /** When it was stored, ms since the epoch by the server's clock. */
  at: number
  /** Server that a VM or host belongs to; '' when none. */
  server: string
  state: string
}

export interface PendingIndex {
  /** Everything pending in a partition. */
  in(partition: number): Iterable<Pending>
  get(kind: Kind, id: string): Pending | undefined
  /** A commit of our own, known before the bucket tells it. */
  committed(kind: Kind, id: string, record: ActorRecord | undefined, revision: number): void
  /** Called for every record whose deadline became known or changed. */
  onDue(listener: (pending: Pending) => void): void
  onTold(listener: (told: Told) => void): void
  ready: Promise<void>
  close(): void
}

export function createPendingIndex(nc: NatsConnection, kinds: readonly Kind[], log: Log): PendingIndex {
  const partitions = new Map<number, Map<string, Pending>>()
  const dueListeners: ((pending: Pending) => void)[] = []
  const toldListeners: ((told: Told) => void)[] = []

  const set = (pending: Pending) => {
    const name = nameOf(pending.kind, pending.id)
    const partition = partitionOf(pending.id)
    const there = partitions.get(partition) ?? new Map<string, Pending>()
    const before = there.get(name)
    if (before && before.revision > pending.revision) return
    if (pending.due === undefined && !pending.outbox) {
      there.delete(name)
      return
    }
    there.set(name, pending)
    partitions.set(partition, there)
    if (pending.due !== undefined && pending.due !== before?.due) for (const listener of dueListeners) listener(pending)
  }

  const followers: Follower[] = kinds.map(kind =>
    follow({
      nc,
      bucket: kind as Bucket,
      headersOnly: true,
      warn: (problem, error) => log.warn({ err: error, kind }, problem),
      onReset: () => {
        for (const there of partitions.values()) {
          for (const [name, pending] of there) if (pending.kind === kind) there.delete(name)
        }
      },
      onChange: ({ key: id, gone, revision, at, head }) => {
        const due = gone ? '' : head(HEADERS.due)
        const outbox = !gone && head(HEADERS.outbox) !== ''
        set({ kind, id, revision, due: due ? Number(due) : undefined, outbox })
        for (const listener of toldListeners) {
          listener({ kind, id, revision, gone, outbox, at, server: head(HEADERS.server), state: head(HEADERS.state) })
        }
      },
    }),
  )

  return {
    in: partition => partitions.get(partition)?.values() ?? [],
    get: (kind, id) => partitions.get(partitionOf(id))?.get(nameOf(kind, id)),
    committed: (kind, id, record, revision) =>
      set({ kind, id, revision, due: record && dueOf(record), outbox: (record?.outbox.length ?? 0) > 0 }),
    onDue: listener => dueListeners.push(listener),
    onTold: listener => toldListeners.push(listener),
    ready: Promise.all(followers.map(({ ready }) => ready)).then(() => {}),
    close: () => {
      for (const follower of followers) follower.close()
    },
  }
}

const HEADERS = { due: 'Due', outbox: 'Outbox', part: 'Part', server: 'Server', state: 'State' } as const

/** Headers written beside a record. */
export function headersOf(record: ActorRecord): EntryHeaders {
  const due = dueOf(record)
  const server = record.snapshot.context['server_uuid']
  return {
    [HEADERS.part]: String(partitionOf(record.id)),
    [HEADERS.state]: record.state,
    ...(due === undefined ? {} : { [HEADERS.due]: String(due) }),
    ...(record.outbox.length > 0 ? { [HEADERS.outbox]: String(record.outbox.length) } : {}),
    ...(typeof server === 'string' ? { [HEADERS.server]: server } : {}),
  }
}

function dueOf(record: ActorRecord): number | undefined {
  let due: number | undefined
  for (const { at } of Object.values(record.timers)) if (due === undefined || at < due) due = at
  return due
}

const nameOf = (kind: string, id: string) => `${kind}.${id}`
