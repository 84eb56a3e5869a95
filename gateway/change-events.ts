/**
 * Committed changes as events: each transition of an actor, each step of a job, and the end of each task. A reader's place, the event's id, is a revision for
 * each bucket, so it goes on at any gateway; what it missed is told from the records' last transitions, and where these do not reach back far
 * enough a `gap` says of which record.
 */
import type { JobRecord } from '../actors/contract/job.ts'
import type { ActorRecord } from '../actors/contract/record.ts'
import type { TaskRecord } from '../actors/contract/task.ts'
import type { FeedChange, Positions } from '../services/nats/feed.ts'
import type { StreamEvent } from './event-stream.ts'

/** Buckets of which changes are told; their order is that of the revisions in an event's id. */
export const EVENT_BUCKETS = ['cn', 'vm', 'host', 'waitlist', 'task', 'job'] as const
export type EventBucket = (typeof EVENT_BUCKETS)[number]
export type Place = Positions<EventBucket>

/** What a reader wants; absent: everything. All that are given must hold. */
export interface EventFilter {
  kinds?: ReadonlySet<string> | undefined
  server?: string | undefined
  vm?: string | undefined
  /** Lower case. */
  host?: string | undefined
}

/** Whom a change is about, as far as its record tells. */
interface About {
  server_uuid?: string | null
  vm_uuid?: string | null
  hostname?: string
}

/** A place as an event's id: `<cn>.<vm>.<host>.<waitlist>.<task>.<job>`. */
export const idOf = (place: Place): string => EVENT_BUCKETS.map(bucket => place[bucket]).join('.')

/** Reads an id; undefined for what is none of ours. */
export function parseId(id: string): Place | undefined {
  const revisions = id.split('.')
  if (revisions.length !== EVENT_BUCKETS.length || !revisions.every(text => /^\d{1,15}$/.test(text))) return undefined
  return Object.fromEntries(EVENT_BUCKETS.map((bucket, at) => [bucket, Number(revisions[at])])) as Place
}

/** Turns changes into events for one reader. `place` is where it stands, and moves with what it is told. */
export function createEvents(place: Place, filter: EventFilter) {
  return ({ bucket, key, value, revision }: FeedChange<EventBucket>): StreamEvent[] => {
    const seen = place[bucket]
    // Who stops within a change hears all of it again: its id still is the place before.
    const before = idOf(place)
    place[bucket] = revision
    const told = tellers[bucket]?.(key, value, revision) ?? transitionsOf(bucket, key, value, revision, seen)
    if (!isWanted(bucket, told.about, filter)) return []
    return told.events.map((event, at) => ({ id: at === told.events.length - 1 ? idOf(place) : before, ...event }))
  }
}

interface Told {
  about: About
  events: Omit<StreamEvent, 'id'>[]
}

function transitionsOf(kind: string, id: string, value: unknown, revision: number, seen: number): Told {
  if (value === undefined) {
    const about = kind === 'cn' ? { server_uuid: id } : kind === 'vm' ? { vm_uuid: id } : {}
    return { about, events: [{ event: kind, data: { kind, id, ...about, event: 'forgotten', revision } }] }
  }
  const { recent = [], snapshot, state, status } = value as ActorRecord
  const about = aboutOf(kind, id, snapshot?.context ?? {})
  const missed = recent.filter(transition => (transition.revision ?? revision) > seen)
  const [first] = missed
  // The record keeps its last transitions; where all of them are new, there may have been more.
  const mayLack = first !== undefined && missed.length === recent.length && first.count > 1
  const of = { kind, id, ...about }
  return {
    about,
    events: [
      ...(mayLack ? [{ event: 'gap', data: { ...of, before: first.count } }] : []),
      ...missed.map(transition => ({
        event: kind,
        data: {
          ...of,
          ...transition,
          revision: transition.revision ?? revision,
          ...(transition === recent.at(-1) ? { state, status } : {}),
        },
      })),
    ],
  }
}

function endOfTask(id: string, value: unknown, revision: number): Told {
  const { server_uuid, vm_uuid, task, status, req_id } = (value ?? {}) as Partial<TaskRecord>
  const about = { server_uuid: server_uuid ?? null, vm_uuid: vm_uuid ?? null }
  if (status !== 'complete' && status !== 'failure') return { about, events: [] }
  const data = { kind: 'task', id, ...about, event: 'ended', task, status, ...(req_id ? { req_id } : {}), revision }
  return { about, events: [{ event: 'task', data }] }
}

function stepOfJob(id: string, value: unknown, revision: number): Told {
  if (value === undefined) return { about: {}, events: [] }
  const { server_uuid, name, execution, chain_results = [] } = value as Partial<JobRecord>
  const about = { server_uuid: server_uuid ?? null, vm_uuid: null }
  const event = execution === 'running' ? 'step' : 'ended'
  const step = chain_results.at(-1)?.name ?? null
  return {
    about,
    events: [{ event: 'job', data: { kind: 'job', id, ...about, event, name, execution, step, revision } }],
  }
}

/** Records that are not actors'. */
const tellers: Partial<Record<EventBucket, (id: string, value: unknown, revision: number) => Told>> = {
  task: endOfTask,
  job: stepOfJob,
}

function aboutOf(kind: string, id: string, context: Record<string, unknown>): About {
  const text = (name: string) => {
    const value = context[name]
    return typeof value === 'string' ? value : null
  }
  switch (kind) {
    case 'cn':
      return { server_uuid: id }
    case 'vm':
      return { server_uuid: text('server_uuid'), vm_uuid: id }
    case 'host':
      return { server_uuid: text('server_uuid'), vm_uuid: text('vm_uuid'), hostname: text('hostname') ?? '' }
    default:
      return { server_uuid: text('server_uuid'), vm_uuid: context['scope'] === 'vm' ? text('id') : null }
  }
}

function isWanted(kind: string, about: About, { kinds, server, vm, host }: EventFilter): boolean {
  if (kinds && !kinds.has(kind)) return false
  if (server !== undefined && about.server_uuid !== server) return false
  if (vm !== undefined && about.vm_uuid !== vm) return false
  return host === undefined || about.hostname?.toLowerCase() === host
}
