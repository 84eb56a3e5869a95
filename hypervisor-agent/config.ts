/** Settings of an agent process: one schema over its environment, all problems reported at once. An empty value is no value. */
import * as v from 'valibot'
import { BridgeName, Uuid } from '../actors/contract/ids.ts'
import { LogLevelName } from '../actors/contract/settings.ts'
import { serversOf } from '../services/nats/connect.ts'
import { givenSettings } from '../services/nats/settings.ts'
import { defaultInstallerDir } from './agents/agents.ts'

export interface AgentConfig {
  natsServers: string[]
  /** File with the nkey seed. With several simulated nodes, `{uuid}` in it gives each a connection of its own. */
  natsSeedFile?: string
  stateDir: string
  serverUuid?: string
  hypervisor: 'libvirt' | 'simulated'
  simulatedNodes: number
  /** How long each call of a simulated hypervisor takes, ms; guests take a multiple of it. */
  simulatedDelayMs: number
  libvirt: {
    uri: string
    socketPath: string
    domainType: 'kvm' | 'qemu'
    pool: string
    poolPath: string
    consoleFolder: string
  }
  /** Nic tag -> bridge; absent where it was not given. */
  nicTags?: Record<string, string>
  /** Where other agents, and callers, reach streams of this node. */
  streams: { host: string; port: number }
  installAllow?: string[]
  agentInstallAllow?: string[]
  agentInstallDir: string
  /** Without a slash at the end. */
  imageService?: string
  imageMaxBytes: number
  /** Absent: scripts of callers are not run. `user`: as whom, if not as the agent's own. */
  execute?: { user?: string }
  /** Container images may be built here: what a Dockerfile runs, runs on this node. */
  dockerBuild: boolean
  /** Program and arguments that reboot the host. */
  rebootCommand?: string[]
  logLevel: string
  /** Set by systemd for a unit with Type=notify and WatchdogSec. */
  notifySocket?: string
  watchdogMs?: number
}

/** Reads the environment. Throws an Error whose message has one line a problem, each saying what to set. */
export function agentConfig(env: Readonly<Record<string, string | undefined>> = process.env): AgentConfig {
  const given = givenSettings(env)
  const read = v.safeParse(Settings, given.env)
  if (!read.success || given.problems.length > 0) {
    const lines = [...given.problems, ...(read.issues ?? []).map(issue => `${v.getDotPath(issue)}: ${issue.message}`)]
    throw new Error(`the agent's settings cannot be used:\n${lines.map(line => `  ${line}`).join('\n')}`)
  }
  const s = read.output as v.InferOutput<typeof Settings>
  return {
    natsServers: s.NATS_URL,
    stateDir: s.STATE_DIR,
    hypervisor: s.HYPERVISOR,
    simulatedNodes: s.SIMULATED_NODES,
    simulatedDelayMs: s.SIMULATED_DELAY_MS,
    libvirt: {
      uri: s.LIBVIRT_URI,
      socketPath: s.LIBVIRT_SOCKET,
      domainType: s.DOMAIN_TYPE,
      pool: s.STORAGE_POOL,
      poolPath: s.STORAGE_PATH,
      consoleFolder: s.CONSOLE_DIR,
    },
    logLevel: s.LOG_LEVEL,
    ...(s.NATS_SEED_FILE ? { natsSeedFile: s.NATS_SEED_FILE } : {}),
    ...(s.SERVER_UUID ? { serverUuid: s.SERVER_UUID } : {}),
    ...(s.NIC_TAGS ? { nicTags: s.NIC_TAGS } : {}),
    agentInstallDir: s.AGENT_INSTALL_DIR,
    ...(s.AGENT_INSTALL_ALLOW ? { agentInstallAllow: s.AGENT_INSTALL_ALLOW } : {}),
    dockerBuild: s.DOCKER_BUILD === 'on',
    streams: { host: s.STREAM_ADDRESS, port: s.STREAM_PORT },
    imageMaxBytes: s.IMAGE_MAX_GIB * 1024 ** 3,
    ...(s.IMGAPI_URL ? { imageService: s.IMGAPI_URL } : {}),
    ...(s.INSTALL_ALLOW ? { installAllow: s.INSTALL_ALLOW } : {}),
    ...(s.EXECUTE === 'on' ? { execute: s.EXECUTE_USER ? { user: s.EXECUTE_USER } : {} } : {}),
    ...(s.REBOOT_COMMAND ? { rebootCommand: s.REBOOT_COMMAND } : {}),
    ...(s.NOTIFY_SOCKET ? { notifySocket: s.NOTIFY_SOCKET } : {}),
    ...(s.WATCHDOG_USEC ? { watchdogMs: s.WATCHDOG_USEC / 1000 } : {}),
  }
}

const whole = (min: number, max: number) =>
  v.pipe(
    v.string(),
    v.regex(/^\d+$/, `must be a whole number from ${min} to ${max}`),
    v.transform(Number),
    v.minValue(min, `must be at least ${min}`),
    v.maxValue(max, `must be at most ${max}`),
  )

const hostNames = v.pipe(
  v.string(),
  v.transform(text =>
    text
      .split(',')
      .map(part => part.trim().toLowerCase())
      .filter(Boolean),
  ),
  v.array(v.pipe(v.string(), v.regex(/^[a-z0-9.:[\]-]+$/, 'must be host names, comma separated'))),
)

const Settings = v.pipe(
  v.object({
    NATS_URL: v.pipe(
      v.optional(v.string(), 'nats://127.0.0.1:4222'),
      v.transform(serversOf),
      v.minLength(1, 'must name at least one server, such as nats://127.0.0.1:4222'),
    ),
    NATS_SEED_FILE: v.optional(v.string()),
    STATE_DIR: v.pipe(
      v.optional(v.string(), ''),
      v.nonEmpty('must name the folder for what the agent must not forget, such as /var/lib/muster-agent'),
    ),
    SERVER_UUID: v.optional(v.pipe(Uuid, v.toLowerCase())),
    HYPERVISOR: v.pipe(
      v.optional(v.string(), ''),
      v.picklist(['libvirt', 'simulated'], 'must be libvirt or simulated'),
    ),
    SIMULATED_NODES: v.optional(whole(1, 20_000), '1'),
    SIMULATED_DELAY_MS: v.optional(whole(0, 60_000), '20'),
    LIBVIRT_URI: v.optional(v.string(), 'qemu:///system'),
    LIBVIRT_SOCKET: v.optional(v.string(), '/var/run/libvirt/libvirt-sock'),
    DOMAIN_TYPE: v.optional(v.picklist(['kvm', 'qemu'], 'must be kvm, or qemu where there is no KVM'), 'kvm'),
    STORAGE_POOL: v.optional(
      v.pipe(v.string(), v.regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/, 'must be the name of a libvirt storage pool')),
      'default',
    ),
    STORAGE_PATH: v.optional(v.pipe(v.string(), v.startsWith('/', 'must be absolute')), '/var/lib/libvirt/images'),
    CONSOLE_DIR: v.optional(v.pipe(v.string(), v.startsWith('/', 'must be absolute')), '/var/log/libvirt/qemu'),
    NIC_TAGS: v.optional(
      v.pipe(
        v.string(),
        v.rawTransform(({ dataset, addIssue, NEVER }) => {
          const tags: Record<string, string> = {}
          for (const part of dataset.value
            .split(',')
            .map(text => text.trim())
            .filter(Boolean)) {
            const [tag, bridge, more] = part.split('=')
            if (!tag || more !== undefined || !v.is(BridgeName, bridge)) {
              addIssue({ message: `${part} is not <nic tag>=<bridge>, such as admin=br0` })
              return NEVER
            }
            tags[tag] = bridge
          }
          return tags
        }),
      ),
    ),
    STREAM_ADDRESS: v.optional(
      v.pipe(
        v.string(),
        v.ip('must be an address of this node that other nodes reach, such as 10.0.0.5'),
        v.notValue('0.0.0.0', 'must be one address: others are told it'),
        v.notValue('::', 'must be one address: others are told it'),
      ),
      '127.0.0.1',
    ),
    STREAM_PORT: v.optional(whole(0, 65_535), '0'),
    INSTALL_ALLOW: v.optional(hostNames),
    AGENT_INSTALL_ALLOW: v.optional(hostNames),
    AGENT_INSTALL_DIR: v.optional(v.pipe(v.string(), v.startsWith('/', 'must be absolute')), defaultInstallerDir),
    IMGAPI_URL: v.optional(
      v.pipe(
        v.string(),
        v.regex(/^https?:\/\/[^\s?#]+$/, 'must be an http or https URL without ? and #'),
        v.transform(text => text.replace(/\/+$/, '')),
      ),
    ),
    IMAGE_MAX_GIB: v.optional(whole(1, 65_536), '256'),
    EXECUTE: v.optional(v.picklist(['on', 'off'], 'must be on or off'), 'off'),
    EXECUTE_USER: v.optional(
      v.pipe(v.string(), v.regex(/^[A-Za-z_][A-Za-z0-9_.-]{0,31}$/, 'must be the name of a user of this machine')),
    ),
    DOCKER_BUILD: v.optional(v.picklist(['on', 'off'], 'must be on or off'), 'off'),
    REBOOT_COMMAND: v.optional(
      v.pipe(
        v.string(),
        v.transform(text => text.split(/\s+/).filter(Boolean)),
        v.minLength(1, 'must be a program with its arguments, such as systemctl reboot'),
      ),
    ),
    LOG_LEVEL: v.optional(LogLevelName, 'info'),
    NOTIFY_SOCKET: v.optional(v.string()),
    WATCHDOG_USEC: v.optional(whole(1, Number.MAX_SAFE_INTEGER)),
  }),
  v.forward(
    v.partialCheck(
      [['HYPERVISOR'], ['SIMULATED_NODES']],
      ({ HYPERVISOR, SIMULATED_NODES }) => HYPERVISOR === 'simulated' || SIMULATED_NODES === 1,
      'only simulated nodes can be several in one process',
    ),
    ['SIMULATED_NODES'],
  ),
  v.forward(
    v.partialCheck(
      [['SERVER_UUID'], ['SIMULATED_NODES']],
      ({ SERVER_UUID, SIMULATED_NODES }) => SERVER_UUID === undefined || SIMULATED_NODES === 1,
      'cannot be given for several nodes: each keeps its own in STATE_DIR/<n>/uuid',
    ),
    ['SERVER_UUID'],
  ),
)
