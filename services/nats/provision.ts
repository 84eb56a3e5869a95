/**
 * Makes every bucket in one step, before any host runs: two hosts creating the same one at once is a race that NATS loses.
 * Idempotent; what it cannot make so is said in one line.
 */
import { type JetStreamManager, jetstreamManager, type StreamConfig } from '@nats-io/jetstream'
import { codes, JetStreamRefusal, managed, UnavailableError } from './api.ts'
import { allKeys, BUCKETS, type Bucket, type BucketOptions, streamOf } from './buckets.ts'
import { checkServer } from './check-server.ts'
import type { NatsConnection } from './connect.ts'

export { checkServer } from './check-server.ts'

export interface ProvisionOptions {
  /** Copies of every bucket; default 3 in a cluster, else 1. */
  replicas?: 1 | 3 | 5
}

/** Checks the server and makes what is missing. Throws an Error whose message says what to do. */
export async function provision(nc: NatsConnection, options: ProvisionOptions = {}): Promise<void> {
  await checkServer(nc)
  const replicas = options.replicas ?? (nc.info?.cluster ? 3 : 1)
  const manager = await managerOf(nc)
  for (const [bucket, row] of Object.entries(BUCKETS)) await make(manager, bucket as Bucket, row, replicas)
}

/** Throws an Error of one line when a bucket is missing: hosts only open them. */
export async function checkProvisioned(nc: NatsConnection): Promise<void> {
  const missing: string[] = []
  const manager = await managerOf(nc)
  for (const bucket of Object.keys(BUCKETS) as Bucket[]) {
    if (!(await look(manager, streamOf(bucket)))) missing.push(bucket)
  }
  if (missing.length > 0) {
    throw new Error(
      `buckets are missing (${missing.join(', ')}): make them once with scripts/provision.ts; npm start does it by itself`,
    )
  }
}

const ns = 1e6
/** Servers of 2.15 and later allow 1000 consumers where none is named; -1 no longer means "any number". */
const maxConsumers = 100_000
/** How long the mark of an expired key stays, so that who follows the bucket learns of it. */
const markerMs = 10_000

/** A single server forgets a stream in memory, name and all, when it restarts; copies in a cluster do not. */
const storageOf = (row: BucketOptions, replicas: number) => (replicas === 1 ? 'file' : row.storage)

function configOf(bucket: Bucket, row: BucketOptions, replicas: number) {
  return {
    name: streamOf(bucket),
    description: row.description,
    subjects: [allKeys(bucket)],
    retention: 'limits',
    storage: storageOf(row, replicas),
    num_replicas: replicas,
    max_msgs_per_subject: 1,
    max_msg_size: row.maxValueBytes,
    max_age: (row.maxAgeMs ?? 0) * ns,
    max_consumers: maxConsumers,
    discard: 'new',
    allow_rollup_hdrs: true,
    // Answers of a follower may be old: values are read from the leader.
    allow_direct: false,
    ...(row.keyTtl ? { allow_msg_ttl: true, subject_delete_marker_ttl: markerMs * ns } : {}),
  }
}

async function make(manager: JetStreamManager, bucket: Bucket, row: BucketOptions, replicas: number): Promise<void> {
  const wanted = configOf(bucket, row, replicas)
  const { streams } = manager
  const there = await look(manager, wanted.name)
  let info = there
  if (!there) {
    info = await patiently(() => managed(wanted.name, streams.add(wanted as NewStream)), explain(bucket, replicas))
  } else if (differences(wanted, there.config).length > 0) {
    const changed = { ...there.config, ...wanted, max_consumers: there.config.max_consumers } as StreamConfig
    info = await patiently(() => managed(wanted.name, streams.update(wanted.name, changed)), explain(bucket, replicas))
  }
  const missing = differences(wanted, info?.config ?? {}).filter(
    name => !(name === 'max_consumers' && Number(info?.config.max_consumers) > 0),
  )
  if (missing.length > 0) {
    throw new Error(
      `bucket ${bucket}: the server did not take ${missing.join(', ')}. Install nats-server 2.12 or newer, or delete the stream ${wanted.name} if it holds nothing of value.`,
    )
  }
}

type NewStream = Parameters<JetStreamManager['streams']['add']>[0]

const managerOf = (nc: NatsConnection) => jetstreamManager(nc, { checkAPI: false })

/** The stream as it is; undefined where there is none. */
async function look(manager: JetStreamManager, name: string) {
  return patiently(() => managed(name, manager.streams.info(name))).catch(error => {
    if (error instanceof JetStreamRefusal && error.code === codes.noStream) return undefined
    throw error
  })
}

/** Names of settings that are not as wanted; the server leaves out what is zero or false. */
function differences(wanted: Record<string, unknown>, told: object): string[] {
  const same = (a: unknown, b: unknown) => JSON.stringify(a || 0) === JSON.stringify(b || 0)
  return Object.keys(wanted).filter(name => !same(wanted[name], (told as Record<string, unknown>)[name]))
}

function explain(bucket: Bucket, replicas: number) {
  return (error: unknown) => {
    const why = (error as Error).message
    const help =
      replicas > 1 ? ` A cluster needs ${replicas} running servers; a single server must not name a cluster.` : ''
    return new Error(`bucket ${bucket} cannot be made with ${replicas} replica(s): ${why}.${help}`, { cause: error })
  }
}

/** A cluster that has just started has no leader for some seconds. */
async function patiently<T>(attempt: () => Promise<T>, explained = (error: unknown) => error): Promise<T> {
  const end = performance.now() + 20_000
  for (;;) {
    try {
      return await attempt()
    } catch (error) {
      const leaderless =
        error instanceof UnavailableError || (error instanceof JetStreamRefusal && notYet.has(error.code))
      if (!leaderless || performance.now() > end) throw explained(error)
      await new Promise(resolve => setTimeout(resolve, 250))
    }
  }
}

/** JetStream not ready in a cluster, no suitable peers yet, meta leader unknown. */
const notYet = new Set([10005, 10008, 10009, 10074])
