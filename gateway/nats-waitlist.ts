/** Queues and tickets of the waitlist over NATS: views by server, one watch for all who wait, leader reads that callers share. */
import type { TicketBody } from '../actors/contract/ticket.ts'
import { key as keyOf } from '../services/nats/buckets.ts'
import type { NatsConnection } from '../services/nats/connect.ts'
import type { Records } from '../services/nats/records.ts'
import { openView, type View } from '../services/nats/view.ts'
import { openWaits } from '../services/nats/waits.ts'
import type { Backend, QueueChange, StoredTicket } from './backend.ts'
import { type KeptTicket, projectQueue, projectTicket } from './projections.ts'

export interface NatsWaitlist extends Pick<Backend, 'queues' | 'tickets'> {
  /** Queues that are waited for. */
  waiting: () => ReturnType<Backend['waiting']>['queues']
  close(): void
}

export async function openWaitlist(
  nc: NatsConnection,
  records: Records,
  warn: (problem: string, error: unknown) => void,
): Promise<NatsWaitlist> {
  // A month of ended tickets takes a while to read. Only lists wait for it: everything else reads single tickets from the leader.
  const tickets = openView({ nc, bucket: 'ticket', project: (_, value) => projectTicket(value), warn }).then(view => {
    filled = { view, of: indexByServer(view) }
    return view
  })
  let filled: { view: View<KeptTicket>; of: (serverUuid: string) => [string, KeptTicket][] } | undefined
  const queues = await openView({ nc, bucket: 'waitlist', project: (_, value) => projectQueue(value), warn })
  const queuesOf = indexByServer(queues)
  const waits = openWaits(nc, 'waitlist')
  const watchers = new Map<string, Set<(change: QueueChange) => void>>()
  queues.onChange(({ key, value, revision }) => {
    for (const told of watchers.get(key) ?? []) told({ queue: value, revision })
  })

  return {
    queues: {
      barrier: () => queues.barrier(),
      of: serverUuid => queuesOf(serverUuid).map(([, queue]) => queue),
      load: shared(async key => {
        const entry = await records.get('waitlist', key)
        const queue = entry && projectQueue(entry.value)
        return queue && { queue, revision: entry.revision }
      }),
      until: async (key, wanted, { deadlineMs, signal }) => {
        const satisfies = (value: unknown) => {
          const queue = projectQueue(value)
          return queue !== undefined && wanted(queue)
        }
        return projectQueue(await waits.until(key, satisfies, { deadlineMs, ...(signal ? { signal } : {}) }))
      },
      watch: (key, told) => {
        const there = watchers.get(key) ?? new Set()
        watchers.set(key, there.add(told))
        return () => {
          there.delete(told)
          if (there.size === 0 && watchers.get(key) === there) watchers.delete(key)
        }
      },
    },
    tickets: {
      barrier: async () => (await tickets).barrier(),
      get: uuid => bodyOf(filled?.view.get(uuid)),
      of: serverUuid => (filled?.of(serverUuid) ?? []).map(([uuid, kept]) => stored(uuid, kept)),
      look: async uuid => {
        const { value, revision } = await records.look('ticket', keyOf.ticket(uuid))
        return { body: value as TicketBody | undefined, known: revision > 0 }
      },
    },
    waiting: () =>
      waits.waiting().flatMap(({ key, waiters }) => {
        const queue = queues.get(key)
        if (!queue) return []
        const { server_uuid, scope, id } = queue
        return [{ server_uuid, scope, id, waiters }]
      }),
    close: () => {
      waits.close()
      queues.close()
      tickets.then(view => view.close()).catch(() => {})
    },
  }
}

const stored = (uuid: string, kept: KeptTicket): StoredTicket => ({
  uuid,
  ended: kept.ended,
  createdAt: kept.createdAt,
  body: () => JSON.parse(kept.text) as TicketBody,
})

const bodyOf = (kept: KeptTicket | undefined) => kept && (JSON.parse(kept.text) as TicketBody)

/** Entries of a view by their server: a list of one server may not cost a walk over all. */
function indexByServer<T extends { server_uuid: string }>(view: View<T>) {
  const keys = new Map<string, Set<string>>()
  const serverOf = new Map<string, string>()
  const put = (key: string, server: string | undefined) => {
    const before = serverOf.get(key)
    if (before === server) return
    if (before !== undefined) {
      const there = keys.get(before)
      there?.delete(key)
      if (there?.size === 0) keys.delete(before)
      serverOf.delete(key)
    }
    if (server === undefined) return
    keys.set(server, (keys.get(server) ?? new Set()).add(key))
    serverOf.set(key, server)
  }
  for (const [key, value] of view.entries()) put(key, value.server_uuid)
  view.onChange(({ key, value }) => put(key, value?.server_uuid))
  return (serverUuid: string): [string, T][] =>
    [...(keys.get(serverUuid) ?? [])].flatMap(key => {
      const value = view.get(key)
      return value ? [[key, value] as [string, T]] : []
    })
}

/** One read for all who asked for the same key before it was sent; who asks later gets the next. */
function shared<T>(read: (key: string) => Promise<T>): (key: string) => Promise<T> {
  const asked = new Map<string, Promise<T>>()
  const underWay = new Map<string, Promise<unknown>>()
  const ask = (key: string) => {
    const reading = (underWay.get(key) ?? Promise.resolve()).then(() => {
      asked.delete(key)
      const answer = read(key)
      const over: Promise<unknown> = answer
        .catch(() => {})
        .then(() => {
          if (underWay.get(key) === over) underWay.delete(key)
        })
      underWay.set(key, over)
      return answer
    })
    asked.set(key, reading)
    return reading
  }
  return key => asked.get(key) ?? ask(key)
}
