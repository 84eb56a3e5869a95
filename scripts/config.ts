/** The settings of the commands in this folder: one schema each over the environment, all problems reported together. */
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import * as v from 'valibot'
import type { NatsServerSettings } from './nats-server.ts'

/** The folder that holds package.json and nats.conf, without a trailing slash. */
export const projectDir = fileURLToPath(new URL('..', import.meta.url)).replace(/\/$/, '')

/** Where to find a nats-server: NATS_SERVER (a path), NATS_FETCH (`auto` or `never`), PATH. */
export function natsServerSettings(env: NodeJS.ProcessEnv = process.env): NatsServerSettings {
  const read = parse(
    v.object({
      NATS_SERVER: v.optional(v.string()),
      NATS_FETCH: v.optional(v.picklist(['auto', 'never']), 'auto'),
      PATH: v.optional(v.string(), ''),
    }),
    env,
  )
  return {
    natsServer: read.NATS_SERVER || undefined,
    fetch: read.NATS_FETCH,
    searchPath: read.PATH,
    cacheDir: join(projectDir, '.cache/nats-server'),
  }
}

/** The installation that a command is about: DATA_DIR (`.data` beside package.json) and NATS_URL of its server, if given. */
export function installationSettings(env: NodeJS.ProcessEnv = process.env): {
  dataDir: string
  natsUrl?: string | undefined
} {
  const read = parse(v.object({ DATA_DIR: v.optional(v.string(), '.data'), NATS_URL: v.optional(v.string()) }), env)
  return { dataDir: resolve(projectDir, read.DATA_DIR), natsUrl: read.NATS_URL || undefined }
}

/** Parses an environment; throws one Error whose message has a line for each setting that is wrong. */
export function parse<S extends v.GenericSchema>(schema: S, env: NodeJS.ProcessEnv): v.InferOutput<S> {
  const result = v.safeParse(schema, env)
  if (result.success) return result.output
  const lines = result.issues.map(issue => `${v.getDotPath(issue) ?? 'environment'}: ${issue.message}`)
  throw new Error(`invalid configuration:\n  ${lines.join('\n  ')}`)
}
