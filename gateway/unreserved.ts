/**
 * What servers have left, for showing them: the allocator's figures. Requests that come together ask once. Without an answer at once
 * nothing is shown: a server can be looked at while no allocator runs.
 */
import type { Capacities, Outcome } from './backend.ts'
import { rounds } from './rounds.ts'

type Ask = (serverUuids: string[]) => Promise<Outcome<Capacities>>

const nothing: Capacities = { capacities: {}, ratios: {}, errors: {} }

/** Servers that one question names: the answer, about 150 bytes for each, must fit a message. */
export const CAPACITY_PAGE = 2_000

/** Asks about so many servers in as many questions as it takes. */
export function inPages(ask: Ask): Ask {
  return async uuids => {
    const pages: string[][] = [uuids.slice(0, CAPACITY_PAGE)]
    for (let at = CAPACITY_PAGE; at < uuids.length; at += CAPACITY_PAGE) pages.push(uuids.slice(at, at + CAPACITY_PAGE))
    const all: Capacities = { capacities: {}, ratios: {}, errors: {} }
    for (const outcome of await Promise.all(pages.map(ask))) {
      if ('error' in outcome) return outcome
      for (const part of ['capacities', 'ratios', 'errors'] as const) Object.assign(all[part], outcome.value[part])
    }
    return { value: all }
  }
}

/** Asks once for all who ask together. Never rejects. */
export function gathered(ask: Ask): (serverUuids: readonly string[]) => Promise<Capacities> {
  return rounds(async questions => {
    const outcome = await ask([...new Set(questions.flat())]).catch(() => ({ value: nothing }))
    return 'value' in outcome ? outcome.value : nothing
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
