/**
 * Muster on a real nats-server: actor host, allocator and simulated nodes in this process, gateways as processes of their own with a
 * port each. `stop()` ends everything.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { capacities } from '../actors/allocation/capacity.ts'
import { KNOBS } from '../actors/allocation/fleet.ts'
import { openLink } from '../hypervisor-agent/link.ts'
import { startNode } from '../hypervisor-agent/node.ts'
import type { SimulatedHypervisor } from '../hypervisor-agent/simulated/simulated.ts'
import type { NodeTools } from '../hypervisor-agent/tools.ts'
import { projectDir } from '../scripts/config.ts'
import { createActorHost } from '../services/actor-host/host.ts'
import { startAllocator } from '../services/allocator/allocator.ts'
import { connectNats, type NatsConnection } from '../services/nats/connect.ts'
import { provision } from '../services/nats/provision.ts'
import { eventually } from './eventually.ts'
import { startNats, type TestNats } from './nats.ts'
import { openSimulatedNode } from './simulated-node.ts'

const silent = pino({ level: 'silent' })

export interface MusterFixture {
  nats: TestNats
  nc: NatsConnection
  /** Uuids of the nodes, in the order they were started. */
  servers: string[]
  hypervisors: SimulatedHypervisor[]
  gateway(): Promise<GatewayProcess>
  /** One more simulated node; resolves when the fleet knows it. */
  node(delayMs?: number): Promise<string>
  stop(): Promise<void>
}

export interface GatewayProcess {
  url: string
  pid: number
  ask(method: string, path: string, options?: Ask): Promise<Answered>
  /** Sends the signal and resolves with the exit code. */
  end(signal: NodeJS.Signals): Promise<number | null>
  log(): string
}

export interface Ask {
  body?: unknown
  headers?: Record<string, string>
  signal?: AbortSignal
}

export interface Answered {
  status: number
  headers: Headers
  // biome-ignore lint/suspicious/noExplicitAny: what a test expects of a body says its type
  body: any
}

export interface MusterOptions {
  nodes?: number
  /** What stands in for tools of every node. */
  throughTools?: (tools: NodeTools) => NodeTools
}

export async function startMuster({ nodes = 1, throughTools = t => t }: MusterOptions = {}): Promise<MusterFixture> {
  const nats = await startNats()
  const undo: (() => unknown)[] = [() => nats.stop()]
  const connection = async (inboxOwner: string) => {
    const nc = await connectNats({ servers: nats.urls, name: inboxOwner, inboxOwner })
    undo.push(() => nc.close())
    return nc
  }
  const nc = await connection('admin')
  await provision(nc)
  const host = createActorHost({ nc: await connection('host'), hostId: `test-${randomUUID()}`, log: silent })
  await host.start()
  undo.push(() => host.stop())
  const allocatorNc = await connection('allocator')
  const allocator = await startAllocator({
    nc: allocatorNc,
    knobs: KNOBS,
    allocatorId: randomBytes(4).toString('hex'),
    warn: () => {},
  })
  undo.push(() => allocator.stop())
  const { fleet } = allocator

  const fixture: MusterFixture = {
    nats,
    nc,
    servers: [],
    hypervisors: [],
    node: async (delayMs = 1) => {
      const uuid = randomUUID()
      const stateDir = mkdtempSync(join(tmpdir(), 'muster-node-'))
      const delays = { call: delayMs, boot: delayMs, acpi: delayMs }
      const { hypervisor, tools } = await openSimulatedNode({ seed: uuid, stateDir, delays, execute: {} })
      const agentNc = await connection(uuid)
      const timings = { settleMs: 20, apartMs: 60, heartbeatMs: 500, pressEveryMs: 40, lookEveryMs: 20 }
      const openAgentLink = () => openLink(agentNc, uuid)
      const node = { serverUuid: uuid, hypervisor, openLink: openAgentLink, stateDir, log: silent, timings }
      const agent = await startNode({ ...node, tools: throughTools(tools) })
      undo.push(
        () => rmSync(stateDir, { recursive: true, force: true }),
        () => hypervisor.close(),
        () => agent.stop(),
      )
      await eventually(
        async () => {
          await fleet.barrier()
          return uuid in capacities(fleet.index.layout()).capacities
        },
        { withinMs: 15_000, what: 'the node to be known' },
      )
      fixture.servers.push(uuid)
      fixture.hypervisors.push(hypervisor)
      return uuid
    },
    gateway: async () => {
      const made = await startGateway(nats.url)
      undo.push(() => made.end('SIGKILL'))
      return made
    },
    stop: async () => {
      for (const step of undo.splice(0).reverse()) await step()
    },
  }
  try {
    for (let n = 0; n < nodes; n++) await fixture.node()
  } catch (error) {
    await fixture.stop()
    throw error
  }
  return fixture
}

/** A gateway process that is expected to end by itself: its exit code and all it printed. */
export async function failingGateway(env: Record<string, string>): Promise<{ code: number | null; output: string }> {
  const { child, output } = spawnGateway(env)
  const [code] = await once(child, 'exit')
  return { code, output: output() }
}

function spawnGateway(env: Record<string, string>): { child: ChildProcess; output: () => string } {
  const child: ChildProcess = spawn(process.execPath, ['--import', 'tsx', join(projectDir, 'gateway/main.ts')], {
    cwd: projectDir,
    env: { PATH: process.env['PATH'], LOG_LEVEL: 'info', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on('data', chunk => {
      output += chunk
    })
  }
  return { child, output: () => output }
}

async function startGateway(natsUrl: string): Promise<GatewayProcess> {
  const { child, output } = spawnGateway({ NATS_URL: natsUrl, PORT: '0', METRICS_PORT: 'off' })
  const port = await eventually(() => /"port":(\d+),"msg":"listening"/.exec(output())?.[1], {
    withinMs: 15_000,
    what: 'a listening gateway',
  })
  const url = `http://127.0.0.1:${port}`
  return {
    url,
    pid: child.pid ?? 0,
    log: output,
    end: async signal => {
      if (child.exitCode !== null || child.signalCode !== null) return child.exitCode
      const ended = once(child, 'exit')
      child.kill(signal)
      const [code] = await ended
      return code
    },
    ask: async (method, path, { body, headers = {}, signal } = {}) => {
      const response = await fetch(`${url}${path}`, {
        method,
        headers: { ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        ...(signal ? { signal } : {}),
      })
      const text = await response.text()
      return { status: response.status, headers: response.headers, body: text === '' ? undefined : JSON.parse(text) }
    },
  }
}
