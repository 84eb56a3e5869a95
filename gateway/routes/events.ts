/** Everything that happens, as it is committed: one stream of server-sent events over all kinds of actors. */
import * as v from 'valibot'
import { rejection } from '../../actors/contract/errors.ts'
import { Uuid } from '../../actors/contract/ids.ts'
import type { FeedChange } from '../../services/nats/feed.ts'
import { createEvents, EVENT_BUCKETS, type EventBucket, idOf, parseId } from '../change-events.ts'
import { EVENT_STREAM_TYPE, eventStream } from '../event-stream.ts'
import { type AnyRow, row } from '../row.ts'

const id = v.pipe(Uuid, v.toLowerCase())
const kindsMessage = `value is not a comma list of ${EVENT_BUCKETS.join(', ')}`
const kinds = v.pipe(
  v.string('value was not a string'),
  v.transform(text => text.split(',')),
  v.array(v.picklist(EVENT_BUCKETS, kindsMessage)),
)
const hostname = v.pipe(
  v.string('value was not a string'),
  v.minLength(1, 'value is empty'),
  v.maxLength(200, 'value is too long'),
  v.toLowerCase(),
)

/** Most readers of one gateway: each may have a MiB waiting for it. */
export const READERS_MAX = 1_000

export const eventRows: AnyRow[] = [
  row({
    method: 'GET',
    path: '/events',
    name: 'Events',
    summary:
      'Server-sent events of every committed change: transitions of servers (cn), VMs, hosts and queues (waitlist), steps of jobs, ends of tasks. Goes on after Last-Event-ID at any gateway; `gap` names a record of which transitions may be missing.',
    gate: 'G0',
    strict: true,
    params: {
      kind: v.optional(kinds),
      server: v.optional(id),
      vm: v.optional(id),
      host: v.optional(hostname),
    },
    success: { status: 200, description: 'A stream of events (text/event-stream)', body: v.string() },
    errors: [],
    types: [EVENT_STREAM_TYPE],
    handle: async ({ params, lastEventId, signal }, backend) => {
      if (backend.events.readers() >= READERS_MAX) {
        return { error: rejection('ServiceUnavailableError', 'This gateway has all the readers it can serve') }
      }
      const { kind, server, vm, host } = params
      const from = lastEventId === undefined ? undefined : parseId(lastEventId)
      // Changes may come before anybody takes them up; few, since nothing waits in between.
      const early: FeedChange<EventBucket>[] = []
      let told = (change: FeedChange<EventBucket>) => void early.push(change)
      let end = () => {}
      const reading = await backend.events.read(from, { told: change => told(change), ended: () => end() })
      signal().addEventListener('abort', reading.stop, { once: true })
      const place = { ...reading.from }
      const events = createEvents(place, { kinds: kind && new Set(kind), server, vm, host })
      const stream = eventStream(
        (tell, close) => {
          end = close
          const id = idOf(place)
          if (lastEventId !== undefined && (!from || reading.unknown.length > 0)) {
            tell({ id, event: 'gap', data: { reason: 'Last-Event-ID is no place in this history', from: id } })
          } else tell({ id, event: 'ready', data: { from: id } })
          told = change => {
            for (const event of events(change)) tell(event)
          }
          for (const change of early.splice(0)) told(change)
          return reading.stop
        },
        { place: () => idOf(place) },
      )
      return { status: 200, stream, type: EVENT_STREAM_TYPE, headers: { 'cache-control': 'no-store' } }
    },
  }),
]
