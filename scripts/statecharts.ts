/** Writes docs/statecharts.md from the machines as they run; a test holds it fresh. */
import { writeFileSync } from 'node:fs'
import { ACTORS } from '../actors/actors.ts'
import { mermaid, statechart } from '../actors/statechart.ts'

export const statechartsFile = new URL('../docs/statecharts.md', import.meta.url)

/** The whole page: one diagram a kind, arrows between different states only. */
export function statechartsPage(): string {
  const charts = Object.entries(ACTORS).map(
    ([kind, { machine }]) => `## ${kind}\n\n\`\`\`mermaid\n${mermaid(statechart(machine))}\`\`\`\n`,
  )
  const head =
    '# Statecharts\n\nRead off the machines in `actors/` by `npm run statecharts`; a running gateway serves the same at `GET /machines/:kind`.\n'
  return [head, ...charts].join('\n')
}

if (import.meta.url === `file://${process.argv[1]}`) writeFileSync(statechartsFile, statechartsPage())
