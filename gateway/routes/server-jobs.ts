/**
 * What is done to a server as a whole (cnapi-behaviour §7): setup, reboot, factory reset and its nic tags, each as a job of its compute
 * node; and pause and resume of its agent. The answer is the job's uuid at once; GET /jobs tells the rest.
 */
import * as v from 'valibot'
import { type FieldError, type Rejection, rejection } from '../../actors/contract/errors.ts'
import { Hostname } from '../../actors/contract/ids.ts'
import type { JobName, JobRecord } from '../../actors/contract/job.ts'
import { type JobStart, POSTSETUP_SCRIPT_MAX } from '../../actors/contract/job-params.ts'
import { NicTagging } from '../../actors/contract/tasks/server.ts'
import type { Backend, Server } from '../backend.ts'
import { tagInUse } from '../nic-tags.ts'
import { type Answer, type AnyRow, type Entries, type Incoming, row } from '../row.ts'
import { booleanWord, numberFromZero, text } from '../rules.ts'
import { runTask, started } from '../tasks.ts'

const array = v.array(v.unknown(), 'value was not an array')
const boolean = v.boolean('value was not true or false')
const jobStarted = v.object({ job_uuid: v.string() })
const diskLayouts = ['single', 'mirror', 'raidz1', 'raidz2', 'raidz3']
const actions = ['update', 'replace', 'delete'] as const
const actionRule = "action must be 'update', 'replace', or 'delete'"
/** Longest wait for a reboot without a job (cnapi-behaviour §5.4). */
const rebootCapMs = 3_600_000
/** Who asks, for the job's record. */
const who = { origin: v.optional(text), creator_uuid: v.optional(text) }

const pause = {
  path: '/servers/:server_uuid/cn-agent/pause',
  gate: 'GSR',
  strict: false,
  params: {},
  success: { status: 204, description: 'New tasks of the server fail as AgentPaused; what is open goes on' },
  errors: [],
  handle: ({ server, key, reqId }: Incoming<Entries, 'GSR'>, backend: Backend) =>
    nothing(backend.call('cn', server.uuid, 'pause', {}, { key, reqId })),
} as const

const resume = {
  path: '/servers/:server_uuid/cn-agent/resume',
  gate: 'GSR',
  strict: false,
  params: {},
  success: { status: 204, description: 'The server takes tasks, unless a job drains it' },
  errors: [],
  handle: ({ server, key, reqId }: Incoming<Entries, 'GSR'>, backend: Backend) =>
    nothing(backend.call('cn', server.uuid, 'resume', {}, { key, reqId })),
} as const

export const serverJobRows: AnyRow[] = [
  row({
    method: 'PUT',
    path: '/servers/:server_uuid/setup',
    name: 'ServerSetup',
    summary:
      'Checks and prepares a node, then its record says `setup`. What it says of disk layouts and encryption is checked, but a node here has the disks its operator gave it.',
    gate: 'GSRW',
    strict: true,
    params: {
      hostname: v.optional(text),
      nics: v.optional(array),
      postsetup_script: v.optional(text),
      disk_exclude: v.optional(text),
      disk_spares: v.optional(numberFromZero),
      disk_width: v.optional(numberFromZero),
      disk_cache: v.optional(booleanWord),
      disk_layout: v.optional(v.unknown()),
      encryption_enabled: v.optional(booleanWord),
    },
    check: ({ hostname, nics, postsetup_script }) => [
      ...notHostname(hostname),
      ...notTaggings(nics),
      ...tooLong(postsetup_script),
    ],
    success: {
      status: 202,
      description: 'The job; 204 and no body when the server is set up already',
      body: jobStarted,
    },
    errors: ['InvalidArgument', 'JobRunning'],
    handle: async (incoming, backend) => {
      const { server, params } = incoming
      const { hostname, nics, postsetup_script, disk_layout } = params
      if (disk_layout !== undefined && !diskLayouts.includes(disk_layout as string)) {
        return { error: rejection('InvalidArgument', `disk_layout must be one of: ${diskLayouts.join(', ')}`) }
      }
      if ((await asItIs(server, backend)).setup) return { status: 204 }
      return startJob(incoming, backend, 'server-setup', {
        ...(hostname ? { hostname } : {}),
        ...(nics ? { nics: nics as NicTagging[] } : {}),
        ...(postsetup_script ? { postsetup_script } : {}),
      })
    },
  }),
  row({
    method: 'POST',
    path: '/servers/:server_uuid/reboot',
    name: 'ServerReboot',
    summary:
      'Reboots a node and waits for it to be back; with `drain` only once none of its tasks is open. `nojob` answers as soon as the reboot is certain to come.',
    gate: 'GSRW',
    strict: true,
    params: { ...who, drain: v.optional(boolean), nojob: v.optional(boolean) },
    success: { status: 202, description: 'The job; 204 and no body with `nojob`', body: jobStarted },
    errors: [
      'JobRunning',
      'ServiceUnavailableError',
      'AgentNotConnected',
      'AgentPaused',
      'TaskFailed',
      'RequestTimedOut',
    ],
    handle: async (incoming, backend) => {
      const { server, params } = incoming
      const { nojob, drain = false, ...asked } = params
      if (!nojob) return startJob(incoming, backend, 'server-reboot', { drain, ...asked })
      const done = () => ({ status: 204 })
      const answer = await runTask(
        backend,
        incoming,
        { task: 'server_reboot', params: {} },
        { capMs: rebootCapMs, done },
      )
      return 'error' in answer && answer.error.code === 'TaskNotSupported'
        ? { ...answer, error: tooOld(server) }
        : answer
    },
  }),
  row({
    method: 'PUT',
    path: '/servers/:server_uuid/factory-reset',
    name: 'ServerFactoryReset',
    summary:
      'Takes away what Muster made on a node and reboots it. Not while it has VMs: then 409 with a text as JSON string.',
    gate: 'GSRW',
    strict: true,
    params: who,
    success: { status: 202, description: 'The job', body: jobStarted },
    errors: ['JobRunning'],
    handle: async (incoming, backend) => {
      const count = await countVms(incoming.server, backend)
      if (count > 0) return { status: 409, body: `Server may not be reset because it has ${count} vms` }
      return startJob(incoming, backend, 'server-factory-reset', incoming.params)
    },
  }),
  row({
    method: 'PUT',
    path: '/servers/:server_uuid/nics',
    name: 'NicUpdate',
    summary:
      "Nic tags of a server's NICs: `update` adds, `delete` takes away, `replace` sets them. A tag that a VM uses is not taken away.",
    gate: 'GSR',
    strict: false,
    params: { action: text, nics: array, ...who },
    check: ({ action, nics }) => [...notAction(action), ...notTaggings(nics)],
    success: { status: 202, description: 'The job', body: jobStarted },
    errors: ['ServerNotSetup', 'NicTagInUse', 'JobRunning'],
    handle: async (incoming, backend) => {
      const server = await asItIs(incoming.server, backend)
      if (!server.setup) return { error: rejection('ServerNotSetup') }
      const { action, nics, origin, creator_uuid } = incoming.params
      const change = { action: action as (typeof actions)[number], nics: nics as NicTagging[] }
      const refusal = await tagInUse(server.uuid, change, backend)
      if (refusal) return { error: refusal }
      const asked = { ...(origin ? { origin } : {}), ...(creator_uuid ? { creator_uuid } : {}) }
      return startJob(incoming, backend, 'server-update-nics', { ...change, ...asked })
    },
  }),
  row({
    method: 'POST',
    path: '/servers/:server_uuid/nics/update',
    name: 'UpdateNicTask',
    summary: 'The one task of NicUpdate without its job. Without `action` the NICs have these tags and no others.',
    gate: 'GSR',
    strict: false,
    params: { action: v.optional(text, 'replace'), nics: array },
    check: ({ action, nics }) => [...notAction(action), ...notTaggings(nics)],
    success: { status: 200, description: 'The task', body: v.object({ id: v.string() }) },
    errors: ['NicTagInUse'],
    handle: async ({ server, params, ids, key, reqId }, backend) => {
      const change = { action: params.action as (typeof actions)[number], nics: params.nics as NicTagging[] }
      const refusal = await tagInUse(server.uuid, change, backend)
      if (refusal) return { error: refusal }
      const order = { task_id: ids.task(), task: 'server_update_nics' as const, params: change, req_id: reqId }
      return started(await backend.call('cn', server.uuid, 'task_add', order, { key, reqId }))
    },
  }),
  row({ ...pause, method: 'POST', name: 'ServerPauseCnAgent', summary: 'Stops new tasks of a server. Twice is once.' }),
  row({ ...pause, method: 'GET', name: 'ServerPauseCnAgentByGet', summary: 'The same, as the document has it.' }),
  row({ ...resume, method: 'POST', name: 'ServerResumeCnAgent', summary: 'Lets new tasks of a server in again.' }),
  row({ ...resume, method: 'GET', name: 'ServerResumeCnAgentByGet', summary: 'The same, as the document has it.' }),
]

type Asking = Pick<Incoming<Entries, 'GS'>, 'server' | 'ids' | 'key' | 'reqId'>
type ParamsOf<N extends JobName> = Extract<JobStart, { name: N }>['params']

/**
 * 202 with the uuid of the job; for the repeat of a keyed request, of the one that it started, running or not. A body that says `running`
 * proves no start, since it is written before the commit: its server knows, and begins it if it never has.
 */
async function startJob<N extends JobName>(
  { server, ids, key, reqId }: Asking,
  backend: Backend,
  name: N,
  params: ParamsOf<N>,
): Promise<Answer> {
  const job_uuid = ids.task()
  const before: JobRecord | undefined = key && (await backend.jobs.load(job_uuid))
  if (before && before.execution !== 'running') return accepted(before.uuid)
  const order = { job_uuid, name, params } as JobStart
  const outcome = await backend.call('cn', server.uuid, 'job_start', order, { key, reqId })
  return 'error' in outcome ? outcome : accepted(outcome.value.job_uuid)
}

function accepted(jobUuid: string): Answer {
  return { status: 202, body: { job_uuid: jobUuid }, headers: { link: `</jobs/${jobUuid}>; rel="monitor"` } }
}

async function nothing(outcome: Promise<{ value: unknown } | { error: Rejection }>): Promise<Answer> {
  const reply = await outcome
  return 'error' in reply ? reply : { status: 204 }
}

/** The record with all that was acknowledged before this request. */
async function asItIs(server: Server, backend: Backend): Promise<Server> {
  await backend.servers.barrier()
  return backend.servers.get(server.uuid) ?? server
}

/** VMs with a domain on the node, by the actors' records and by the node's own last word. */
async function countVms({ uuid }: Server, backend: Backend): Promise<number> {
  await Promise.all([backend.vms.barrier(), backend.inventory.barrier()])
  const present = backend.vms.of(uuid).filter(vm => vm.present)
  const reported = Object.keys(backend.inventory.status(uuid)?.vms ?? {}).map(id => id.toLowerCase())
  const still = reported.filter(id => backend.vms.get(id)?.state !== 'destroyed')
  return new Set([...present.map(vm => vm.uuid), ...still]).size
}

function tooOld({ agents }: Server): Rejection {
  const version = agents.find(({ name }) => name === 'cn-agent')?.version ?? 'unknown'
  const text = `cn-agent version on server does not support server_reboot: ${version} < 2.11.0`
  return rejection('ServiceUnavailableError', text)
}

const invalid = (field: string, message: string): FieldError => ({ field, code: 'Invalid', message })

/** An empty hostname is none. */
function notHostname(hostname: string | undefined): FieldError[] {
  const issue = hostname ? v.safeParse(Hostname, hostname).issues?.[0] : undefined
  return issue ? [invalid('hostname', issue.message)] : []
}

/** The document makes both properties mandatory; what else a NIC says is nothing to a node. */
function notTaggings(nics: unknown[] | undefined): FieldError[] {
  const issue = v.safeParse(v.pipe(v.array(NicTagging), v.maxLength(128)), nics ?? []).issues?.[0]
  if (!issue) return []
  const at = v.getDotPath(issue)
  const text = 'each NIC must be an object with mac and nic_tags_provided (an array of nic tags)'
  return [invalid('nics', at ? `${text}: ${at}: ${issue.message}` : text)]
}

const notAction = (action: string): FieldError[] =>
  (actions as readonly string[]).includes(action) ? [] : [invalid('action', actionRule)]

const tooLong = (script: string | undefined): FieldError[] =>
  (script ?? '').length > POSTSETUP_SCRIPT_MAX
    ? [invalid('postsetup_script', `must have at most ${POSTSETUP_SCRIPT_MAX} characters`)]
    : []
