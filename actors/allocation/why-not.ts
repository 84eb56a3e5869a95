/** Why a server was not chosen: every filter that refuses it, not only the first, and what would have to change for each. */
import type { Decision, Step } from './decide.ts'
import type { Row } from './row.ts'
import { OUT_NEVER } from './sieve.ts'

export interface Refusal {
  rule: string
  reason: string
  /** What an operator or a caller could change. */
  change: string
}

export type WhyNot =
  | { outcome: 'unknown'; reason: string }
  | { outcome: 'refused'; rule: string; refusals: Refusal[] }
  | { outcome: 'outscored' | 'chosen'; score: number; rank: number; of: number }

export function whyNot({ rows, outAt, steps, list, scores, server }: Decision, uuid: string): WhyNot {
  const slot = rows.findIndex(row => row.uuid === uuid)
  if (slot < 0 || outAt[slot] === 0) {
    return { outcome: 'unknown', reason: slot < 0 ? 'no such server was known' : 'the request named other servers' }
  }
  const row = rows[slot]!
  if (outAt[slot] !== OUT_NEVER) {
    const rule = steps[outAt[slot]!]?.rule ?? ''
    return { outcome: 'refused', rule, refusals: steps.flatMap(step => refusal(step, row, outAt[slot] === step.at)) }
  }
  const score = scores[list.indexOf(slot)]!
  const rank = 1 + scores.filter(other => other > score).length
  return { outcome: row === server ? 'chosen' : 'outscored', score, rank, of: list.length }
}

function refusal({ rule, plan, selection }: Step, row: Row, fell: boolean): Refusal[] {
  const told = (reason: string) => [{ rule, reason, change: CHANGES[rule]?.(row) ?? 'ask for something else' }]
  if (plan?.does === 'refuse') return told(plan.why)
  if (plan?.does === 'filter') return plan.keeps(row) || plan.why === undefined ? [] : told(plan.why(row))
  if (plan?.does === 'limit') {
    const value = COLUMN_OF[plan.column](row)
    const { atLeast = Number.NEGATIVE_INFINITY, below = Number.POSITIVE_INFINITY } = plan
    if (value >= atLeast && value < below) return []
    const missing = plan.atLeast === undefined ? '' : `: ${Math.ceil(atLeast - value)} more`
    return [{ rule, reason: plan.why(row), change: `${CHANGES[rule]?.(row) ?? 'ask for less'}${missing}` }]
  }
  return fell && selection?.why ? told(selection.why(row)) : []
}

const COLUMN_OF = {
  freeDiskMib: (row: Row) => row.freeDiskMib,
  vmCount: (row: Row) => row.loads.length,
  cpu: (row: Row) => row.spare.cpu,
  ram: (row: Row) => row.spare.ram,
  disk: (row: Row) => row.spare.disk,
  platformMs: (row: Row) => row.platformMs,
  rebootMs: (row: Row) => row.rebootMs,
}

/** By rule, the smallest change that would have admitted the server. */
const CHANGES: Record<string, (row: Row) => string> = {
  'hard-filter-setup': () => 'set it up',
  'hard-filter-running': () => 'start it, or its agent',
  'hard-filter-os': () => 'run an agent of Muster on it',
  'hard-filter-invalid-servers': row => `correct its record: ${row.problem}`,
  'hard-filter-force-failure': () => 'leave out force_designation_failure',
  'hard-filter-virtual-servers': () => 'allow virtual servers',
  'hard-filter-zpool-encryption': row =>
    row.encrypted ? 'ask for an encrypted pool' : 'do not ask for an encrypted pool',
  'hard-filter-volumes-from': () => 'leave out the volumes of other VMs',
  'hard-filter-reserved': () => 'unreserve it',
  'hard-filter-min-free-disk': () => 'free space of its pool, MiB',
  'hard-filter-vlans': () => 'give it the NIC tag, or bring its link up',
  'hard-filter-platform-versions': () => 'boot it with a platform that meets the requirement',
  'hard-filter-feature-min-platform': () => 'boot it with a platform that has the feature',
  'hard-filter-traits': () => 'ask for exactly its traits, or change them',
  'hard-filter-headnode': () => 'set ALLOC_FILTER_HEADNODE to false',
  'hard-filter-overprovision-ratios': () => 'give package and server the same ratios',
  'calculate-ticketed-vms': () => 'release the ticket, or give it dimensions',
  'hard-filter-capness': row => (row.capless ? 'ask without cpu_cap' : 'ask with a cpu_cap'),
  'hard-filter-vm-count': () => 'move a VM away, or raise ALLOC_FILTER_VM_COUNT',
  'hard-filter-hvm': () => 'ask for vcpus and a brand that it can run',
  'hard-filter-min-ram': () => 'RAM, MiB',
  'hard-filter-min-cpu': () => 'CPU, percent of a core',
  'hard-filter-min-disk': () => 'disk, MiB',
  'calculate-affinity': () => 'make the affinity rule soft',
  'hard-filter-locality-hints': () => 'make locality not strict',
  'hard-filter-reservoir': () => 'take it out of the reservoir',
  'hard-filter-large-servers': () => 'set ALLOC_FILTER_LARGE_SERVERS to false',
  'soft-filter-locality-hints': () => 'leave out near and far',
}
