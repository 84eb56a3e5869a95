/**
 * Tickets made and released in a second, on one queue and on a thousand, beside what the store could do in the same run; the time from a
 * release to the next waiter's answer through a gateway; and the size of a queue's record after a hundred thousand tickets.
 */
import { ACTORS } from '../actors/actors.ts'
import type { ActorRecord } from '../actors/contract/record.ts'
import { queueKey, randomIds } from '../gateway/ids.ts'
import { type Caller, createCaller } from '../services/nats/caller.ts'
import { encode } from '../services/nats/json.ts'
import { provision } from '../services/nats/provision.ts'
import { openRecords } from '../services/nats/records.ts'
import { createDecide } from '../services/runtime/decide.ts'
import { startGateway } from './gateways.ts'
import { hammer, latency } from './hammer.ts'
import { coverage, realHost, serving } from './hosts.ts'
import type { HttpClient } from './http.ts'
import { fill } from './load.ts'
import { rawCompareAndSet } from './raw.ts'
import { coresOf, type Scope } from './scope.ts'
import { serverUuid, vmEntry } from './seed.ts'
import { perSecond, type Row, shares, whole } from './table.ts'

const queues = 1_000
const rawBytes = 2_048
/** Share of the store's compare-and-set writes that cycles on many queues reach, and share of these that one queue reaches. */
const manyAim = 0.25
const oneAim = 0.2

export async function waitlist(scope: Scope): Promise<Row[]> {
  const forMs = scope.short ? 500 : 6_000
  const nats = await scope.nats({ servers: 3 })
  const nc = await scope.connect(nats)
  await provision(nc)
  await fill(nc, 'vm', coverage, n => vmEntry(n, 1))
  const host = realHost(scope, nats)
  await serving(nc, host)
  const caller = createCaller(nc, `bench-${process.pid}`)
  const raw = (prefix: string, inFlight: number) => {
    scope.say(`compare-and-set, the store alone, ${inFlight} in flight`)
    return rawCompareAndSet(nc, { prefix, keys: queues * 2, bytes: rawBytes, inFlight, forMs })
  }
  const groups = { host: [host.pid], nats: nats.pids(), client: [process.pid] }
  const cycles = async (clients: number, of: number) => {
    scope.say(`create and release, ${clients} clients on ${of} queues`)
    let turn = 0
    return coresOf(groups, () => hammer({ inFlight: clients, forMs, operation: () => cycle(caller, turn++ % of) }))
  }

  const before = await raw('before', 64)
  const [many, one] = [await cycles(64, queues), await cycles(64, 1)]
  const after = await raw('after', 64)
  const rawAlone = await raw('alone', 1)
  const [manyAlone, oneAlone] = [await cycles(1, queues), await cycles(1, 1)]
  const limit = (before.perSecond + after.perSecond) / 2
  const hot = encode((await openRecords(nc).get('waitlist', keyOf(0)))?.value).length

  const { client } = await startGateway(scope, nats, 4)
  scope.say('release to the next waiter')
  const handOvers = await handOver(caller, client, scope.short ? 20 : 300)
  scope.say('a queue of many tickets')
  const tickets = scope.short ? 5_000 : 100_000
  const bytes = recordBytes(tickets)

  const ofRaw = many.value.perSecond / limit
  const ofMany = one.value.perSecond / many.value.perSecond
  const detail = ({ value, cores }: typeof many) => `${latency(value)}; CPU ${shares(cores)}`
  return [
    { what: 'compare-and-set, the store alone, 64 in flight', figure: perSecond(limit), detail: latency(after) },
    {
      what: `create + release, 64 clients, ${whole(queues)} queues`,
      figure: perSecond(many.value.perSecond),
      aim: { text: `${ofRaw.toFixed(2)} of the store alone; aim ${manyAim}`, met: ofRaw >= manyAim },
      detail: detail(many),
    },
    {
      what: 'create + release, 64 clients, one queue',
      figure: perSecond(one.value.perSecond),
      aim: { text: `${ofMany.toFixed(2)} of ${whole(queues)} queues; aim ${oneAim}`, met: ofMany >= oneAim },
      detail: `${detail(one)}; record ${whole(hot)} B`,
    },
    {
      what: 'compare-and-set, the store alone, one at a time',
      figure: perSecond(rawAlone.perSecond),
      detail: latency(rawAlone),
    },
    ...(
      [
        [`create + release, one client, ${whole(queues)} queues`, manyAlone],
        ['create + release, one client, one queue', oneAlone],
      ] as const
    ).map(([what, measured]) => ({
      what,
      figure: perSecond(measured.value.perSecond),
      aim: { text: `${(measured.value.perSecond / rawAlone.perSecond).toFixed(2)} of the store alone` },
      detail: detail(measured),
    })),
    {
      what: 'release to the next waiter, by REST',
      figure: `${handOvers.p50.toFixed(1)} ms`,
      detail: `p99 ${handOvers.p99.toFixed(1)} ms; the release itself p50 ${handOvers.releaseP50.toFixed(1)} ms`,
    },
    { what: `record of a queue after ${whole(tickets)} tickets`, figure: `${whole(bytes)} B` },
  ]
}

const triple = (n: number) => ({ server_uuid: serverUuid(1), scope: 'bench', id: String(n) })
const keyOf = (n: number) => queueKey(triple(n))
const expires_at = '3000'

async function cycle(caller: Caller, n: number): Promise<void> {
  const ticket_uuid = await create(caller, n)
  const released = await caller.call('waitlist', keyOf(n), 'release', { ticket_uuid })
  if ('error' in released) throw new Error(`a release was refused: ${released.error.message}`)
}

async function create(caller: Caller, n: number): Promise<string> {
  const ticket_uuid = randomIds.ticket(keyOf(n))
  const made = await caller.call('waitlist', keyOf(n), 'create', { ticket_uuid, ...triple(n), expires_at })
  if ('error' in made) throw new Error(`a create was refused: ${made.error.message}`)
  return ticket_uuid
}

/** One holder and one waiter at a time: ms from sending the release to the answer of the wait. */
async function handOver(caller: Caller, client: HttpClient, rounds: number) {
  const [took, releases]: [number[], number[]] = [[], []]
  for (let n = 0; n < rounds; n++) {
    const [holder, waiter] = [await create(caller, n), await create(caller, n)]
    const waited = client.get(`/tickets/${waiter}/wait`).then(() => performance.now())
    await new Promise(resolve => setTimeout(resolve, registeredMs))
    const began = performance.now()
    await client.get(`/tickets/${holder}/release`)
    releases.push(performance.now() - began)
    took.push((await waited) - began)
    await client.get(`/tickets/${waiter}/release`)
  }
  const quantile = (times: number[], q: number) => times.sort((a, b) => a - b)[Math.floor(times.length * q)] ?? 0
  return { p50: quantile(took, 0.5), p99: quantile(took, 0.99), releaseP50: quantile(releases, 0.5) }
}

/** Enough for the gateway to have read the queue and to wait. */
const registeredMs = 25

/** What a queue's record comes to when that many tickets were made by two gateways and released, decided by the real machine without a store. */
function recordBytes(tickets: number): number {
  const decide = createDecide(ACTORS)
  const key = keyOf(0)
  let record: ActorRecord | undefined
  for (let n = 0; n < tickets; n++) {
    const ticket_uuid = randomIds.ticket(key)
    for (const [verb, params] of [
      ['create', { ticket_uuid, ...triple(0), expires_at }],
      ['release', { ticket_uuid }],
    ] as const) {
      const command = {
        sender: `gateway-01234567-${n % 2}`,
        sequence: n * 2 + (verb === 'create' ? 1 : 2),
        floor: n * 2,
        params,
      }
      const decision = decide('waitlist', key, record, { type: 'command', channel: 'cmd', verb, command }, startAt + n)
      if (!decision.reply || 'error' in decision.reply) throw new Error(JSON.stringify(decision.reply))
      record = decision.record
    }
  }
  return encode(record).length
}

const startAt = Date.UTC(2026, 0, 1)
