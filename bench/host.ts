/**
 * An actor host with nothing but the runtime and the real actors, for figures of the runtime alone. Arguments: NATS address, host id, and
 * `unbatched` for a put per command, which only shows what batches bring. The other measures run services/actor-host itself.
 */
import { pino } from 'pino'
import { connectNats, serversOf } from '../services/nats/connect.ts'
import { decide } from '../services/runtime/decide.ts'
import { createRuntime } from '../services/runtime/runtime.ts'

const [url = '', hostId = 'bench', mode] = process.argv.slice(2)
const nc = await connectNats({ servers: serversOf(url), name: `bench ${hostId}`, inboxOwner: 'host' })
const runtime = createRuntime({
  nc,
  hostId: `${hostId}-${process.pid}`,
  kinds: ['cn', 'vm', 'host'],
  decide,
  log: pino({ level: 'warn' }),
  batching: mode !== 'unbatched',
})
await runtime.start()
process.once('SIGTERM', async () => {
  await runtime.stop()
  await nc.drain()
})
