/** The agent's process: reads its settings, opens its hypervisor, connects, and works until it is told to stop. */
import { join } from 'node:path'
import { connectNats, type NatsConnection } from '../services/nats/connect.ts'
import { type Agent, startAgent } from './agent.ts'
import { type AgentConfig, agentConfig } from './config.ts'
import type { Hypervisor } from './hypervisor.ts'
import { serverIdentity } from './identity.ts'
import { libvirtHypervisor } from './libvirt/libvirt.ts'
import { openLink } from './link.ts'
import { openLog } from './log.ts'
import { openVswitch } from './openvswitch/bridges.ts'
import { serviceManager } from './service-manager.ts'
import { simulatedHypervisor } from './simulated/simulated.ts'

try {
  await run(agentConfig(process.env))
} catch (error) {
  console.error((error as Error).message)
  process.exit(1)
}

interface Node {
  serverUuid: string
  stateDir: string
  hypervisor: Hypervisor
}

async function run(config: AgentConfig): Promise<void> {
  const log = openLog(config.logLevel)
  const manager = serviceManager({ ...config, log })
  const nodes = await openNodes(config, line => log.warn(line))
  const { natsServers, natsSeedFile } = config
  // Ready means: state and hypervisor are there. NATS may come later, and an agent does not wait for it to be called started.
  await manager.ready(`hypervisor ${config.hypervisor} answers; connecting to ${natsServers.join(', ')}`)
  const connections: NatsConnection[] = []
  const stopWatching = manager.watch(async () => {
    await Promise.all(nodes.slice(0, 1).map(node => settled(node.hypervisor.ping())))
    await Promise.all(connections.slice(0, 1).map(nc => settled(nc.rtt())))
    return connections.every(nc => !nc.isClosed())
  })

  const agents: Agent[] = []
  let isStopping = false
  const stop = async (signal: string) => {
    if (isStopping) return
    isStopping = true
    log.info({ signal }, 'stopping; running tasks stay in the journal, guests are not touched')
    stopWatching()
    await manager.stopping()
    await Promise.all(agents.map(agent => agent.stop()))
    const drained = Promise.all(connections.map(nc => nc.drain()))
    await Promise.race([drained.catch(() => {}), new Promise(resolve => setTimeout(resolve, stopLimitMs))])
    await Promise.race([
      Promise.all(nodes.map(node => node.hypervisor.close())),
      new Promise(r => setTimeout(r, stopLimitMs)),
    ])
    process.exit(0)
  }
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      stop(signal).catch(error => {
        log.error({ err: error }, 'it did not stop in order')
        process.exit(1)
      })
    })
  }

  const connect = async (serverUuid: string): Promise<NatsConnection> => {
    const seedFile = natsSeedFile?.replaceAll('{uuid}', serverUuid)
    const nc = await connectNats({
      servers: natsServers,
      name: `hypervisor-agent ${serverUuid}`,
      inboxOwner: serverUuid,
      wait: true,
      ...(seedFile ? { seedFile } : {}),
    })
    connections.push(nc)
    nc.closed().then(
      reason => {
        if (isStopping) return
        log.error(
          { err: reason },
          'the connection to NATS is closed for good; whoever started the agent starts it again',
        )
        process.exit(1)
      },
      () => {},
    )
    return nc
  }

  let shared: NatsConnection | undefined
  for (const { serverUuid, stateDir, hypervisor } of nodes) {
    const isOwn = nodes.length === 1 || natsSeedFile?.includes('{uuid}')
    const nc: NatsConnection = isOwn || !shared ? await connect(serverUuid) : shared
    shared = nc
    agents.push(
      await startAgent({
        serverUuid,
        stateDir,
        hypervisor,
        link: openLink(nc, serverUuid),
        log: log.child({ server_uuid: serverUuid }),
        ...(config.installAllow ? { installAllow: config.installAllow } : {}),
      }),
    )
  }
  log.info({ servers: agents.length, hypervisor: config.hypervisor }, 'the agent works')
  await manager.status(`connected; hypervisor ${config.hypervisor}, ${agents.length} server(s)`)
}

const stopLimitMs = 3_000

/** One node, or several simulated ones, each with a folder of its own. */
async function openNodes(config: AgentConfig, note: (line: string) => void): Promise<Node[]> {
  const { simulatedNodes: count, stateDir } = config
  if (count === 1) return [await openNode(config, stateDir, note)]
  const nodes: Node[] = []
  for (let n = 1; n <= count; n++) nodes.push(await openNode(config, join(stateDir, String(n)), note))
  return nodes
}

async function openNode(config: AgentConfig, stateDir: string, note: (line: string) => void): Promise<Node> {
  const serverUuid = await serverIdentity(stateDir, config.serverUuid)
  const hypervisor = hypervisors[config.hypervisor](config, { serverUuid, stateDir, note })
  await hypervisor.open()
  return { serverUuid, stateDir, hypervisor }
}

interface Place {
  serverUuid: string
  stateDir: string
  note: (line: string) => void
}

const hypervisors: Record<AgentConfig['hypervisor'], (config: AgentConfig, place: Place) => Hypervisor> = {
  libvirt: ({ libvirt, nicTags = {} }, { note }) =>
    libvirtHypervisor({ ...libvirt, nicTags, openvswitch: openVswitch({ nicTags, note }) }),
  simulated: ({ simulatedDelayMs: delay, nicTags }, { serverUuid, stateDir }) =>
    simulatedHypervisor({
      seed: serverUuid,
      folder: stateDir,
      images: { 'debian-12': 2048 },
      delays: { call: delay, boot: 10 * delay, acpi: 25 * delay, install: 150 * delay },
      ...(nicTags ? { nicTags } : {}),
    }),
}

/** Whether something answered, be it with a refusal: what is down is not cured by a restart of the agent, what hangs may be. */
const settled = (answer: Promise<unknown>): Promise<unknown> => answer.catch(() => {})
