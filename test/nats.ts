/**
 * A real nats-server (or three) on random ports with a fresh store, thrown away after: never somebody else's server.
 * Runs the project's own nats.conf, so tests meet the mappings and the fsync that operators get.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { connect } from 'nats'
import { projectDir } from '../scripts/config.ts'
import { ensureNatsServer } from '../scripts/nats-server.ts'
import { eventually } from './eventually.ts'

export interface NatsOptions {
  /** One server, or a cluster of three; then wait for its meta leader is included. */
  servers?: 1 | 3
  /** More configuration after nats.conf; a block given here replaces the one of that name. `$NATS_STORE` is the store folder. */
  conf?: string
  /** `false` leaves nats.conf out: no JetStream, no mappings. What `conf` says is then all there is. */
  muster?: boolean
  /** The program, when not the one the project would use. */
  program?: string
  /** Store folder, when the test needs one of its own making (a small disk); kept by stop(). */
  storeDir?: string
}

export interface TestNats {
  /** All servers, comma separated, as NATS_URL takes them. */
  url: string
  urls: string[]
  /** Process ids now, one per server; undefined while killed. */
  pids: () => (number | undefined)[]
  /** Path of each server's configuration: rewrite it and call reload(). */
  confFiles: string[]
  storeDirs: string[]
  /** kill -9 of server n (from 0); resolves when it is gone. */
  kill(n?: number, signal?: NodeJS.Signals): Promise<void>
  /** Starts server n again on its port and store; resolves when it answers. */
  restart(n?: number): Promise<void>
  /** SIGHUP of server n. */
  reload(n?: number): void
  log(n?: number): string
  stop(): Promise<void>
}

/** Starts one nats-server or a cluster of three. Call stop() in an after hook; the runner kills what is forgotten. */
export async function startNats(options: NatsOptions = {}): Promise<TestNats> {
  const { servers = 1, conf = '', muster = true } = options
  const program = options.program ?? (await ensureNatsServer()).path
  const folder = mkdtempSync(join(tmpdir(), 'muster-nats-'))
  const include = muster ? `include "${relative(folder, join(projectDir, 'nats.conf'))}"\n` : ''
  const routes = servers === 3 ? await freePorts(3) : []
  const nodes: Node[] = Array.from({ length: servers }, (_, n) => ({
    name: `n${n + 1}`,
    port: -1,
    route: routes[n],
    confFile: join(folder, `n${n + 1}.conf`),
    storeDir: options.storeDir ?? join(folder, `store${n + 1}`),
    child: undefined,
    output: '',
  }))
  // The name stands in the file: a server named on its command line refuses to reload.
  for (const node of nodes) writeFileSync(node.confFile, `${include}server_name: ${node.name}\n${conf}`)

  const start = async (node: Node) => {
    const cluster = routes.map(port => `nats-route://127.0.0.1:${port}`)
    const args = [
      ...['-c', node.confFile, '-a', '127.0.0.1', '-p', String(node.port)],
      ...['--ports_file_dir', folder],
      ...(node.route ? ['--cluster_name', 'muster-test', '--cluster', `nats://127.0.0.1:${node.route}`] : []),
      ...(node.route ? ['--routes', cluster.join(',')] : []),
    ]
    const env = { ...process.env, NATS_NAME: node.name, NATS_STORE: node.storeDir }
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], env })
    node.child = child
    for (const stream of [child.stdout, child.stderr]) stream.on('data', chunk => (node.output += chunk))
    child.on('exit', () => (node.child = node.child === child ? undefined : node.child))
    const port = await eventually(
      () => {
        if (child.exitCode !== null) return -1
        const file = readdirSync(folder).find(name => name.endsWith(`_${child.pid}.ports`))
        const told = file ? readFileSync(join(folder, file), 'utf8') : ''
        return Number(/"nats:\/\/[^"]*:(\d+)"/.exec(told)?.[1])
      },
      { withinMs: 15_000, what: 'the ports file of nats-server' },
    )
    if (port === -1) throw new Error(`nats-server ended at once:\n${node.output}`)
    node.port = port
  }

  const stop = async () => {
    await Promise.all(nodes.map(node => end(node, 'SIGKILL')))
    rmSync(folder, { recursive: true, force: true })
  }

  try {
    await Promise.all(nodes.map(start))
    if (servers === 3) await hasMetaLeader(nodes)
  } catch (error) {
    await stop()
    throw error
  }

  const at = (n: number): Node => {
    const node = nodes[n]
    if (!node) throw new Error(`there is no server ${n}`)
    return node
  }
  const urls = nodes.map(node => `nats://127.0.0.1:${node.port}`)
  return {
    url: urls.join(','),
    urls,
    pids: () => nodes.map(node => node.child?.pid),
    confFiles: nodes.map(node => node.confFile),
    storeDirs: nodes.map(node => node.storeDir),
    kill: (n = 0, signal = 'SIGKILL') => end(at(n), signal),
    restart: async (n = 0) => {
      await end(at(n), 'SIGKILL')
      await start(at(n))
    },
    reload: (n = 0) => void at(n).child?.kill('SIGHUP'),
    log: (n = 0) => at(n).output,
    stop,
  }
}

/** Ports nobody listens on at this moment; all are held until the last is known, so they differ. */
export async function freePorts(count: number): Promise<number[]> {
  const held = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer()
      await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
      return server
    }),
  )
  const ports = held.map(server => (server.address() as { port: number }).port)
  await Promise.all(held.map(server => new Promise(resolve => server.close(resolve))))
  return ports
}

interface Node {
  name: string
  port: number
  route: number | undefined
  confFile: string
  storeDir: string
  child: ChildProcess | undefined
  output: string
}

async function end(node: Node, signal: NodeJS.Signals): Promise<void> {
  const child = node.child
  if (!child || child.exitCode !== null || child.signalCode !== null) return
  const gone = new Promise<void>(resolve => child.once('exit', () => resolve()))
  child.kill(signal)
  await gone
  if (node.child === child) node.child = undefined
}

/** A cluster refuses JetStream for some seconds after a cold start; a test should not meet that by chance. */
async function hasMetaLeader(nodes: Node[]): Promise<void> {
  const nc = await connect({ servers: nodes.map(node => `127.0.0.1:${node.port}`) })
  try {
    const ask = async (subject: string, body = '') =>
      (await nc.request(`$JS.API.STREAM.${subject}.ready`, body, { timeout: 1_000 })).json<{ error?: unknown }>()
    const probe = JSON.stringify({ name: 'ready', subjects: ['ready.probe'], storage: 'memory', num_replicas: 3 })
    const made = async () => !(await ask('CREATE', probe)).error
    await eventually(made, { withinMs: 20_000, everyMs: 100, what: 'a meta leader of the cluster' })
    await eventually(async () => !(await ask('DELETE')).error, { what: 'the end of the probe stream' })
  } finally {
    await nc.close()
  }
}
