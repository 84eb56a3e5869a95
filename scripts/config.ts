/** The settings of the commands in this folder: one schema each over the environment, all problems reported together. */
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import * as v from 'valibot'
import { givenSettings } from '../services/nats/settings.ts'
import type { NatsServerSettings } from './nats-server.ts'
import { OperatorProblem } from './operator-problem.ts'

/** The folder that holds package.json and nats.conf, without a trailing slash. */
export const projectDir = fileURLToPath(new URL('..', import.meta.url)).replace(/\/$/, '')

const natsUrl = v.pipe(
  v.string(),
  v.regex(
    /^((nats|tls):\/\/)?[^\s,/]+(,((nats|tls):\/\/)?[^\s,/]+)*$/,
    'must be like nats://host:4222, or several with commas',
  ),
)
const fetching = v.picklist(['auto', 'never'], 'must be auto or never')

/** Where to find a nats-server: NATS_SERVER (a path), NATS_FETCH (`auto` or `never`), PATH. */
export function natsServerSettings(env: NodeJS.ProcessEnv = process.env): NatsServerSettings {
  const read = parse(
    v.object({
      NATS_SERVER: v.optional(v.string()),
      NATS_FETCH: v.optional(fetching, 'auto'),
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

/** How a command reaches NATS: NATS_URL and, where the server asks for an identity, NATS_SEED_FILE. */
export function connectionSettings(env: NodeJS.ProcessEnv = process.env): {
  natsUrl: string
  natsSeedFile: string | undefined
} {
  const read = parse(
    v.object({ NATS_URL: v.optional(natsUrl, 'nats://127.0.0.1:4222'), NATS_SEED_FILE: v.optional(v.string()) }),
    env,
  )
  return { natsUrl: read.NATS_URL, natsSeedFile: read.NATS_SEED_FILE || undefined }
}

/** Settings of `npm start`; what the processes themselves understand besides is passed on to them untouched. */
export interface StartSettings {
  port: number
  address: string
  dataDir: string
  hypervisor: 'auto' | 'libvirt' | 'simulated'
  simulatedNodes: number
  /** A server of the operator's own, instead of one started here; with the seed file to present to it. */
  natsUrl: string | undefined
  natsSeedFile: string | undefined
  libvirtUri: string | undefined
  /** Where libvirt may listen, in the order to try. */
  libvirtSockets: string[]
  natsServer: NatsServerSettings
  /** npm puts a shell in between, which does not pass signals on. */
  startedByNpm: boolean
  env: NodeJS.ProcessEnv
}

const wholeNumber = (least: number, most: number) => {
  const message = `must be a whole number from ${least} to ${most}`
  return v.pipe(
    v.string(),
    v.regex(/^\d+$/, message),
    v.transform(Number),
    v.minValue(least, message),
    v.maxValue(most, message),
  )
}
const hypervisors = ['auto', 'libvirt', 'simulated'] as const

/** Reads the settings of `npm start`; throws one OperatorProblem naming every setting that is wrong. An empty variable counts as unset. */
export function startSettings(env: NodeJS.ProcessEnv = process.env): StartSettings {
  const { env: given, problems } = givenSettings(env, process.argv.slice(2))
  if (problems.length > 0) throw new OperatorProblem(`invalid configuration: ${problems.join('; ')}`)
  const read = parse(
    v.object({
      PORT: v.optional(wholeNumber(1, 65535), '8080'),
      HOST: v.optional(v.pipe(v.string(), v.ip('must be an IP address to listen on')), '127.0.0.1'),
      HYPERVISOR: v.optional(v.picklist(hypervisors, `must be one of ${hypervisors.join(', ')}`), 'auto'),
      SIMULATED_NODES: v.optional(wholeNumber(1, 1000), '1'),
      NATS_URL: v.optional(natsUrl),
      NATS_SEED_FILE: v.optional(v.string()),
      LIBVIRT_URI: v.optional(v.string()),
      LIBVIRT_SOCKET: v.optional(v.string()),
      XDG_RUNTIME_DIR: v.optional(v.string()),
      NATS_FETCH: v.optional(fetching, 'auto'),
      npm_lifecycle_event: v.optional(v.string()),
    }),
    given,
  )
  const session = read.XDG_RUNTIME_DIR ? [join(read.XDG_RUNTIME_DIR, 'libvirt/libvirt-sock')] : []
  return {
    port: read.PORT,
    address: read.HOST,
    dataDir: installationSettings(given).dataDir,
    hypervisor: read.HYPERVISOR,
    simulatedNodes: read.SIMULATED_NODES,
    natsUrl: read.NATS_URL,
    natsSeedFile: read.NATS_SEED_FILE,
    libvirtUri: read.LIBVIRT_URI,
    libvirtSockets: read.LIBVIRT_SOCKET ? [read.LIBVIRT_SOCKET] : ['/var/run/libvirt/libvirt-sock', ...session],
    natsServer: natsServerSettings(given),
    startedByNpm: read.npm_lifecycle_event === 'start',
    // The processes read the file themselves.
    env: given['CONFIG_FILE'] ? { ...env, CONFIG_FILE: given['CONFIG_FILE'] } : env,
  }
}

/** Parses an environment; throws one OperatorProblem that names each setting that is wrong. */
export function parse<S extends v.GenericSchema>(schema: S, env: NodeJS.ProcessEnv): v.InferOutput<S> {
  const result = v.safeParse(schema, env)
  if (result.success) return result.output
  const lines = result.issues.map(issue => `${v.getDotPath(issue) ?? 'environment'}: ${issue.message}`)
  throw new OperatorProblem(`invalid configuration: ${lines.join('; ')}`)
}
