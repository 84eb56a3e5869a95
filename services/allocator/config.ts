/** The settings of an allocator: one schema over config file and environment, all problems reported together. */
import { randomBytes } from 'node:crypto'
import * as v from 'valibot'
import type { Knobs } from '../../actors/allocation/fleet.ts'
import { type LogLevel, LogLevelName } from '../../actors/contract/settings.ts'
import packageJson from '../../package.json' with { type: 'json' }
import { type Given, readSettings } from '../nats/settings.ts'
import { knobsFrom } from './knobs.ts'

/**
 * NATS_URL (one or more addresses, comma separated), NATS_SEED_FILE (identity `allocator`), LOG_LEVEL, DATACENTER_NAME; ALLOC_* and
 * ALLOC_CHANGE_DEFAULTS: see knobs.ts.
 */
const Settings = v.object({
  NATS_URL: v.optional(v.string(), 'nats://127.0.0.1:4222'),
  NATS_SEED_FILE: v.optional(v.string()),
  LOG_LEVEL: v.optional(LogLevelName, 'info'),
  DATACENTER_NAME: v.optional(v.string(), ''),
})

export interface Config {
  natsUrl: string
  natsSeedFile: string | undefined
  logLevel: LogLevel
  datacenter: string
  /** Made for each run: allocators are all alike. */
  allocatorId: string
  version: string
  knobs: Knobs
  /** Documented settings that were given and change nothing. */
  idle: Given['idle']
}

/** Throws an Error with a line for each setting that is wrong. */
export function readConfig(env: NodeJS.ProcessEnv = process.env, args?: string[]): Config {
  let knobs: Knobs | undefined
  const more = (given: Parameters<typeof knobsFrom>[0]) => {
    const placement = knobsFrom(given)
    if ('problems' in placement) return placement.problems
    knobs = placement.knobs
    return []
  }
  const { settings, idle } = readSettings(Settings, env, args ? { args, more } : { more })
  return {
    natsUrl: settings.NATS_URL,
    natsSeedFile: settings.NATS_SEED_FILE,
    logLevel: settings.LOG_LEVEL,
    datacenter: settings.DATACENTER_NAME,
    allocatorId: randomBytes(4).toString('hex'),
    version: packageJson.version,
    // Without problems there are knobs.
    knobs: knobs as Knobs,
    idle,
  }
}
