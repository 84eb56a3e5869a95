/** What servers have left (rules.md §8): the ones set up, running and well-formed; what is on its way does not count here. */
import type { Layout } from './index.ts'
import type { Capacity, Row } from './row.ts'

/** `errors`: why a server has no capacity to tell; the old service left such servers out without a word. */
export function capacities(
  layout: Layout,
  only?: ReadonlySet<string>,
): { capacities: Record<string, Capacity>; errors: Record<string, string> } {
  const told: Record<string, Capacity> = {}
  const errors: Record<string, string> = {}
  for (const row of layout.rows) {
    if (only && !only.has(row.uuid)) continue
    const problem = unfit(row)
    if (problem === undefined) told[row.uuid] = row.capacity
    else errors[row.uuid] = problem
  }
  return { capacities: told, errors }
}

function unfit({ setup, status, problem }: Row): string | undefined {
  if (!setup) return 'it is not set up'
  if (status !== 'running') return `its status is ${status}`
  return problem && `its record cannot be used: ${problem}`
}
