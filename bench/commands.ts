/**
 * How many durable commands actors carry out in a second, beside what the store could do: compare-and-set writes of 2 KiB on the
 * same three servers, 64 in flight, synced always. A command is what a node's report does to a VM: decided by the real machine,
 * committed with one put, answered after its ack.
 */
import { type Caller, createCaller } from '../services/nats/caller.ts'
import type { NatsConnection } from '../services/nats/connect.ts'
import { encode } from '../services/nats/json.ts'
import { provision } from '../services/nats/provision.ts'
import { openRecords } from '../services/nats/records.ts'
import type { TestNats } from '../test/nats.ts'
import { hammer, latency, type Rate } from './hammer.ts'
import { plainHost, realHost, serving } from './hosts.ts'
import { fill } from './load.ts'
import { rawCompareAndSet } from './raw.ts'
import { type Cores, coresOf, type Running, type Scope } from './scope.ts'
import { serverUuid, vmEntry, vmUuid } from './seed.ts'
import { perSecond, type Row, shares } from './table.ts'

const inFlight = 64
const actors = 2_000
const rawBytes = 2_048
const server = 1
const spreadAim = 0.6
const hotAim = 5
/** Long enough for every VM to be loaded once and for the host's code to be compiled. */
const warmUpMs = 5_000

export async function commands(scope: Scope): Promise<Row[]> {
  const forMs = scope.short ? 500 : 8_000
  const nats = await scope.nats({ servers: 3 })
  const nc = await scope.connect(nats)
  await provision(nc)
  await fill(nc, 'vm', actors, n => vmEntry(n, server))
  const raw = async (prefix: string) => {
    scope.say('compare-and-set, the store alone')
    return rawCompareAndSet(nc, { prefix, keys: actors, bytes: rawBytes, inFlight, forMs })
  }

  const before = await raw('before')
  scope.say(`commands, spread over ${actors} VMs`)
  const spread = await withHost(nc, realHost(scope, nats), host => measure(nc, nats, host, actors, forMs))
  const after = await raw('after')
  const limit = (before.perSecond + after.perSecond) / 2

  scope.say('commands to one VM')
  const batched = await withHost(nc, plainHost(scope, nats, 'batched'), host => measure(nc, nats, host, 1, forMs))
  scope.say('commands to one VM, a put each')
  const single = await withHost(nc, plainHost(scope, nats, 'unbatched'), host => measure(nc, nats, host, 1, forMs))

  const ofRaw = spread.rate.perSecond / limit
  const ofSingle = batched.rate.perSecond / single.rate.perSecond
  return [
    {
      what: 'compare-and-set, the store alone',
      figure: perSecond(limit),
      detail: `${latency(after)}; mean of two runs`,
    },
    {
      what: `commands, spread over ${actors} VMs`,
      figure: perSecond(spread.rate.perSecond),
      aim: { text: `${ofRaw.toFixed(2)} of the store alone; aim ${spreadAim}`, met: ofRaw >= spreadAim },
      detail: described(spread),
    },
    {
      what: 'commands, one hot VM',
      figure: perSecond(batched.rate.perSecond),
      aim: { text: `${ofSingle.toFixed(1)} x unbatched; aim ${hotAim} x`, met: ofSingle >= hotAim },
      detail: described(batched),
    },
    { what: 'the same, a put per command', figure: perSecond(single.rate.perSecond), detail: described(single) },
  ]
}

interface Measured {
  rate: Rate
  cores: Cores
  recordBytes: number
}

const described = ({ rate, cores, recordBytes }: Measured) =>
  `${latency(rate)}; record ${recordBytes} B; CPU ${shares(cores)}`

async function withHost<T>(nc: NatsConnection, host: Running, during: (host: Running) => Promise<T>): Promise<T> {
  await serving(nc, host)
  const value = await during(host)
  await host.stop()
  return value
}

/** Commands to the first `vms` VMs, each lane to its own; afterwards the records must have counted every one of them, once. */
async function measure(
  nc: NatsConnection,
  nats: TestNats,
  host: Running,
  vms: number,
  forMs: number,
): Promise<Measured> {
  const caller = createCaller(nc, `bench-${host.pid}`)
  const sent = new Array<number>(vms).fill(0)
  const counted = await counts(nc, vms)
  let turn = 0
  const { value: rate, cores } = await coresOf({ host: [host.pid], nats: nats.pids(), client: [process.pid] }, () =>
    hammer({
      inFlight,
      forMs,
      warmUpMs: Math.min(warmUpMs, forMs),
      operation: () => {
        const n = turn++ % vms
        sent[n] = (sent[n] ?? 0) + 1
        return report(caller, n, turn)
      },
    }),
  )
  const now = await counts(nc, vms)
  for (const [n, count] of now.entries()) {
    const wanted = (counted[n] ?? 0) + (sent[n] ?? 0)
    if (count !== wanted) throw new Error(`vm ${n} counts ${count} transitions, ${wanted} were acknowledged`)
  }
  const record = await openRecords(nc).get('vm', vmUuid(0))
  return { rate, cores, recordBytes: encode(record?.value).length }
}

/** The node has seen the VM's domain under a new number, so the record changes. */
async function report(caller: Caller, n: number, turn: number): Promise<void> {
  const vm = { uuid: vmUuid(n), state: 'running', domain_id: turn, domain_state: 'running' }
  const params = { server_uuid: serverUuid(server), seen_at: Date.now() + turn, vm }
  const reply = await caller.call('vm', vmUuid(n), 'reported', params)
  if ('error' in reply) throw new Error(`a command was refused: ${reply.error.code}: ${reply.error.message}`)
}

async function counts(nc: NatsConnection, vms: number): Promise<number[]> {
  const records = openRecords(nc)
  const found: number[] = []
  for (let n = 0; n < vms; n += inFlight) {
    const some = Array.from({ length: Math.min(inFlight, vms - n) }, (_, at) => records.get('vm', vmUuid(n + at)))
    for (const entry of await Promise.all(some)) found.push((entry?.value as { count: number } | undefined)?.count ?? 0)
  }
  return found
}
