/** The processes of Muster as programs to run: which file, which identity, which settings. Used by `npm start` and by tests. */
import { join } from 'node:path'
import type { Identity } from '../services/nats/permissions.ts'
import { projectDir } from './config.ts'
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

/** The agent of the compute node that this machine is. `stateDir` holds its journal. */
export const libvirtAgent = (
  context: ProcessContext,
  { serverUuid, stateDir, socket }: { serverUuid: string; stateDir: string; socket: string },
): Program =>
  program(context, {
    name: 'agent (libvirt)',
    file: 'agent',
    main: 'hypervisor-agent/main.ts',
    identity: { agent: serverUuid },
    settings: { HYPERVISOR: 'libvirt', LIBVIRT_SOCKET: socket, SERVER_UUID: serverUuid, STATE_DIR: stateDir },
  })

/**
 * The agents of simulated nodes, all in one process, each with its own connection and identity. Node n keeps its state in
 * `<stateDir>/<n>`, whatever their number.
 */
export const simulatedAgents = (
  context: ProcessContext,
  { serverUuids, stateDir }: { serverUuids: string[]; stateDir: string },
): Program =>
  program(context, {
    name: 'agent (simulated)',
    file: 'agent-simulated',
    main: 'hypervisor-agent/main.ts',
    identity: { agent: serverUuids.length === 1 ? (serverUuids[0] ?? '') : '{uuid}' },
    settings: {
      HYPERVISOR: 'simulated',
      SIMULATED_NODES: String(serverUuids.length),
      STATE_DIR: serverUuids.length === 1 ? join(stateDir, '1') : stateDir,
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
