/** The processes of Muster as programs to run: which file, which identity, which settings. Used by `npm start` and by tests. */
import { join } from 'node:path'
import type { Identity } from '../services/nats/permissions.ts'
import { projectDir } from './config.ts'
import type { ChosenHypervisor } from './preflight.ts'
import type { Program } from './supervise.ts'

/** How a process reaches NATS: addresses, comma separated, and the seed file of an identity where the server asks for one. */
export interface NatsAccess {
  url: string
  seedFile(identity: Identity): string | undefined
}

export interface ProcessContext {
  nats: NatsAccess
  /** What every process inherits: PATH, HOME, LOG_LEVEL and the like. */
  env: NodeJS.ProcessEnv
}

export const actorHost = (context: ProcessContext): Program =>
  program(context, { name: 'actor host', file: 'actor-host', main: 'services/actor-host/main.ts', identity: 'host' })

export const allocator = (context: ProcessContext): Program =>
  program(context, { name: 'allocator', file: 'allocator', main: 'services/allocator/main.ts', identity: 'allocator' })

/** `port` and `address`: where it listens for HTTP. */
export const gateway = (context: ProcessContext, { port, address }: { port: number; address: string }): Program =>
  program(context, {
    name: 'gateway',
    file: 'gateway',
    main: 'gateway/main.ts',
    identity: 'gateway',
    settings: { PORT: String(port), HOST: address },
  })

/** One compute node's agent; `stateDir` holds its journal. */
export const agent = (
  context: ProcessContext,
  { serverUuid, stateDir, hypervisor }: { serverUuid: string; stateDir: string; hypervisor: ChosenHypervisor },
): Program =>
  program(context, {
    name: `agent of server ${serverUuid}`,
    file: `agent-${serverUuid}`,
    main: 'hypervisor-agent/main.ts',
    identity: { agent: serverUuid },
    settings: {
      HYPERVISOR: hypervisor.hypervisor,
      ...(hypervisor.hypervisor === 'libvirt' ? { LIBVIRT_SOCKET: hypervisor.socket } : {}),
      SERVER_UUID: serverUuid,
      STATE_DIR: stateDir,
    },
  })

interface Row {
  name: string
  file: string
  main: string
  identity: Identity
  settings?: NodeJS.ProcessEnv
}

/** Settings meant for another process (the start's own PORT, another agent's STATE_DIR) must not leak into this one. */
const ours = [
  'PORT',
  'HOST',
  'NATS_URL',
  'NATS_SEED_FILE',
  'HYPERVISOR',
  'SERVER_UUID',
  'STATE_DIR',
  'HOST_ID',
] as const

function program({ nats, env }: ProcessContext, { name, file, main, identity, settings }: Row): Program {
  const inherited = Object.fromEntries(Object.entries(env).filter(([key]) => !ours.some(own => own === key)))
  const seedFile = nats.seedFile(identity)
  return {
    name,
    file,
    command: process.execPath,
    args: ['--import', 'tsx', join(projectDir, main)],
    env: {
      ...inherited,
      NATS_URL: nats.url,
      ...(seedFile ? { NATS_SEED_FILE: seedFile } : {}),
      ...settings,
    },
  }
}
