/**
 * How many durable commands actors carry out in a second, beside what the store could do: compare-and-set writes of 2 KiB on the
 * same three servers, 64 in flight, synced always.
 */
import { provision } from '../services/nats/provision.ts'
import { latency } from './hammer.ts'
import { rawCompareAndSet } from './raw.ts'
import type { Scope } from './scope.ts'
import { perSecond, type Row } from './table.ts'

const inFlight = 64
const actors = 2_048
const rawBytes = 2_048

export async function commands(scope: Scope): Promise<Row[]> {
  const forMs = scope.short ? 500 : 8_000
  scope.say('starting three servers')
  const nats = await scope.nats({ servers: 3 })
  const nc = await scope.connect(nats)
  await provision(nc)
  scope.say('raw compare-and-set')
  const raw = await rawCompareAndSet(nc, { keys: actors, bytes: rawBytes, inFlight, forMs })
  return [{ what: 'compare-and-set, the raw store', figure: perSecond(raw.perSecond), detail: latency(raw) }]
}
