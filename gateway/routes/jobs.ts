/** Jobs (ours): what a `job_uuid` leads to. Operations of several steps on one compute node, in the words of the workflow API. */
import * as v from 'valibot'
import { rejection } from '../../actors/contract/errors.ts'
import { JOB_EXECUTIONS, JOB_NAMES, JobRecord } from '../../actors/contract/job.ts'
import type { Backend, Server } from '../backend.ts'
import { isUuid } from '../gates.ts'
import { type AnyRow, row } from '../row.ts'
import { integer, uuid } from '../rules.ts'
import { waitMs } from './tasks.ts'

const noSuchJob = { error: rejection('ResourceNotFound', 'no such job found') }
const limitMax = 1000
const outOfRange = `limit must be in the range 1-${limitMax} (inclusive)`
/** A reboot is waited for for half an hour, after a drain of a quarter. */
const JOB_WAIT_MS = 3_600_000

export const jobRows: AnyRow[] = [
  row({
    method: 'GET',
    path: '/jobs',
    name: 'JobList',
    summary: 'Jobs of the last 30 days, the newest first.',
    gate: 'GM',
    strict: true,
    params: {
      server_uuid: v.optional(uuid),
      name: v.optional(v.picklist(JOB_NAMES, `must be one of: ${JOB_NAMES.join(', ')}`)),
      execution: v.optional(v.picklist(JOB_EXECUTIONS, `must be one of: ${JOB_EXECUTIONS.join(', ')}`)),
      limit: v.optional(v.pipe(integer('limit'), v.minValue(1, outOfRange), v.maxValue(limitMax, outOfRange))),
      offset: v.optional(v.pipe(integer('offset'), v.minValue(0, 'value was not greater than or equal to zero'))),
    },
    success: { status: 200, description: 'Jobs', body: v.array(JobRecord) },
    errors: [],
    handle: async ({ params: { limit = limitMax, offset = 0, ...filters } }, backend) => {
      await backend.jobs.barrier()
      const wanted = Object.entries(filters) as [keyof JobRecord, string][]
      const jobs = [...backend.jobs.all()]
        .filter(job => wanted.every(([field, value]) => value === undefined || job[field] === value))
        .sort((a, b) => compare(b.created_at, a.created_at) || compare(a.uuid, b.uuid))
      return { status: 200, body: jobs.slice(offset, offset + limit) }
    },
  }),
  row({
    method: 'GET',
    path: '/jobs/:job_uuid',
    name: 'JobGet',
    summary:
      'A job as it stands: `execution` is running, succeeded, failed or canceled; `chain_results` are the steps begun.',
    gate: 'G0',
    strict: false,
    params: {},
    success: { status: 200, description: 'The job', body: JobRecord },
    errors: ['ResourceNotFound'],
    handle: async ({ all }, backend) => {
      const job = await find(backend, all['job_uuid'])
      return job ? { status: 200, body: await settled(backend, job) } : noSuchJob
    },
  }),
  row({
    method: 'GET',
    path: '/jobs/:job_uuid/wait',
    name: 'JobWait',
    summary: 'A job once it has ended, or as it stands after `timeout` seconds (default and at most 3600).',
    gate: 'G0',
    strict: false,
    params: { timeout: v.optional(v.unknown()) },
    success: { status: 200, description: 'The job, whatever its state', body: JobRecord },
    errors: ['ResourceNotFound'],
    handle: async ({ all, params, signal }, backend) => {
      const job = await find(backend, all['job_uuid'])
      if (!job) return noSuchJob
      if (hasEnded(job)) return { status: 200, body: await settled(backend, job) }
      const deadlineMs = waitMs(params.timeout, JOB_WAIT_MS)
      const ended = await backend.jobs.ended(job.uuid, { deadlineMs, signal: signal() })
      return { status: 200, body: await settled(backend, ended ?? (await backend.jobs.load(job.uuid)) ?? job) }
    },
  }),
  row({
    method: 'POST',
    path: '/jobs/:job_uuid/cancel',
    name: 'JobCancel',
    summary:
      'Ends a running job at its present step and takes back what must be: a drained server takes tasks again. One that has ended stays as it is.',
    gate: 'G0',
    strict: false,
    params: {},
    success: { status: 200, description: 'The job after that', body: JobRecord },
    errors: ['ResourceNotFound'],
    handle: async ({ all, key, reqId }, backend) => {
      const job = await find(backend, all['job_uuid'])
      if (!job) return noSuchJob
      if (hasEnded(job)) return { status: 200, body: job }
      const params = { job_uuid: job.uuid }
      const outcome = await backend.call('cn', job.server_uuid, 'job_cancel', params, { key, reqId })
      if ('error' in outcome) return outcome
      return { status: 200, body: (await backend.jobs.load(job.uuid)) ?? job }
    },
  }),
]

/** Ids are not validated: what cannot be one is simply not there. */
function find(backend: Backend, id: unknown): Promise<JobRecord | undefined> {
  return isUuid(id) ? backend.jobs.load(id.toLowerCase()) : Promise.resolve(undefined)
}

/** Longest an answer waits for the actor behind a job that has ended, ms. */
const SETTLE_MS = 3_000

/** A job's end is durable a moment before its server's record says so. Whoever is told of it must not find the server as it was before. */
async function settled(backend: Backend, job: JobRecord): Promise<JobRecord> {
  // The end of the job is true all the same.
  const isOver = (server: Server | undefined) => server?.job_uuid !== job.uuid
  if (hasEnded(job)) await backend.servers.until(job.server_uuid, isOver, SETTLE_MS).catch(() => {})
  return job
}

const hasEnded = ({ execution }: JobRecord) => execution !== 'running' && execution !== 'queued'
const compare = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0)
