/**
 * Every JetStream key-value bucket and its keys. A bucket `b` is the stream `KV_b` on subjects `$KV.b.<key>`.
 * Actor buckets hold one JSON record an actor; the others hold bodies written by the same owner beside it.
 */
import { type Kind, token } from './subjects.ts'

export interface BucketOptions {
  /** What a person finds in it. */
  description: string
  storage: 'file' | 'memory'
  /** Largest value in bytes. */
  maxValueBytes: number
  /** How long a value stays, in ms; absent: until deleted. */
  maxAgeMs?: number
  /** Keys may carry a time to live of their own. */
  keyTtl?: boolean
}

const day = 24 * 3600_000

/** One row a bucket. Replicas are not a choice of a bucket: three where the cluster has three servers, else one. */
export const BUCKETS = {
  cn: { description: 'compute node actors, by server uuid', storage: 'file', maxValueBytes: 512 * 1024, keyTtl: true },
  vm: { description: 'vm actors, by vm uuid', storage: 'file', maxValueBytes: 512 * 1024, keyTtl: true },
  host: {
    description: 'hostname actors, by digest of the hostname',
    storage: 'file',
    maxValueBytes: 512 * 1024,
    keyTtl: true,
  },
  waitlist: {
    description: 'waitlist queue actors, by queue key',
    storage: 'file',
    maxValueBytes: 1024 * 1024,
    keyTtl: true,
  },
  inventory: {
    description: 'sysinfo and last status event of each server: <uuid>.sysinfo, <uuid>.status',
    storage: 'file',
    maxValueBytes: 1024 * 1024,
    keyTtl: true,
  },
  task: { description: 'tasks, by task id', storage: 'file', maxValueBytes: 1024 * 1024, maxAgeMs: 30 * day },
  job: { description: 'jobs, by job uuid', storage: 'file', maxValueBytes: 256 * 1024, maxAgeMs: 30 * day },
  ticket: {
    description: 'waitlist tickets, by ticket uuid; their open states are in the queue',
    storage: 'file',
    maxValueBytes: 16 * 1024,
    keyTtl: true,
  },
  lease: { description: 'live actor hosts, by host id', storage: 'memory', maxValueBytes: 4096, keyTtl: true },
} as const satisfies Record<string, BucketOptions>

export type Bucket = keyof typeof BUCKETS
/** Buckets whose keys can be deleted without a trace for ever. */
export type MortalBucket = { [B in Bucket]: (typeof BUCKETS)[B] extends { keyTtl: true } ? B : never }[Bucket]

/** Stream behind a bucket. */
export const streamOf = (bucket: Bucket) => `KV_${bucket}`
/** Subject of a key. */
export const keySubject = (bucket: Bucket, key: string) => `$KV.${bucket}.${key}`
/** What a deletion is written as: a mark that watchers see and that goes by itself after a day (buckets with `keyTtl`). */
export const DELETION = { 'KV-Operation': 'DEL', 'Nats-TTL': '86400s' } as const
/** All keys of a bucket. */
export const allKeys = (bucket: Bucket) => `$KV.${bucket}.>`
/** The key in a `$KV.<bucket>.<key>` subject. */
export const keyOfSubject = (bucket: Bucket, text: string) => text.slice(`$KV.${bucket}.`.length)

/** Builders of keys. */
export const key = {
  actor: (_kind: Kind, id: string) => token(id),
  sysinfo: (serverUuid: string) => `${token(serverUuid)}.sysinfo`,
  status: (serverUuid: string) => `${token(serverUuid)}.status`,
  task: (taskId: string) => token(taskId),
  job: (jobUuid: string) => token(jobUuid),
  ticket: (ticketUuid: string) => token(ticketUuid),
  lease: (hostId: string) => token(hostId),
}

/** Parses an inventory key. */
export function parseInventoryKey(text: string): { serverUuid: string; part: 'sysinfo' | 'status' } | undefined {
  const [serverUuid, part] = text.split('.')
  return serverUuid && (part === 'sysinfo' || part === 'status') ? { serverUuid, part } : undefined
}
