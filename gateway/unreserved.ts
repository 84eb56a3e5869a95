/**
 * What servers have left, for showing them: the allocator's figures. Requests that come together ask once. Without an answer at once
 * nothing is shown: a server can be looked at while no allocator runs.
 */
import type { Capacities, Outcome } from './backend.ts'

type Ask = (serverUuids: string[]) => Promise<Outcome<Capacities>>
type Waiting = { uuids: readonly string[]; resolve: (told: Capacities) => void }

const nothing: Capacities = { capacities: {}, ratios: {}, errors: {} }

/** Gathers questions until the current turn of the event loop is over. */
export function gathered(ask: Ask): (serverUuids: readonly string[]) => Promise<Capacities> {
  let waiting: Waiting[] = []
  const send = async () => {
    const asked = waiting
    waiting = []
    const uuids = [...new Set(asked.flatMap(({ uuids }) => uuids))]
    const outcome = await ask(uuids).catch(() => ({ value: nothing }))
    for (const { resolve } of asked) resolve('value' in outcome ? outcome.value : nothing)
  }
  return uuids =>
    new Promise(resolve => {
      if (waiting.length === 0) setImmediate(send)
      waiting.push({ uuids, resolve })
    })
}

/** The properties that CNAPI shows of a server which qualifies; none for others (cnapi-behaviour §2.4). */
export function unreserved(uuid: string, { capacities, ratios }: Capacities): object {
  const left = capacities[uuid]
  if (!left) return {}
  const { cpu, ram, disk } = left
  return {
    score: 0,
    overprovision_ratios: ratios[uuid],
    ...{ unreserved_cpu: cpu, unreserved_ram: ram, unreserved_disk: disk },
  }
}
