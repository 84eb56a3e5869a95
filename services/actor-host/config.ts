/** The settings of an actor host: one schema over the environment, all problems reported together. */
import { randomBytes } from 'node:crypto'
import * as v from 'valibot'
import packageJson from '../../package.json' with { type: 'json' }

/**
 * NATS_URL (one or more addresses, comma separated), NATS_SEED_FILE (identity `host`), LOG_LEVEL;
 * HOST_ID names this host in logs and leases, followed by letters that no other life of it has; TICKET_KEPT_DAYS (30): how long
 * waitlist tickets that have ended stay readable.
 */
const Environment = v.object({
  NATS_URL: v.optional(v.string(), 'nats://127.0.0.1:4222'),
  NATS_SEED_FILE: v.optional(v.string()),
  LOG_LEVEL: v.optional(v.picklist(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent']), 'info'),
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
  logLevel: string
  hostId: string
  ticketKeptMs: number
  version: string
}

const dayMs = 24 * 3600_000

/** Throws an Error with a line for each setting that is wrong. */
export function readConfig(env: NodeJS.ProcessEnv = process.env): Config {
  const read = v.safeParse(Environment, env)
  if (!read.success) {
    const lines = read.issues.map(issue => `${v.getDotPath(issue) ?? 'environment'}: ${issue.message}`)
    throw new Error(`invalid configuration:\n  ${lines.join('\n  ')}`)
  }
  const { NATS_URL, NATS_SEED_FILE, LOG_LEVEL, HOST_ID, TICKET_KEPT_DAYS } = read.output
  return {
    natsUrl: NATS_URL,
    natsSeedFile: NATS_SEED_FILE,
    logLevel: LOG_LEVEL,
    hostId: `${HOST_ID}-${randomBytes(4).toString('hex')}`,
    ticketKeptMs: TICKET_KEPT_DAYS * dayMs,
    version: packageJson.version,
  }
}
