/** The settings of a gateway: one schema over config file and environment, all problems reported together. */
import { randomBytes } from 'node:crypto'
import { hostname } from 'node:os'
import * as v from 'valibot'
import { type LogLevel, LogLevelName } from '../actors/contract/settings.ts'
import packageJson from '../package.json' with { type: 'json' }
import { type Given, readSettings } from '../services/nats/settings.ts'

const port = v.pipe(
  v.string(),
  v.regex(/^\d{1,5}$/, 'must be a port'),
  v.transform(Number),
  v.maxValue(65_535, 'must be a port'),
)

/**
 * PORT (8080) and HOST (127.0.0.1) to listen on; METRICS_PORT (8881; `off`: none) and METRICS_HOST (127.0.0.1) for Prometheus;
 * DATACENTER_NAME; NATS_URL, NATS_SEED_FILE (identity `gateway`); LOG_LEVEL; GATEWAY_ID names this gateway in logs, metrics and on NATS.
 */
const Settings = v.object({
  PORT: v.optional(port, '8080'),
  HOST: v.optional(v.string(), '127.0.0.1'),
  METRICS_PORT: v.optional(v.union([v.literal('off'), port], 'must be a port, or off')),
  METRICS_HOST: v.optional(v.string(), '127.0.0.1'),
  DATACENTER_NAME: v.optional(v.string(), ''),
  NATS_URL: v.optional(v.string(), 'nats://127.0.0.1:4222'),
  NATS_SEED_FILE: v.optional(v.string()),
  LOG_LEVEL: v.optional(LogLevelName, 'info'),
  GATEWAY_ID: v.optional(v.pipe(v.string(), v.regex(/^[A-Za-z0-9_-]{1,64}$/, 'must be letters, digits, _ and -'))),
})

export interface Config {
  port: number
  host: string
  /** Undefined: no metrics are served. `isDefault`: nobody asked for this port. */
  metrics: { port: number; host: string; isDefault: boolean } | undefined
  datacenter: string
  natsUrl: string
  natsSeedFile: string | undefined
  logLevel: LogLevel
  gatewayId: string
  version: string
  serverName: string
  /** Documented settings that were given and change nothing. */
  idle: Given['idle']
}

/** The port that CNAPI documents. */
const METRICS_PORT_DEFAULT = 8881

/** Throws an Error with a line for each setting that is wrong. */
export function readConfig(env: NodeJS.ProcessEnv = process.env, args?: string[]): Config {
  const { settings, idle } = readSettings(Settings, env, args ? { args } : {})
  const { METRICS_PORT } = settings
  return {
    port: settings.PORT,
    host: settings.HOST,
    metrics:
      METRICS_PORT === 'off'
        ? undefined
        : {
            port: METRICS_PORT ?? METRICS_PORT_DEFAULT,
            host: settings.METRICS_HOST,
            isDefault: METRICS_PORT === undefined,
          },
    datacenter: settings.DATACENTER_NAME,
    natsUrl: settings.NATS_URL,
    natsSeedFile: settings.NATS_SEED_FILE,
    logLevel: settings.LOG_LEVEL,
    gatewayId: settings.GATEWAY_ID ?? randomBytes(4).toString('hex'),
    version: packageVersion(),
    serverName: hostname(),
    idle,
  }
}

/** The release; imported, so that a bundle carries it along. */
export const packageVersion = (): string => packageJson.version
