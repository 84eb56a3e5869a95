/** What servers have left (rules.md §8): the ones set up, running and well-formed; what is on its way does not count here. */
import type { Layout } from './index.ts'
import type { Capacity, Ratios, Row } from './row.ts'

export interface Capacities {
  capacities: Record<string, Capacity>
  /** What VMs there may be overprovisioned by. */
  ratios: Record<string, Ratios>
  /** Why a server has no capacity to tell; the old service left such servers out without a word. */
  errors: Record<string, string>
}

export function capacities(layout: Layout, only?: ReadonlySet<string>): Capacities {
  const told: Capacities = { capacities: {}, ratios: {}, errors: {} }
  const tell = (row: Row) => {
    const problem = unfit(row)
    if (problem !== undefined) told.errors[row.uuid] = problem
    else {
      told.capacities[row.uuid] = row.capacity
      told.ratios[row.uuid] = row.ratios
    }
  }
  const slots = only && [...only].flatMap(uuid => layout.slotOf.get(uuid) ?? [])
  for (const row of slots ? slots.map(slot => layout.rows[slot]!) : layout.rows) tell(row)
  return told
}

function unfit({ setup, status, problem }: Row): string | undefined {
  if (!setup) return 'it is not set up'
  if (status !== 'running') return `its status is ${status}`
  return problem && `its record cannot be used: ${problem}`
}
