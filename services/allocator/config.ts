/** The settings of an allocator: one schema over the environment, all problems reported together. */
import { randomBytes } from 'node:crypto'
import * as v from 'valibot'
import type { Knobs } from '../../actors/allocation/fleet.ts'
import packageJson from '../../package.json' with { type: 'json' }
import { knobsFrom } from './knobs.ts'

/** NATS_URL (one or more addresses, comma separated), NATS_SEED_FILE (identity `allocator`), LOG_LEVEL; ALLOC_* and ALLOC_CHANGE_DEFAULTS: see knobs.ts. */
const Environment = v.object({
  NATS_URL: v.optional(v.string(), 'nats://127.0.0.1:4222'),
  NATS_SEED_FILE: v.optional(v.string()),
  LOG_LEVEL: v.optional(v.picklist(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent']), 'info'),
})

export interface Config {
  natsUrl: string
  natsSeedFile: string | undefined
  logLevel: string
  /** Made for each run: allocators are all alike. */
  allocatorId: string
  version: string
  knobs: Knobs
}

/** Throws an Error with a line for each setting that is wrong. */
export function readConfig(env: NodeJS.ProcessEnv = process.env): Config {
  const read = v.safeParse(Environment, env)
  const placement = knobsFrom(env)
  if (!read.success || 'problems' in placement) {
    const lines = [
      ...(read.issues ?? []).map(issue => `${v.getDotPath(issue) ?? 'environment'}: ${issue.message}`),
      ...('problems' in placement ? placement.problems : []),
    ]
    throw new Error(`invalid configuration:\n  ${lines.join('\n  ')}`)
  }
  return {
    natsUrl: read.output.NATS_URL,
    natsSeedFile: read.output.NATS_SEED_FILE,
    logLevel: read.output.LOG_LEVEL,
    allocatorId: randomBytes(4).toString('hex'),
    version: packageJson.version,
    knobs: placement.knobs,
  }
}
