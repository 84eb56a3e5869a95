/** The gateway process: connects, fills its views, listens, and on SIGTERM or SIGINT answers what it has before it leaves. */
import { once } from 'node:events'
import type { Server } from 'node:http'
import { serve } from '@hono/node-server'
import { type Logger, pino } from 'pino'
import { connectNats, type NatsConnection, serversOf } from '../services/nats/connect.ts'
import { askMetrics, onReconnect } from '../services/nats/metrics.ts'
import { announce } from '../services/nats/micro.ts'
import { createApp } from './app.ts'
import type { Backend } from './backend.ts'
import { type Config, readConfig } from './config.ts'
import { createGatewayMetrics, type GatewayMetrics, type MetricsServer, serveMetrics } from './metrics.ts'
import { openNatsBackend } from './nats-backend.ts'
import { routes } from './routes.ts'

/** Longest a stop waits for requests under way; a TaskWait that is still open then is asked again elsewhere by its caller. */
const STOP_GRACE_MS = 5_000
const STOP_LIMIT_MS = 15_000

try {
  await run(readConfig())
} catch (error) {
  console.error(`gateway: ${error instanceof Error ? error.message : String(error)}`)
  process.exit(1)
}

async function run(config: Config): Promise<void> {
  const log = pino({ level: config.logLevel, base: { process: 'gateway', gateway: config.gatewayId } })
  const nc = await connectNats({
    servers: serversOf(config.natsUrl),
    name: `gateway ${config.gatewayId}`,
    inboxOwner: 'gateway',
    ...(config.natsSeedFile ? { seedFile: config.natsSeedFile } : {}),
  })
  const backend = await openNatsBackend({
    nc,
    sender: `gateway-${config.gatewayId}-${process.pid}-${Date.now().toString(36)}`,
    warn: (problem, err) => log.warn({ err }, problem),
  })
  const withdraw = await announce(nc, {
    name: 'gateway',
    version: config.version,
    description: 'REST API of Muster',
    metadata: { gateway: config.gatewayId, port: String(config.port) },
  })
  if (config.idle.length > 0) log.info({ settings: config.idle }, 'these settings change nothing here')
  const { version, serverName } = config
  const startedAt = new Date()
  const metrics = createGatewayMetrics(
    { datacenter: config.datacenter, instance: config.gatewayId, server: serverName },
    { openTasks: backend.openTasks, servers: () => statuses(backend), readers: backend.events.readers },
  )
  onReconnect(nc, metrics.reconnected)
  const app = createApp({
    rows: routes(version, { version, startedAt, log }),
    backend,
    log,
    version,
    serverName,
    observe: metrics.observe,
  })
  const server = serve({ fetch: app.fetch, port: config.port, hostname: config.host }) as Server
  server.on('error', error => {
    const taken = (error as NodeJS.ErrnoException).code === 'EADDRINUSE'
    console.error(`gateway: ${taken ? `port ${config.port} is in use: set PORT to another` : error.message}`)
    process.exit(1)
  })
  await once(server, 'listening')
  const address = server.address()
  log.info({ host: config.host, port: typeof address === 'object' ? address?.port : config.port }, 'listening')

  const scraped = config.metrics && (await openMetrics(config.metrics, metrics, nc, log))

  let stopping = false
  const closed = async () => {
    const error = await nc.closed()
    if (stopping) return
    log.fatal({ err: error }, 'the connection to NATS is closed for good')
    process.exit(1)
  }
  closed().catch(error => log.error({ err: error }, 'the connection is no longer watched'))
  const stop = async (signal: string) => {
    if (stopping) return
    stopping = true
    log.info({ signal }, 'stopping')
    setTimeout(() => process.exit(1), STOP_LIMIT_MS).unref()
    // Open waits would hold close() for up to an hour.
    const drained = new Promise(resolve => server.close(resolve))
    backend.endStreams()
    server.closeIdleConnections()
    const late = setTimeout(() => server.closeAllConnections(), STOP_GRACE_MS)
    await drained
    clearTimeout(late)
    scraped?.close()
    await withdraw()
    backend.close()
    await nc.drain()
    log.info({}, 'stopped')
    process.exit(0)
  }
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      stop(signal).catch(error => {
        log.error({ err: error }, 'the stop failed')
        process.exit(1)
      })
    })
  }
}

/** Several gateways on one machine meet on the documented port: without one asked for, the later ones go on without. */
async function openMetrics(
  { port, host, isDefault }: NonNullable<Config['metrics']>,
  metrics: GatewayMetrics,
  nc: NatsConnection,
  log: Logger,
): Promise<MetricsServer | undefined> {
  try {
    const served = await serveMetrics({ port, host }, metrics.own, () => askMetrics(nc))
    log.info({ host, metrics_port: served.port }, 'metrics')
    return served
  } catch (cause) {
    if (!isDefault) throw new Error(`METRICS_PORT ${port}: ${(cause as Error).message}`, { cause })
    log.warn({ err: cause }, `no metrics: port ${port} cannot be listened on; set METRICS_PORT to another, or off`)
    return undefined
  }
}

function statuses(backend: Backend): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const { status } of backend.servers.all()) counts[status] = (counts[status] ?? 0) + 1
  return counts
}
