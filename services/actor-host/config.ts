/** The settings of an actor host: one schema over config file and environment, all problems reported together. */
import { randomBytes } from 'node:crypto'
import * as v from 'valibot'
import { BooleanWord, type LogLevel, LogLevelName } from '../../actors/contract/settings.ts'
import packageJson from '../../package.json' with { type: 'json' }
import { type Given, readSettings } from '../nats/settings.ts'

/**
 * NATS_URL (one or more addresses, comma separated), NATS_SEED_FILE (identity `host`), LOG_LEVEL;
 * HOST_ID names this host in logs and leases, followed by letters that no other life of it has; TICKET_KEPT_DAYS (30): how long
 * waitlist tickets that have ended stay readable; DATACENTER_NAME and SMT_ENABLED_DEFAULT go into the records of new servers.
 */
const Settings = v.object({
  NATS_URL: v.optional(v.string(), 'nats://127.0.0.1:4222'),
  NATS_SEED_FILE: v.optional(v.string()),
  LOG_LEVEL: v.optional(LogLevelName, 'info'),
  DATACENTER_NAME: v.optional(v.string(), ''),
  SMT_ENABLED_DEFAULT: v.optional(BooleanWord),
  HOST_ID: v.optional(v.pipe(v.string(), v.regex(/^[A-Za-z0-9_-]{1,48}$/, 'must be letters, digits, _ and -')), 'host'),
  TICKET_KEPT_DAYS: v.optional(
    v.pipe(
      v.string(),
      v.regex(/^\d{1,4}$/, 'must be a number of days'),
      v.transform(Number),
      v.minValue(1, 'must be at least one day'),
    ),
    '30',
  ),
})

export interface Config {
  natsUrl: string
  natsSeedFile: string | undefined
  logLevel: LogLevel
  datacenter: string
  /** Undefined: not given. */
  smtEnabled: boolean | undefined
  hostId: string
  ticketKeptMs: number
  version: string
  /** Documented settings that were given and change nothing. */
  idle: Given['idle']
}

const dayMs = 24 * 3600_000

/** Throws an Error with a line for each setting that is wrong. */
export function readConfig(env: NodeJS.ProcessEnv = process.env, args?: string[]): Config {
  const { settings, idle } = readSettings(Settings, env, args ? { args } : {})
  return {
    natsUrl: settings.NATS_URL,
    natsSeedFile: settings.NATS_SEED_FILE,
    logLevel: settings.LOG_LEVEL,
    datacenter: settings.DATACENTER_NAME,
    smtEnabled: settings.SMT_ENABLED_DEFAULT,
    hostId: `${settings.HOST_ID}-${randomBytes(4).toString('hex')}`,
    ticketKeptMs: settings.TICKET_KEPT_DAYS * dayMs,
    version: packageJson.version,
    idle,
  }
}
