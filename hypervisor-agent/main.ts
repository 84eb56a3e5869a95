/** The agent's process: reads its settings, opens its hypervisor, connects, and works until it is told to stop. */
import { connectNats, type NatsConnection } from '../services/nats/connect.ts'
import type { Agent } from './agent.ts'
import { agentConfig } from './config.ts'
import { openLink } from './link.ts'
import { openLog } from './log.ts'
import { startNode } from './node.ts'
import { openNodes } from './nodes.ts'
import { serviceManager } from './service-manager.ts'
import { holdStateDir } from './state-lock.ts'

run().catch(error => {
  console.error((error as Error).message)
  process.exit(1)
})

async function run(): Promise<void> {
  const config = agentConfig()
  const log = openLog(config.logLevel)
  const manager = serviceManager({ ...config, log })
  const giveBack = await holdStateDir(config.stateDir)
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
    await giveBack()
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

  log.info({ servers: natsServers, hypervisor: config.hypervisor }, 'connecting to NATS')
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
  for (const { serverUuid, stateDir, hypervisor, tools } of nodes) {
    const isOwn = nodes.length === 1 || natsSeedFile?.includes('{uuid}')
    const nc: NatsConnection = isOwn || !shared ? await connect(serverUuid) : shared
    shared = nc
    agents.push(
      await startNode({
        serverUuid,
        stateDir,
        hypervisor,
        tools,
        openLink: () => openLink(nc, serverUuid),
        streams: config.streams,
        log: log.child({ server_uuid: serverUuid }),
        ...(config.installAllow ? { installAllow: config.installAllow } : {}),
        imageMaxBytes: config.imageMaxBytes,
        agentInstallDir: config.agentInstallDir,
        ...(config.agentInstallAllow ? { agentInstallAllow: config.agentInstallAllow } : {}),
        ...(config.imageService ? { imageService: config.imageService } : {}),
      }),
    )
  }
  log.info({ servers: agents.length, hypervisor: config.hypervisor }, 'the agent works')
  await manager.status(`connected; hypervisor ${config.hypervisor}, ${agents.length} server(s)`)
}

const stopLimitMs = 3_000

/** Whether something answered, be it with a refusal: what is down is not cured by a restart of the agent, what hangs may be. */
const settled = (answer: Promise<unknown>): Promise<unknown> => answer.catch(() => {})
