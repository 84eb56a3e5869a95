/**
 * Queues and tickets for tests of the route table: the real machine on a fleet in memory with a manual clock, so that the routes meet
 * what an actor would answer. Waits pass a thousand times as fast as the routes ask for.
 */
import type { ActorRecord } from '../actors/contract/record.ts'
import type { Backend, Outcome, Queue, QueueChange, StoredTicket } from '../gateway/backend.ts'
import { projectQueue } from '../gateway/projections.ts'
import { type Fleet, makeFleet } from './unit/fleet.ts'

export interface FakeWaitlist extends Pick<Backend, 'queues' | 'tickets'> {
  fleet: Fleet
  command(
    id: string,
    verb: string,
    params: Record<string, unknown>,
    key?: { value: string; fingerprint: string },
  ): Outcome<unknown>
  /** Moves the clock; expired tickets leave their queues. */
  advance(ms: number): void
  /** Runs after every leader read: something that happens between two of them. */
  meanwhile: (() => void) | undefined
  /** Waits under way, and those that were given up. */
  waiting(): number
  watching(): number
}

/** `fail` throws when the backend is to be broken. */
export function fakeWaitlist(fail: () => void): FakeWaitlist {
  const fleet = makeFleet()
  const revisions = new Map<string, number>()
  const deleted = new Set<string>()
  const waits = new Set<() => void>()
  let revision = 0
  const watchers = new Set<(key: string, change: QueueChange) => void>()
  const queueOf = (key: string) => projectQueue(fleet.records.get(`waitlist.${key}`))
  const queues = () =>
    [...fleet.records.values()].flatMap(record => (record.kind === 'waitlist' ? [projectQueue(record)!] : []))
  const changed = () => {
    for (const [name, record] of fleet.records) {
      if (record === seen.get(name)) continue
      seen.set(name, record)
      revision += 1
      revisions.set(name, revision)
      const key = name.slice('waitlist.'.length)
      for (const told of watchers) told(key, { queue: queueOf(key), revision })
    }
    for (const look of waits) look()
  }
  const seen = new Map<string, ActorRecord>()
  const read = async <T>(value: () => T): Promise<T> => {
    fail()
    const answer = value()
    fake.meanwhile?.()
    return answer
  }

  const fake: FakeWaitlist = {
    fleet,
    meanwhile: undefined,
    waiting: () => waits.size,
    watching: () => watchers.size,
    command: (id, verb, params, key) => {
      fleet.now += 1
      const before = new Set(fleet.tickets.keys())
      const reply = fleet.command('waitlist', id, verb, params, key ? { key } : {})
      for (const uuid of before) if (!fleet.tickets.has(uuid)) deleted.add(uuid)
      changed()
      return reply as Outcome<unknown>
    },
    advance: ms => {
      fleet.advance(ms)
      changed()
    },
    queues: {
      barrier: async () => fail(),
      of: serverUuid => queues().filter(({ server_uuid }) => server_uuid === serverUuid),
      load: key =>
        read(() => {
          const queue = queueOf(key)
          return queue && { queue, revision: revisions.get(`waitlist.${key}`) ?? 0 }
        }),
      until: (key, wanted, { deadlineMs, signal }) =>
        new Promise<Queue | undefined>(resolve => {
          const finish = (queue: Queue | undefined) => {
            waits.delete(look)
            clearTimeout(timer)
            resolve(queue)
          }
          const look = () => {
            const queue = queueOf(key)
            if (queue && wanted(queue)) finish(queue)
          }
          const timer = setTimeout(() => finish(undefined), deadlineMs / 1000)
          signal?.addEventListener('abort', () => finish(undefined))
          waits.add(look)
          look()
        }),
      watch: (key, told) => {
        const watcher = (at: string, change: QueueChange) => {
          if (at === key) told(change)
        }
        watchers.add(watcher)
        return () => watchers.delete(watcher)
      },
    },
    tickets: {
      barrier: async () => fail(),
      get: uuid => fleet.tickets.get(uuid),
      of: serverUuid =>
        [...fleet.tickets.values()]
          .filter(({ server_uuid }) => server_uuid === serverUuid)
          .map(
            (body): StoredTicket => ({
              uuid: body.uuid,
              ended: body.status !== 'queued',
              createdAt: Date.parse(body.created_at),
              body: () => body,
            }),
          ),
      look: uuid =>
        read(() => ({ body: fleet.tickets.get(uuid), known: fleet.tickets.has(uuid) || deleted.has(uuid) })),
    },
  }
  return fake
}
