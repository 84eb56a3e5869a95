/** Makes the buckets of a NATS cluster, once, before any host runs: NATS_URL, NATS_SEED_FILE of admin. Waits until the cluster is there. */
import { connectNats, serversOf } from '../services/nats/connect.ts'
import { provision } from '../services/nats/provision.ts'
import { connectionSettings } from './config.ts'

try {
  const { natsUrl, natsSeedFile } = connectionSettings()
  const options = { servers: serversOf(natsUrl), name: 'muster provision', inboxOwner: 'admin', wait: true }
  const nc = await connectNats(natsSeedFile ? { ...options, seedFile: natsSeedFile } : options)
  await provision(nc)
  console.log(`buckets are ready on nats-server ${nc.info?.version}`)
  await nc.close()
} catch (error) {
  console.error(`muster: ${(error as Error).message}`)
  process.exit(1)
}
