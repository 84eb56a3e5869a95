/** The allocator process: keeps the fleet in memory and answers which server a VM should go to. */
import { hostname } from 'node:os'
import { pino } from 'pino'
import { connectNats, serversOf } from '../nats/connect.ts'
import { announce } from '../nats/micro.ts'
import { startAllocator } from './allocator.ts'
import { type Config, readConfig } from './config.ts'
import { serveAllocatorMetrics } from './metrics.ts'

const STOP_LIMIT_MS = 5_000

try {
  await run(readConfig())
} catch (error) {
  console.error(`allocator: ${error instanceof Error ? error.message : String(error)}`)
  process.exit(1)
}

async function run(config: Config): Promise<void> {
  const log = pino({ level: config.logLevel, base: { process: 'allocator', allocator: config.allocatorId } })
  if (config.idle.length > 0) log.info({ settings: config.idle }, 'these settings change nothing here')
  const nc = await connectNats({
    servers: serversOf(config.natsUrl),
    name: `allocator ${config.allocatorId}`,
    inboxOwner: 'allocator',
    ...(config.natsSeedFile ? { seedFile: config.natsSeedFile } : {}),
  })
  const { knobs, allocatorId } = config
  const allocator = await startAllocator({ nc, knobs, allocatorId, warn: (problem, err) => log.warn({ err }, problem) })
  const labels = {
    datacenter: config.datacenter,
    instance: allocatorId,
    server: hostname(),
    service: 'allocator',
  } as const
  const stopMetrics = serveAllocatorMetrics(nc, labels, allocator.fleet)
  const withdraw = await announce(nc, {
    name: 'allocator',
    version: config.version,
    description: 'Chooses servers for VMs',
    metadata: { allocator: config.allocatorId },
  })
  log.info({}, 'ready')

  let stopping = false
  const stop = async (signal: string) => {
    if (stopping) return
    stopping = true
    log.info({ signal }, 'stopping')
    setTimeout(() => process.exit(1), STOP_LIMIT_MS).unref()
    await withdraw()
    stopMetrics()
    await allocator.stop()
    await nc.drain()
    log.info({}, 'stopped')
    process.exit(0)
  }
  const closed = async () => {
    const error = await nc.closed()
    if (stopping) return
    log.fatal({ err: error }, 'the connection to NATS is closed for good')
    process.exit(1)
  }
  closed().catch(error => log.error({ err: error }, 'the connection is no longer watched'))
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      stop(signal).catch(error => {
        log.error({ err: error }, 'the stop failed')
        process.exit(1)
      })
    })
  }
}
