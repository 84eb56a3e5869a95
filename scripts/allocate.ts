/**
 * `npm run allocate -- fleet.json [--explain]`: what placement would decide for each request of a fleet document (`-`: from standard
 * input), as one JSON line each, or in words. Nothing is asked or changed; chance weighs nothing, so that a repeat says the same.
 */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { type Decision, decide } from '../actors/allocation/decide.ts'
import { type FleetDocument, indexOf, knobsOf } from '../actors/allocation/document.ts'
import { reasonsOf, refusalOf, survivors } from '../actors/allocation/explain.ts'

/** Servers named for one step in words. */
const NAMED_MAX = 5

const explain = process.argv.includes('--explain')
const file = process.argv.slice(2).find(word => word !== '--explain')
if (file === undefined) {
  console.error('usage: npm run allocate -- <fleet.json or -> [--explain]')
  process.exit(2)
}
const document = read(file)
const knobs = { ...knobsOf(document), weight_uniform_random: 0 }
const layout = indexOf(document, knobs).layout()
for (const [at, request] of document.requests.entries()) {
  const decision = decide(layout, { request, seed: at }, knobs)
  for (const line of explain ? words(decision, at) : [JSON.stringify(resultOf(decision))]) console.log(line)
}

function read(from: string): FleetDocument {
  try {
    const read = JSON.parse(readFileSync(from === '-' ? 0 : from, 'utf8')) as FleetDocument
    for (const list of ['servers', 'tickets', 'requests'] as const) {
      if (!Array.isArray(read[list])) throw new Error(`it has no list "${list}"`)
    }
    return { ...read, defaults: read.defaults ?? {} }
  } catch (error) {
    console.error(`allocate: ${from} is not a fleet document: ${(error as Error).message}`)
    process.exit(2)
  }
}

/** The fields of the recorded cases; `survivorsSha` covers who was left after each step. */
function resultOf(decision: Decision) {
  const { server, score, winners, steps } = decision
  const uuids = steps.map(step => survivors(decision, step).map(({ uuid }) => uuid))
  const digest = uuids.map(list => list.sort().join(',')).join('|')
  return {
    server: server?.uuid ?? null,
    score: score ?? null,
    winners,
    steps: steps.map(({ rule, left }) => [rule, left]),
    survivorsSha: createHash('sha256').update(digest).digest('hex').slice(0, 16),
  }
}

function words(decision: Decision, at: number): string[] {
  const { vm } = document.requests[at]!
  const asked = [vm.brand, `${vm.ram} MiB`, vm.cpu_cap && `${vm.cpu_cap} % CPU`, vm.quota && `${vm.quota} GiB disk`]
  const { server, score, winners, steps } = decision
  const told = server
    ? `${nameOf(server)} with ${score?.toFixed(3)}${winners > 1 ? `, one of ${winners} that are equal` : ''}`
    : `no server: ${refusalOf(decision)}`
  const lines = [`request ${at}: ${asked.filter(Boolean).join(', ')}`, `  -> ${told}`]
  let before = steps[0]!.left
  for (const step of steps) {
    const { '*': about, skip, ...reasons } = reasonsOf(decision, step, NAMED_MAX)
    const scored = step.added !== undefined
    if (step.left === before && !scored && about === undefined && step.at > 0) continue
    const change =
      step.at === 0 ? `${step.left} servers` : scored ? 'score' : `${step.left - before}, ${step.left} left`
    lines.push(`  ${step.rule.padEnd(34)} ${change}${about ? ` (${about})` : ''}${skip ? ` (${skip})` : ''}`)
    const named = Object.entries(reasons)
    for (const [uuid, why] of scored ? named.slice(0, 3) : named) lines.push(`      ${uuid}: ${why}`)
    const more = before - step.left - named.length
    if (!scored && more > 0) lines.push(`      and ${more} more`)
    before = step.left
  }
  return lines
}

function nameOf({ uuid, server }: NonNullable<Decision['server']>): string {
  return typeof server['hostname'] === 'string' ? `${uuid} (${server['hostname']})` : uuid
}
