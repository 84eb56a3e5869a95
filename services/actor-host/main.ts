/** The actor host process: connects, refuses a NATS server it cannot live on, takes its partitions, and on SIGTERM hands them over. */
import { hostname } from 'node:os'
import { pino } from 'pino'
import { connectNats, serversOf } from '../nats/connect.ts'
import { announce } from '../nats/micro.ts'
import { checkProvisioned, checkServer } from '../nats/provision.ts'
import { type Config, readConfig } from './config.ts'
import { createActorHost } from './host.ts'

/** Longest a stop may take; then the leases run out by themselves. */
const STOP_LIMIT_MS = 15_000

try {
  await run(readConfig())
} catch (error) {
  console.error(`actor-host: ${error instanceof Error ? error.message : String(error)}`)
  process.exit(1)
}

async function run(config: Config): Promise<void> {
  const log = pino({ level: config.logLevel, base: { process: 'actor-host', host: config.hostId } })
  if (config.idle.length > 0) log.info({ settings: config.idle }, 'these settings change nothing here')
  const nc = await connectNats({
    servers: serversOf(config.natsUrl),
    name: `actor-host ${config.hostId}`,
    inboxOwner: 'host',
    ...(config.natsSeedFile ? { seedFile: config.natsSeedFile } : {}),
  })
  await checkServer(nc, { mappings: 'commands' })
  await checkProvisioned(nc)
  const { hostId, ticketKeptMs, datacenter, smtEnabled } = config
  const fresh = { datacenter, ...(smtEnabled === undefined ? {} : { boot_params: { smt_enabled: smtEnabled } }) }
  const labels = { datacenter, instance: hostId, server: hostname(), service: 'actor-host' } as const
  const host = createActorHost({ nc, hostId, log, ticketKeptMs, fresh, labels })
  await host.start()
  const withdraw = await announce(nc, {
    name: 'actor-host',
    version: config.version,
    description: 'Owner of actors: compute nodes, VMs, hosts, waitlists',
    metadata: { host: config.hostId },
  })
  log.info(host.stats(), 'live')

  let stopping = false
  const closed = async () => {
    const error = await nc.closed()
    if (stopping) return
    log.fatal({ err: error }, 'the connection to NATS is closed for good')
    process.exit(1)
  }
  closed().catch(error => log.error({ err: error }, 'the connection is no longer watched'))
  const watch = async () => {
    for await (const status of nc.status()) {
      if (status.type === 'disconnect' || status.type === 'reconnect') log.warn({ server: status.server }, status.type)
      else if (status.type === 'error') log.error({ err: status.error }, 'NATS refused something')
    }
  }
  watch().catch(error => log.error({ err: error }, 'the connection is no longer watched'))

  const stop = async (signal: string) => {
    if (stopping) return
    stopping = true
    log.info({ signal }, 'handing over')
    setTimeout(() => process.exit(1), STOP_LIMIT_MS).unref()
    await withdraw()
    await host.stop()
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
