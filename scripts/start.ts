/**
 * `npm start`: Muster on one machine with one command. Brings up nats-server, an actor host, the allocator, the gateway and an
 * agent per node, each in its own process; says what runs where; ends them in reverse order on Ctrl-C. Data stays in DATA_DIR.
 */
import { mkdir } from 'node:fs/promises'
import { isIPv6 } from 'node:net'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { connectNats, type NatsConnection, serversOf } from '../services/nats/connect.ts'
import { isAnnounced } from '../services/nats/micro.ts'
import { provision } from '../services/nats/provision.ts'
import { type StartSettings, startSettings } from './config.ts'
import { ensureIdentities } from './keyring.ts'
import { ensureNatsServer } from './nats-server.ts'
import { nodeUuids, simulatedFolders } from './nodes.ts'
import { OperatorProblem, printed } from './operator-problem.ts'
import { checkDataDir, checkPort, chooseHypervisor, freePort, holdDataDir, watchDisk } from './preflight.ts'
import { actorHost, allocator, gateway, libvirtAgent, type NatsAccess, simulatedAgents } from './processes.ts'
import { type Supervisor, supervisor } from './supervise.ts'

/**
 * Starts everything; resolves when it serves, with how to stop it. Throws OperatorProblem for what the operator can change,
 * and stops half-way, leaving nothing running, when `signal` aborts.
 */
export async function start(settings: StartSettings, say: Say, signal: AbortSignal): Promise<() => Promise<void>> {
  const { dataDir, port, address } = settings
  await checkDataDir(dataDir)
  const undo: (() => unknown)[] = [await holdDataDir(dataDir)]
  const stop = async () => {
    for (const step of undo.splice(0).reverse()) await step()
  }
  try {
    await checkPort(port, address)
    const chosen = await chooseHypervisor(settings.hypervisor, settings.libvirtSockets)
    const servers = await nodeUuids(
      dataDir,
      chosen.hypervisor,
      chosen.hypervisor === 'libvirt' ? 1 : settings.simulatedNodes,
    )
    const logDir = join(dataDir, 'logs')
    await mkdir(logDir, { recursive: true, mode: 0o700 })
    const children = supervisor({ logDir, say, signal })
    // A nats-server that once could not write gives up the stream until it is started again.
    undo.push(
      () => children.stop(),
      watchDisk(dataDir, say, () => children.restart('nats-server')),
    )

    const nats = settings.natsUrl
      ? operatorsNats(settings.natsUrl, settings)
      : await ownNats(settings, servers, children, say)
    const nc = await connectAsAdmin(nats)
    undo.push(() => nc.close())
    await advised(provision(nc))

    const context = { nats, env: settings.env }
    const url = `http://${isIPv6(address) ? `[${address}]` : address}:${port}`
    await children.start(actorHost(context), () => isAnnounced(nc, 'actor-host'))
    await children.start(allocator(context), () => isAnnounced(nc, 'allocator'))
    await children.start(gateway(context, { port, address }), () => answers(`${url}/ping`))
    const stateDir = join(dataDir, 'agents', chosen.hypervisor)
    const agents =
      chosen.hypervisor === 'libvirt'
        ? libvirtAgent(context, { serverUuid: servers[0] ?? '', stateDir, socket: chosen.socket })
        : simulatedAgents(context, { serverUuids: await simulatedFolders(stateDir, servers), stateDir })
    await children.start(agents, () => allRunning(url, servers))
    const nodes =
      servers.length === 1
        ? `agent of server ${servers[0]}: ${chosen.hypervisor}`
        : `agents of ${servers.length} servers: ${chosen.hypervisor}`
    for (const line of [
      `Muster runs. Data: ${dataDir}, logs: ${logDir}`,
      `  nats-server ${nc.info?.version} at ${nats.url}`,
      `  gateway at ${url}`,
      `  ${nodes} (${chosen.because})`,
      'Try:',
      `  curl ${url}/servers`,
      'Ctrl-C stops everything; the next start finds it as it was.',
    ])
      say(line)
    return stop
  } catch (error) {
    await stop()
    throw error
  }
}

type Say = (line: string) => void

/** A server of our own, known to nobody else: its keys, its configuration and its store are in the data folder. */
async function ownNats(
  settings: StartSettings,
  servers: string[],
  children: Supervisor,
  say: Say,
): Promise<NatsAccess> {
  const { dataDir } = settings
  const { path } = await ensureNatsServer(settings.natsServer, say)
  const port = (await freePort(4222)) ?? (await freePort(0))
  const { confFile, seedFile } = await ensureIdentities(dataDir, servers)
  const url = `nats://127.0.0.1:${port}`
  const pidFile = join(dataDir, 'nats/nats-server.pid')
  const program = {
    name: 'nats-server',
    file: 'nats-server',
    command: path,
    args: ['-c', confFile, '-a', '127.0.0.1', '-p', String(port), '-P', pidFile],
    env: { ...settings.env, NATS_NAME: 'muster', NATS_STORE: join(dataDir, 'nats/store') },
  }
  const nats = { url, seedFile }
  const asAdmin = async (act: (nc: NatsConnection) => Promise<void>) => {
    const nc = await connectAsAdmin(nats)
    await act(nc).finally(() => nc.close())
  }
  const ready = () => asAdmin(async () => {}).then(() => true)
  // Buckets in memory are gone when their only server ends, and nobody else may make them.
  await children.start(program, ready, { again: () => asAdmin(provision) })
  return nats
}

/** A server of the operator's: its keys are the operator's affair, so one seed file (or none) serves every process here. */
function operatorsNats(url: string, { natsSeedFile }: StartSettings): NatsAccess {
  return { url, seedFile: () => natsSeedFile }
}

function connectAsAdmin(nats: NatsAccess): Promise<NatsConnection> {
  const seedFile = nats.seedFile('admin')
  const options = { servers: serversOf(nats.url), name: 'muster start', inboxOwner: 'admin' }
  return advised(connectNats(seedFile ? { ...options, seedFile } : options))
}

/** What the NATS room refuses (a server too old, no JetStream, no mappings, no connection) is for the operator to put right. */
async function advised<T>(attempt: Promise<T>): Promise<T> {
  try {
    return await attempt
  } catch (error) {
    throw new OperatorProblem((error as Error).message, { cause: error })
  }
}

/** Whether a GET answers 200. */
async function answers(url: string): Promise<boolean> {
  return (await fetch(url, { signal: AbortSignal.timeout(5_000) })).ok
}

async function allRunning(url: string, servers: string[]): Promise<boolean> {
  const response = await fetch(`${url}/servers`, { signal: AbortSignal.timeout(5_000) })
  const shown = (await response.json()) as { uuid: string; status: string }[]
  const running = new Set(shown.filter(({ status }) => status === 'running').map(({ uuid }) => uuid))
  return servers.every(uuid => running.has(uuid))
}

/** Runs until a signal: the first ends everything in order, a second one at once. */
async function run(settings: StartSettings, say: Say): Promise<void> {
  const interrupted = new AbortController()
  const signalled = new Promise<void>(resolve => {
    const interrupt = () => {
      if (interrupted.signal.aborted) return
      say('stopping')
      interrupted.abort()
      resolve()
    }
    for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      process.on(name, () => (interrupted.signal.aborted ? process.exit(130) : interrupt()))
    }
    // A signal to npm ends npm and its shell only.
    const parent = process.ppid
    if (settings.startedByNpm) setInterval(() => process.ppid !== parent && interrupt(), 250).unref()
  })
  const stop = await start(settings, say, interrupted.signal).catch(error => {
    if (interrupted.signal.aborted) return undefined
    throw error
  })
  if (stop) {
    await signalled
    await stop()
  }
  say('stopped')
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  try {
    await run(startSettings(), line => console.log(line))
    process.exit(0)
  } catch (error) {
    console.error(`muster: ${printed(error)}`)
    process.exit(1)
  }
}
