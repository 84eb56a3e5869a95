/** The settings of a gateway: one schema over the environment, all problems reported together. */
import { randomBytes } from 'node:crypto'
import { hostname } from 'node:os'
import * as v from 'valibot'
import packageJson from '../package.json' with { type: 'json' }

/**
 * PORT (8080) and HOST (127.0.0.1) to listen on; NATS_URL, NATS_SEED_FILE (identity `gateway`); LOG_LEVEL;
 * GATEWAY_ID names this gateway in logs and on NATS.
 */
const Environment = v.object({
  PORT: v.optional(
    v.pipe(
      v.string(),
      v.regex(/^\d{1,5}$/, 'must be a port'),
      v.transform(Number),
      v.maxValue(65_535, 'must be a port'),
    ),
    '8080',
  ),
  HOST: v.optional(v.string(), '127.0.0.1'),
  NATS_URL: v.optional(v.string(), 'nats://127.0.0.1:4222'),
  NATS_SEED_FILE: v.optional(v.string()),
  LOG_LEVEL: v.optional(v.picklist(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent']), 'info'),
  GATEWAY_ID: v.optional(v.pipe(v.string(), v.regex(/^[A-Za-z0-9_-]{1,64}$/, 'must be letters, digits, _ and -'))),
})

export interface Config {
  port: number
  host: string
  natsUrl: string
  natsSeedFile: string | undefined
  logLevel: string
  gatewayId: string
  version: string
  serverName: string
}

/** Throws an Error with a line for each setting that is wrong. */
export function readConfig(env: NodeJS.ProcessEnv = process.env): Config {
  const read = v.safeParse(Environment, env)
  if (!read.success) {
    const lines = read.issues.map(issue => `${v.getDotPath(issue) ?? 'environment'}: ${issue.message}`)
    throw new Error(`invalid configuration:\n  ${lines.join('\n  ')}`)
  }
  const { PORT, HOST, NATS_URL, NATS_SEED_FILE, LOG_LEVEL, GATEWAY_ID } = read.output
  return {
    port: PORT,
    host: HOST,
    natsUrl: NATS_URL,
    natsSeedFile: NATS_SEED_FILE,
    logLevel: LOG_LEVEL,
    gatewayId: GATEWAY_ID ?? randomBytes(4).toString('hex'),
    version: packageVersion(),
    serverName: hostname(),
  }
}

/** The release; imported, so that a bundle carries it along. */
export const packageVersion = (): string => packageJson.version
