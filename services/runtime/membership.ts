/**
 * Which partitions this host works on. Every host keeps a lease (2 s, renewed each 0.5 s) that says whether it is live and which
 * hosts it divides the partitions among; a partition is free for its new owner once no other lease claims it. So a planned change
 * hands over without a gap or two owners, and a dead host's claims end with its lease. The lease decides who tries; the revision decides who wins.
 */
import { key } from '../nats/buckets.ts'
import type { NatsConnection } from '../nats/connect.ts'
import { follow } from '../nats/follow.ts'
import { decode, encode } from '../nats/json.ts'
import { publish } from '../nats/records.ts'
import type { Log } from './log.ts'
import { everyPartition, ownerOf, partitionsOf } from './rendezvous.ts'

export const LEASE_TTL_MS = 2_000
export const LEASE_RENEW_MS = 500
/** An owner whose lease is older answers nothing: another may have taken over. */
export const LEASE_GUARD_MS = 0.7 * LEASE_TTL_MS
/** A pause of the process longer than this may have hidden a take-over. */
export const PAUSE_MS = 1_000
const releaseLimitMs = 3_000

/** Value of `lease/<host>`. `joining` claims nothing; `leaving` keeps its claims until the others have taken over. */
export interface Lease {
  state: 'joining' | 'live' | 'leaving'
  /** Hosts that the partitions are divided among, as this host acts on it. */
  view: string[]
  at: string
}

export interface MembershipHooks {
  /** Listen to these partitions; resolves when the server knows. */
  subscribe(partitions: Set<number>): Promise<void>
  /** Stop listening to them and finish what is being decided; resolves when nothing is. */
  release(partitions: Set<number>): Promise<void>
  /** Others go on with them now: resolves when callers that still wait for effects have been answered or given up. */
  released(partitions: Set<number>): Promise<void>
  /** These are ours alone from now on. `fresh`: since a take-over, a lapse or a pause. */
  took(partitions: Set<number>): void
  /** Our lease lapsed or the process paused: whatever is cached may be old. */
  lapsed(): void
}

export interface Membership {
  /** Takes part; resolves when this host is live. */
  join(): Promise<void>
  /** Hands everything over; resolves when the others have it. */
  leave(): Promise<void>
  /** Gives up at once and answers nothing more, as after a crash: the lease runs out by itself. */
  abandon(): void
  /** Whether the lease is young enough to answer without a write. */
  fresh(): boolean
  /** Whether this host alone works on the partition now. */
  owns(partition: number): boolean
  /** Whether the partition is ours but another host has not let go of it yet. */
  awaits(partition: number): boolean
  owned(): Set<number>
  hosts(): string[]
}

export function createMembership(nc: NatsConnection, host: string, hooks: MembershipHooks, log: Log): Membership {
  const others = new Map<string, Lease>()
  let state: 'out' | Lease['state'] = 'out'
  let view: string[] = []
  let renewedAt = Number.NEGATIVE_INFINITY
  let mine = new Set<number>()
  let free = new Set<number>()
  /** The view of our own lease as the bucket told it: what it claims, others can know. */
  let told: string[] = []
  let changing: Promise<void> = Promise.resolve()
  let settled = false
  let failing = false

  const now = () => performance.now()
  const fresh = () => now() - renewedAt < LEASE_GUARD_MS

  const follower = follow({
    nc,
    bucket: 'lease',
    onReset: () => {
      settled = false
      others.clear()
      told = []
    },
    onCaughtUp: () => {
      settled = true
      reconsider()
    },
    onChange: change => {
      const lease = change.gone ? undefined : (decode(change.bytes) as Lease)
      if (change.key === host) told = lease && lease.state !== 'joining' ? lease.view : []
      else if (lease) others.set(change.key, lease)
      else others.delete(change.key)
      if (settled) reconsider()
    },
    warn: (problem, error) => log.warn({ err: error }, problem),
  })

  const live = () =>
    [...others]
      .filter(([, lease]) => lease.state === 'live')
      .map(([name]) => name)
      .concat(state === 'live' ? [host] : [])
      .sort()

  /**
   * What is ours and was free already, or is claimed by nobody else: a holder goes on until it lets go by itself. Of two who claim at
   * once only one finds no other claim when it is told its own: leases are told to all in one order.
   */
  const settle = () => {
    if (state !== 'live' && state !== 'leaving') return
    const claims = [...others].filter(([, lease]) => lease.state !== 'joining')
    const claimed = (p: number) => claims.some(([name, lease]) => ownerOf(p, lease.view) === name)
    const before = free
    // While leases are being told anew, claims are not all known.
    const known = (p: number) => settled && ownerOf(p, told) === host
    free = new Set([...mine].filter(p => before.has(p) || (known(p) && !claimed(p))))
    const taken = new Set([...free].filter(p => !before.has(p)))
    if (taken.size > 0) hooks.took(taken)
  }

  const reconsider = () => {
    settle()
    if (state !== 'live') return
    if (same(view, live())) return
    changing = changing.then(adopt).catch(error => log.error({ err: error }, 'the change of hosts failed'))
  }

  /** Acts on the hosts that are live now: takes what is new, lets go of what is another's, then says so. */
  const adopt = async () => {
    const target = live()
    if (state !== 'live' || !settled || same(view, target)) return
    const next = partitionsOf(host, target)
    const gained = minus(next, mine)
    const lost = minus(mine, next)
    await hooks.subscribe(gained)
    if (lost.size > 0) await hooks.release(lost)
    if (state !== 'live') return
    view = target
    mine = next
    settle()
    log.info({ hosts: target, partitions: next.size }, 'partitions are divided anew')
    await renew()
    hooks.released(lost).catch(error => log.error({ err: error }, 'letting go failed'))
  }

  const renew = async () => {
    if (state === 'out') return
    const startedAt = now()
    const lease: Lease = { state, view, at: new Date().toISOString() }
    try {
      await publish(nc, {
        bucket: 'lease',
        key: key.lease(host),
        bytes: encode(lease),
        expected: undefined,
        head: { 'Nats-TTL': `${LEASE_TTL_MS / 1000}s` },
        timeoutMs: LEASE_RENEW_MS * 2,
      })
      renewedAt = Math.max(renewedAt, startedAt)
      failing = false
    } catch (error) {
      if (!failing) log.warn({ problem: (error as Error).message }, 'the lease cannot be renewed')
      failing = true
    }
  }

  /** Comes in, or back after a lapse: claims nothing until it listens to what will be its own. */
  const enter = async () => {
    state = 'joining'
    view = []
    mine = new Set()
    free = new Set()
    while (state === 'joining') {
      await renew()
      if (settled && fresh()) break
      await new Promise(resolve => setTimeout(resolve, 100))
    }
    if (state !== 'joining') return
    const target = [...live(), host].sort()
    const next = partitionsOf(host, target)
    await hooks.subscribe(next)
    // What was ours before a lapse and is another's now.
    await hooks.release(minus(everyPartition, next))
    if (state !== 'joining') return
    state = 'live'
    view = target
    mine = next
    await renew()
    reconsider()
    // A stranger's claim may hold some back for longer; what is nobody's is ours when our own claim has been told.
    for (const end = now() + LEASE_TTL_MS; state === 'live' && !same(told, view) && now() < end; ) {
      await follower.moved(50)
    }
  }

  let tickedAt = now()
  const tick = () => {
    const pausedMs = now() - tickedAt - LEASE_RENEW_MS
    tickedAt = now()
    if (state === 'out') return
    if (state === 'live' && !fresh()) {
      log.warn({ leaseAgeMs: Math.round(now() - renewedAt) }, 'the lease lapsed: joining again')
      state = 'joining'
      // A renewal that was under way may yet be acknowledged: what was ours is ours no more.
      mine = new Set()
      free = new Set()
      hooks.lapsed()
      changing = changing.then(enter).catch(error => log.error({ err: error }, 'joining again failed'))
      return
    }
    if (pausedMs > PAUSE_MS) hooks.lapsed()
    renew().catch(() => {})
  }
  let ticking: NodeJS.Timeout | undefined

  const end = () => {
    state = 'out'
    clearInterval(ticking)
    follower.close()
    mine = new Set()
    free = new Set()
  }

  return {
    join: async () => {
      await follower.ready
      ticking = setInterval(tick, LEASE_RENEW_MS)
      tickedAt = now()
      await enter()
    },
    leave: async () => {
      if (state === 'out') return
      await changing
      const wasLive = state === 'live'
      state = 'leaving'
      await renew()
      const taken = () => [...others.values()].every(lease => lease.state !== 'live' || !lease.view.includes(host))
      for (const end = now() + releaseLimitMs; wasLive && !taken() && now() < end; ) await follower.moved(50)
      const all = mine
      await hooks.release(all)
      mine = new Set()
      free = new Set()
      const bytes = new Uint8Array(0)
      const head = { 'KV-Operation': 'DEL', 'Nats-TTL': '10s' }
      await publish(nc, {
        bucket: 'lease',
        key: key.lease(host),
        bytes,
        expected: undefined,
        head,
        timeoutMs: 1_000,
      }).catch(error => log.warn({ err: error }, 'the lease could not be given back'))
      await hooks.released(all)
      end()
    },
    abandon: end,
    fresh,
    owns: partition => free.has(partition) && fresh(),
    awaits: partition => mine.has(partition) && !free.has(partition),
    owned: () => free,
    hosts: () => view,
  }
}

const same = (a: string[], b: string[]) => a.length === b.length && a.every((name, at) => name === b[at])
const minus = (a: ReadonlySet<number>, b: ReadonlySet<number>) => new Set([...a].filter(p => !b.has(p)))
