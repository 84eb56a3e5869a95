/**
 * Follows a bucket: the last value of every key, then every change, in order. Built on an ordered push consumer in the server's memory.
 * A gap (missed message, silent server, reconnect) makes a new consumer that goes on after the last message seen; where values
 * can disappear without a mark (they expire), it starts over and says so.
 */
import { createInbox, type Msg, type Subscription } from 'nats'
import { api, codes, JetStreamRefusal } from './api.ts'
import { allKeys, BUCKETS, type Bucket, type BucketOptions, keyOfSubject, keySubject, streamOf } from './buckets.ts'
import { inboxPrefixOf, type NatsConnection } from './connect.ts'

/** One change. `value` is undefined when the key was deleted or expired; with `headersOnly` read `length` and `head` instead. */
export interface Change {
  key: string
  bytes: Uint8Array
  gone: boolean
  revision: number
  /** When the server stored it, ms since the epoch. */
  at: number
  head(name: string): string
}

export interface FollowOptions {
  nc: NatsConnection
  bucket: Bucket
  onChange: (change: Change) => void
  /** Everything told so far is void: all keys are told again. */
  onReset?: () => void
  /** A gap was closed (also the first time): what was missed has been told. */
  onCaughtUp?: () => void
  headersOnly?: boolean
  /** Changes from now on, without the values that are there. */
  updatesOnly?: boolean
  /** Changes after this revision, in order and also after an interruption; a key that changed several times is told once, as it is. */
  after?: number
  /** One key instead of all. */
  key?: string
  warn?: (problem: string, error: unknown) => void
}

export interface Follower {
  /** Resolves when everything that was there at the start has been told. */
  ready: Promise<void>
  /** Revision of the last change told. */
  position(): number
  /** Whether everything up to this revision has been told; asks the server when in doubt. */
  reached(revision: number): Promise<boolean>
  /** Resolves at the next change told or gap closed, at the latest after `withinMs`. */
  moved(withinMs: number): Promise<void>
  close(): void
}

const heartbeatMs = 2_000
const silenceMs = 3 * heartbeatMs
const ns = 1e6

/** Starts following. Never fails: without a server it goes on trying, and `ready` waits. */
export function follow(options: FollowOptions): Follower {
  const { nc, bucket, onChange, onReset, onCaughtUp, headersOnly = false, updatesOnly = false, warn } = options
  const stream = streamOf(bucket)
  const row: BucketOptions = BUCKETS[bucket]
  const resumable = options.after !== undefined || (!row.keyTtl && row.maxAgeMs === undefined)
  const filter = options.key ? keySubject(bucket, options.key) : allKeys(bucket)
  let closed = false
  let generation = 0
  let subscription: Subscription | undefined
  let consumer = ''
  let position = options.after ?? 0
  let delivered = 0
  let caughtUp = false
  let heardAt = performance.now()
  let failures = 0
  let waiters: (() => void)[] = []
  let markReady = () => {}
  const ready = new Promise<void>(resolve => {
    markReady = resolve
  })

  const wake = () => {
    const woken = waiters
    waiters = []
    for (const resolve of woken) resolve()
  }
  const catchUp = () => {
    if (caughtUp) return
    caughtUp = true
    failures = 0
    onCaughtUp?.()
    markReady()
    wake()
  }

  const start = async () => {
    generation += 1
    const own = generation
    subscription?.unsubscribe()
    caughtUp = false
    heardAt = performance.now()
    const inbox = createInbox(inboxPrefixOf(nc))
    delivered = 0
    consumer = `f${inbox.slice(inbox.lastIndexOf('.') + 1)}`
    const resume = options.after !== undefined || (position > 0 && resumable)
    if (position > 0 && !resume && !updatesOnly) onReset?.()
    subscription = nc.subscribe(inbox, {
      callback: (error, message) => {
        if (own !== generation || closed) return
        if (error) return restart('the subscription failed', error)
        take(message, own)
      },
    })
    const config = {
      name: consumer,
      deliver_subject: inbox,
      ack_policy: 'none',
      replay_policy: 'instant',
      filter_subject: filter,
      flow_control: true,
      idle_heartbeat: heartbeatMs * ns,
      inactive_threshold: 30_000 * ns,
      headers_only: headersOnly,
      mem_storage: true,
      num_replicas: 1,
      ...(resume
        ? { deliver_policy: 'by_start_sequence', opt_start_seq: position + 1 }
        : { deliver_policy: updatesOnly ? 'new' : 'last_per_subject' }),
    }
    try {
      const call = `CONSUMER.CREATE.${stream}.${consumer}.${filter}`
      const made = await api<{ num_pending: number; delivered?: { stream_seq: number } }>(nc, call, {
        stream_name: stream,
        config,
        action: 'create',
      })
      if (own !== generation || closed) return
      if (made.num_pending === 0 && delivered === 0) catchUp()
    } catch (error) {
      if (own === generation && !closed) restart('no consumer', error)
    }
  }

  const restart = (why: string, error?: unknown) => {
    if (closed) return
    failures += 1
    // Said once a fault, not at every attempt to mend it.
    if (failures === 1) warn?.(`following ${bucket} is interrupted: ${why}`, error)
    generation += 1
    subscription?.unsubscribe()
    caughtUp = false
    const own = generation
    // A stream that was made anew begins again at 1: what was told before is void.
    setTimeout(async () => {
      if (own !== generation || closed) return
      const behind = await lastSequence(nc, bucket).then(
        last => last < position,
        problem => problem instanceof JetStreamRefusal && problem.code === codes.noStream,
      )
      if (own !== generation || closed) return
      if (behind) {
        position = 0
        onReset?.()
      }
      await start()
    }, restartMs(failures))
  }

  const take = (message: Msg, own: number) => {
    heardAt = performance.now()
    if (message.headers?.code === 100) {
      if (message.reply) message.respond()
      const stalled = message.headers.get('Nats-Consumer-Stalled')
      if (stalled) nc.publish(stalled)
      const last = message.headers.get('Nats-Last-Consumer')
      if (last && Number(last) !== delivered) restart(`${Number(last) - delivered} messages were missed`)
      else if (last) catchUp()
      return
    }
    const told = parseReplySubject(message.reply ?? '')
    if (!told) return
    if (told.delivered !== delivered + 1) return restart(`message ${delivered + 1} is missing`)
    delivered = told.delivered
    const head = (name: string) => message.headers?.get(name) ?? ''
    const mark = head('KV-Operation')
    const key = keyOfSubject(bucket, message.subject)
    const gone = mark === 'DEL' || mark === 'PURGE' || head('Nats-Marker-Reason') !== ''
    try {
      onChange({ key, bytes: message.data, gone, revision: told.sequence, at: told.at, head })
    } catch (error) {
      // Thrown on, it would end the connection, again with every delivery: a person may have put anything there.
      warn?.(`${bucket}/${key} cannot be taken`, error)
    }
    if (own !== generation) return
    position = told.sequence
    if (told.pending === 0) catchUp()
    wake()
  }

  const watchdog = setInterval(() => {
    if (performance.now() - heardAt > silenceMs && !nc.isClosed()) {
      heardAt = performance.now()
      restart('the server is silent')
    }
  }, heartbeatMs)
  const status = nc.status()
  const watchStatus = async () => {
    for await (const event of status) {
      if (closed) return
      if (event.type === 'reconnect') restart('the connection was lost')
    }
  }
  watchStatus().catch(() => {})
  start().catch(error => restart('it did not start', error))

  return {
    ready,
    position: () => position,
    reached: async revision => {
      if (position >= revision) return true
      if (!caughtUp) return false
      const [own, had] = [generation, delivered]
      const info = await api<{ num_pending: number; delivered: { consumer_seq: number } }>(
        nc,
        `CONSUMER.INFO.${stream}.${consumer}`,
      ).catch(() => undefined)
      // Nothing is left to deliver and all that was delivered has been told: later revisions are not of these keys.
      return info !== undefined && own === generation && info.num_pending === 0 && info.delivered.consumer_seq <= had
    },
    moved: withinMs =>
      new Promise(resolve => {
        const timer = setTimeout(resolve, withinMs)
        waiters.push(() => {
          clearTimeout(timer)
          resolve()
        })
      }),
    close: () => {
      closed = true
      clearInterval(watchdog)
      subscription?.unsubscribe()
      wake()
      if (consumer && !nc.isClosed()) api(nc, `CONSUMER.DELETE.${stream}.${consumer}`).catch(() => {})
    },
  }
}

const restartMs = (failures: number) => Math.min(2_000, 125 * 2 ** failures)

/** Sequence of the last message of a bucket's stream, told by its leader: every write acknowledged before has a lower or this one. */
export async function lastSequence(nc: NatsConnection, bucket: Bucket): Promise<number> {
  const info = await api<{ state: { last_seq: number } }>(nc, `STREAM.INFO.${streamOf(bucket)}`)
  return info.state.last_seq
}

/** `$JS.ACK.[domain.account.]stream.consumer.deliveries.sequence.delivered.time.pending[.random]` */
function parseReplySubject(text: string) {
  const tokens = text.split('.')
  if (tokens[0] !== '$JS' || tokens[1] !== 'ACK' || tokens.length < 9) return undefined
  const from = tokens.length === 9 ? 4 : 6
  const [, sequence, delivered, time, pending] = tokens.slice(from)
  return {
    sequence: Number(sequence),
    delivered: Number(delivered),
    at: Math.floor(Number(time) / ns),
    pending: Number(pending),
  }
}
