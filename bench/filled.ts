/** A nats-server whose buckets were filled quickly, synced by the clock; then started again as operators run it, synced always. */
import { readFileSync, writeFileSync } from 'node:fs'
import type { NatsConnection } from '../services/nats/connect.ts'
import { provision } from '../services/nats/provision.ts'
import type { TestNats } from '../test/nats.ts'
import type { Scope } from './scope.ts'

export interface Filled {
  nats: TestNats
  nc: NatsConnection
  /** From its start until the server with the full store answers for its streams, ms. */
  recoveryMs: number
}

const relaxedSync = `jetstream { store_dir: $NATS_STORE, sync_interval: "2m" }`

/** One server; `load` writes what is to be there. */
export async function filledNats(scope: Scope, load: (nc: NatsConnection) => Promise<unknown>): Promise<Filled> {
  const nats = await scope.nats({ conf: relaxedSync })
  const loading = await scope.connect(nats)
  await provision(loading)
  await load(loading)
  await loading.close()
  const [confFile = ''] = nats.confFiles
  writeFileSync(confFile, readFileSync(confFile, 'utf8').replace(relaxedSync, ''))
  await nats.kill(0, 'SIGTERM')
  const began = performance.now()
  await nats.restart(0)
  const nc = await scope.connect(nats)
  await provision(nc)
  return { nats, nc, recoveryMs: performance.now() - began }
}
