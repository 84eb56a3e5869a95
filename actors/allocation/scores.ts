/** Stages that score the survivors (rules.md §6). Formulas are kept to the bit, so that decisions can be compared with recorded ones. */
import type { Knobs, Spread } from './fleet.ts'
import type { Layout } from './index.ts'
import { rankOf } from './ranks.ts'
import type { Ask, Field, Plan, Stage } from './stage.ts'

const WEEK_MS = 7 * 24 * 3600_000

export const scores: Stage[] = [
  {
    rule: 'score-unreserved-ram',
    label: 'Score by unreserved RAM',
    plan: spreadable('ram', (field, weight) =>
      linear(rankOf(field.layout.byRam, field, weight > 0 ? 'ascending' : 'descending'), field, weight),
    ),
  },
  {
    rule: 'score-unreserved-disk',
    label: 'Score by unreserved disk',
    plan: spreadable('disk', (field, weight) =>
      linear(rankOf(field.layout.byDisk, field, weight > 0 ? 'ascending' : 'descending'), field, weight),
    ),
  },
  {
    rule: 'score-num-owner-zones',
    label: 'Score by the number of VMs of the owner',
    plan: spreadable('owner', (field, weight, ask) =>
      linear(byOwned(field, ask.request.vm.owner_uuid, weight > 0 ? 1 : -1), field, weight),
    ),
  },
  {
    rule: 'score-current-platform',
    label: 'Score by the age of the platform',
    plan: ({ knobs: { weight_current_platform: weight } }) => ({
      does: 'score',
      weigh: field => byPlatform(field, weight),
    }),
  },
  {
    rule: 'score-next-reboot',
    label: 'Score by the next reboot',
    plan: ({ knobs: { weight_next_reboot: weight } }) => ({ does: 'score', weigh: field => byReboot(field, weight) }),
  },
  {
    rule: 'score-uniform-random',
    label: 'Score by chance',
    plan: spreadable('random', (field, weight, ask) => linear(shuffled(field.list, ask.seed), field, weight)),
  },
]

type Dimension = 'ram' | 'disk' | 'owner' | 'random'

/** Weights that a spread stands for; those it does not name are 0. */
const SPREAD_WEIGHTS: Record<Spread, Partial<Record<Dimension, number>>> = {
  'min-ram': { ram: 2 },
  'max-ram': { ram: -2 },
  'min-owner': { owner: 2 },
  random: { random: 2 },
}
const KNOB_OF = {
  ram: 'weight_unreserved_ram',
  disk: 'weight_unreserved_disk',
  owner: 'weight_num_owner_zones',
  random: 'weight_uniform_random',
} as const satisfies Record<Dimension, keyof Knobs>

/** A positive weight prefers least RAM, least disk, fewest VMs of the owner; a negative one the reverse; chance has no direction. */
const DIRECTIONS: Record<Dimension, [string, string]> = {
  ram: ['least unreserved RAM first', 'most unreserved RAM first'],
  disk: ['least unreserved disk first', 'most unreserved disk first'],
  owner: ['fewest VMs of the owner first', 'most VMs of the owner first'],
  random: ['by chance', 'by chance'],
}

/** In words, which servers a weight favours: part of every explanation, since the documents of old told the reverse. */
export const directionOf = (dimension: Dimension, weight: number): string => DIRECTIONS[dimension][weight > 0 ? 0 : 1]

/** The weight of a dimension for this request: by the spread that is in force, else as configured. */
export function weightOf(dimension: Dimension, { knobs, package: pkg }: Pick<Ask, 'knobs' | 'package'>): number {
  const spread = pkg?.alloc_server_spread || knobs.server_spread
  return spread ? (SPREAD_WEIGHTS[spread][dimension] ?? 0) : knobs[KNOB_OF[dimension]]
}

function spreadable(dimension: Dimension, weigh: (field: Field, weight: number, ask: Ask) => Float64Array) {
  return (ask: Ask, _layout: Layout): Plan => {
    const weight = weightOf(dimension, ask)
    if (!weight) return { does: 'skip', why: 'its weight is 0' }
    const about = `weight ${weight}: ${directionOf(dimension, weight)}`
    return { does: 'score', about, weigh: field => weigh(field, weight, ask) }
  }
}

/** The first of n gets |weight|, the last nothing, those between in equal steps. */
function linear(sorted: Int32Array, { place }: Field, weight: number): Float64Array {
  const added = new Float64Array(sorted.length)
  const last = sorted.length - 1
  const most = Math.abs(weight)
  const step = 1 / last
  for (let rank = 0; rank <= last; rank += 1) {
    added[place[sorted[rank]!]!] = last === 0 ? most : (last - rank) * step * most
  }
  return added
}

/** By how many VMs of the owner a server has: few different numbers, so they are gathered rather than sorted. */
function byOwned({ list, layout }: Field, owner: string, sign: 1 | -1): Int32Array {
  const counts = layout.hostsOf(owner)
  const gathered = new Map<number, number[]>()
  for (const slot of list) {
    const count = counts.get(layout.rows[slot]!.uuid) ?? 0
    const alike = gathered.get(count)
    if (alike) alike.push(slot)
    else gathered.set(count, [slot])
  }
  const order = [...gathered.keys()].sort((a, b) => sign * (a - b))
  return Int32Array.from(order.flatMap(count => gathered.get(count) ?? []))
}

/** Newest gets the weight, oldest nothing; all the weight where all are alike. A platform that is no stamp counts as the oldest. */
function byPlatform({ list, layout }: Field, weight: number): Float64Array {
  const added = new Float64Array(list.length)
  if (list.length <= 1) return added
  const ages = layout.columns.platformMs
  let min = Number.POSITIVE_INFINITY
  let max = Number.NEGATIVE_INFINITY
  for (let at = 0; at < list.length; at += 1) {
    const age = ages[list[at]!]!
    if (age < min) min = age
    if (age > max) max = age
  }
  if (!(max > min)) return added.fill(weight)
  const scale = (1 / (max - min)) * Math.abs(weight)
  for (let at = 0; at < list.length; at += 1) {
    const age = ages[list[at]!]!
    const known = Number.isNaN(age) ? min : age
    added[at] = (weight > 0 ? known - min : max - known) * scale
  }
  return added
}

/** Servers without a pending reboot first, then those that reboot latest, a week to a bucket. */
function byReboot(field: Field, weight: number): Float64Array {
  const { list, place, layout } = field
  const added = new Float64Array(list.length)
  if (list.length < 2) return added
  const bucketOf = new Int32Array(list.length)
  let bucket = -1
  let since = Number.POSITIVE_INFINITY
  const { slots, key: times } = layout.byReboot
  const pending: number[] = []
  for (let at = slots.length - 1; at >= 0 && times[slots[at]!]! > Number.NEGATIVE_INFINITY; at -= 1) {
    if (place[slots[at]!]! >= 0) pending.push(slots[at]!)
  }
  if (pending.length < list.length) bucket = 0
  for (const slot of pending) {
    const time = times[slot]!
    if (!(since < Number.POSITIVE_INFINITY && time > since - WEEK_MS)) {
      bucket += 1
      since = time
    }
    bucketOf[place[slot]!] = bucket
  }
  const last = bucket
  for (let at = 0; at < list.length; at += 1) {
    const index = weight < 0 ? last - bucketOf[at]! : bucketOf[at]!
    added[at] = last === 0 ? Math.abs(weight) : (last - index) * (1 / last) * Math.abs(weight)
  }
  return added
}

/** A fair order of the list, the same for the same seed. */
function shuffled(list: Int32Array, seed: number): Int32Array {
  const order = list.slice()
  let state = Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) | 1
  const below = (limit: number) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return Math.floor(((state >>> 0) / 2 ** 32) * limit)
  }
  for (let at = order.length - 1; at > 0; at -= 1) {
    const other = below(at + 1)
    const held = order[at]!
    order[at] = order[other]!
    order[other] = held
  }
  return order
}
