/**
 * The run of a job: one at a time on a node, its steps one after the other (jobs.ts). Events only note what the step in hand came to
 * (`came`); `advance` then goes on as far as it can, within the same decision. So a job moves by committed transitions alone: whoever
 * takes the node over goes on with it, and a step that was begun is not begun again.
 */
import { rejection } from '../contract/errors.ts'
import type { JobName, JobRecord, JobStepResult, RunningJob } from '../contract/job.ts'
import type { ServerContext } from '../contract/server.ts'
import type { VerbParams } from '../contract/verbs.ts'
import { type Effect, iso, type Stamp } from '../effects.ts'
import { chainOf, isRebooted, JOBS, PAUSES, type Step } from './jobs.ts'
import { createRecord, ending, type Failure, offer, openTask } from './task-effects.ts'

export type JobEvent =
  | (Stamp & { type: 'job_start' } & VerbParams<'cn', 'job_start'>)
  | (Stamp & { type: 'job_cancel' } & VerbParams<'cn', 'job_cancel'>)
  | (Stamp & { type: 'job_limit'; job_uuid: string; step: string })

type Changes = Partial<ServerContext>
type Came = NonNullable<RunningJob['came']>

/** The one deadline of a job: that of the step in hand. */
const TIMER = 'job'

/** Is it running already: whoever asks for it again is told of that job. An update of NICs is the same only with the same NICs. */
export function runsSame({ job }: ServerContext, event: { type: string }): boolean {
  if (job === undefined || !('name' in event) || job.name !== event.name) return false
  if (job.name !== 'server-update-nics') return true
  const asked = ({ action, nics }: Record<string, unknown>) => JSON.stringify([action, nics])
  return asked(job.params) === asked((event as Extract<JobEvent, { type: 'job_start' }>).params)
}

export const isRunningJob = (context: ServerContext, event: { type: string }): boolean =>
  'job_uuid' in event && context.job?.uuid === event.job_uuid

/** Does the deadline belong to the step in hand. */
export const isLate = (context: ServerContext, event: { type: string }): boolean =>
  isRunningJob(context, event) && 'step' in event && context.job?.chain_results.at(-1)?.name === event.step

export function start(_context: ServerContext, event: { type: string }): Changes {
  const { job_uuid, name, params, at, req_id } = event as Extract<JobEvent, { type: 'job_start' }>
  const job: RunningJob = {
    ...{ uuid: job_uuid, name, params, created_at: at },
    ...(req_id === undefined ? {} : { req_id }),
    chain: chainOf(name, params),
    chain_results: [],
    task_id: null,
    paused: false,
  }
  return { ...JOBS[name].begins?.(params), job }
}

/** The record of the job that has just been started, and its uuid for who asked; or the uuid of the one that runs. */
export function started(context: ServerContext): Effect[] {
  const job = context.job as RunningJob
  const at = iso(job.created_at)
  const value: JobRecord = {
    ...{ uuid: job.uuid, name: job.name, server_uuid: context.uuid },
    params: JOBS[job.name].shows?.(job.params) ?? job.params,
    execution: 'running',
    created_at: at,
    started_at: at,
    chain: job.chain,
    chain_results: [],
    ...(job.req_id === undefined ? {} : { req_id: job.req_id }),
  }
  return [{ type: 'create', bucket: 'job', key: job.uuid, value }, ...running(context)]
}

export const running = (context: ServerContext): Effect[] => [
  { type: 'reply', value: { job_uuid: (context.job as RunningJob).uuid } },
]

export const refuseJob = (context: ServerContext): Effect[] => {
  const job = context.job as RunningJob
  const text = `Job ${job.uuid} (${job.name}) is running on this server`
  return [{ type: 'reject', rejection: rejection('JobRunning', text) }]
}

/** What a running job is told: its operator's end, or its step's. */
export const cancel = (context: ServerContext): Changes =>
  came(context, { failure: rejection('JobCanceled'), canceled: true })

export function runLate(context: ServerContext): Changes {
  const step = context.job && stepInHand(context.job)
  return came(context, { failure: step?.kind === 'wait' ? step.late : rejection('JobTimedOut') })
}

/** The end of a task, as far as it is the one that a job waits for. */
export function taskEnded(
  context: ServerContext,
  taskId: string,
  end: { failure?: Failure; result?: unknown },
): Changes {
  return context.job?.task_id === taskId ? came(context, end) : {}
}

function came({ job }: ServerContext, came: Came): Changes {
  return job ? { job: { ...job, came } } : {}
}

/** The end of a job whose server goes; its open task ends with the others. */
export function abandon(context: ServerContext, at: number, failure: Failure): Effect[] {
  const job = context.job && { ...context.job, task_id: null, came: { failure } }
  return job ? (advance({ ...context, job }, at)?.effects ?? []) : []
}

/** Does the node take no tasks now, by an operator's word or while a job drains it. */
export const isPaused = (context: ServerContext): boolean => context.paused === true || context.job?.paused === true

/** Was a reboot asked for by a job that waits for the node to be back. */
export const waitsForBoot = ({ job }: ServerContext): boolean => job?.boot_before !== undefined

/** Goes on with the job as far as it can now; undefined where nothing is to be done. */
export function advance(context: ServerContext, at: number): { context: ServerContext; effects: Effect[] } | undefined {
  if (!context.job) return undefined
  const run: Run = { context, effects: [], at }
  while (run.context.job && goOn(run, run.context.job)) {
    // One step further each time; a job has few.
  }
  if (run.context === context) return undefined
  const { job } = run.context
  if (job) run.effects.push(patch(job, { chain_results: job.chain_results }))
  return run
}

interface Run {
  context: ServerContext
  effects: Effect[]
  at: number
}

function goOn(run: Run, job: RunningJob): boolean {
  if (job.chain_results.length === 0) return begin(run, job)
  if (job.came) return endStep(run, job, job.came)
  const step = stepInHand(job)
  if (!step) return note(run, { failure: rejection('InternalError', 'This release does not know the step') })
  if (step.kind === 'change') return note(run, {})
  if (step.kind === 'wait') return step.isDone(run.context, job) && note(run, {})
  return step.reboots === true && isRebooted(run.context, job) && note(run, {})
}

function note(run: Run, end: Came): true {
  run.context = { ...run.context, ...came(run.context, end) }
  return true
}

/** Begins the next step of the chain. */
function begin(run: Run, before: RunningJob): true {
  const { context, at } = run
  const name = before.chain[before.chain_results.length] as string
  const step = JOBS[before.name].steps[name]
  const result: JobStepResult = { name, started_at: iso(at) }
  const paused = PAUSES[name] ?? before.paused
  let job: RunningJob = { ...before, paused, chain_results: [...before.chain_results, result] }
  let { open } = context
  if (step?.kind === 'wait') {
    const event = { type: 'job_limit', job_uuid: job.uuid, step: name }
    run.effects.push({ type: 'set_timer', name: TIMER, at: at + step.limitMs, event })
  }
  if (step?.kind === 'task') {
    const task_id = taskIdOf(job)
    const { task, params } = step
    const order = { task_id, task, params: params?.(job.params) ?? {}, at, req_id: job.req_id }
    const { req_id } = job
    open = { ...open, [task_id]: { task, vm_uuid: null, state: 'offered', at, ...(req_id ? { req_id } : {}) } }
    job = { ...job, task_id, ...(step.reboots ? bootOf(context) : {}) }
    result.task_id = task_id
    run.effects.push(createRecord(context, order), ...offer(context, task_id, at))
  }
  run.context = { ...context, ...step?.changes?.(), open, job }
  return true
}

/** The boot that a reboot is to end. */
const bootOf = ({ last_boot, boot_id }: ServerContext): Partial<RunningJob> => ({
  boot_before: last_boot,
  ...(boot_id === undefined ? {} : { boot_id_before: boot_id }),
})

/** Ends the step in hand; with it the job, if it failed or was the last. */
function endStep(run: Run, before: RunningJob, { failure: said, canceled, result }: Came): true {
  const step = stepInHand(before)
  const failure = said ?? (step?.kind === 'task' ? step.refuses?.(result) : undefined)
  const shown = step?.kind === 'task' ? step.shows?.(result) : undefined
  const ended: JobStepResult = {
    ...(before.chain_results.at(-1) as JobStepResult),
    finished_at: iso(run.at),
    ...(shown === undefined ? {} : { result: shown }),
    ...(failure ? { error: { code: failure.code, message: failure.message } } : {}),
  }
  const { came: _, ...rest } = before
  const job: RunningJob = { ...rest, task_id: null, chain_results: [...before.chain_results.slice(0, -1), ended] }
  if (step?.kind === 'wait') run.effects.push({ type: 'cancel_timer', name: TIMER })
  closeTask(run, before.task_id, failure)
  run.context = { ...run.context, job }
  if (failure) return finish(run, job, canceled ? 'canceled' : 'failed', failure)
  if (job.chain_results.length < job.chain.length) return begin(run, job)
  return finish(run, job, 'succeeded')
}

/** A task that is still open when its step is over: the node was rebooted before it could say so, or an operator ended the job. */
function closeTask(run: Run, taskId: string | null, failure: Failure | undefined): void {
  if (taskId === null || !openTask(run.context, taskId)) return
  const { [taskId]: _, ...open } = run.context.open
  const why = failure && rejection('TaskCancelled')
  run.effects.push(...ending(run.context, taskId, run.at, { failure: why }))
  run.context = { ...run.context, open }
}

function finish(run: Run, job: RunningJob, execution: JobRecord['execution'], failure?: Failure): true {
  const undone = failure ? JOBS[job.name].undo?.() : {}
  // The job's word for the node's status goes with it.
  const status = job.boot_before === undefined ? {} : { transitional_status: undefined }
  run.context = { ...run.context, ...status, ...undone, job: undefined }
  run.effects.push(
    patch(job, {
      execution,
      chain_results: job.chain_results,
      finished_at: iso(run.at),
      elapsed: (run.at - job.created_at) / 1000,
      ...(failure ? { error: { code: failure.code, message: failure.message } } : {}),
    }),
  )
  return true
}

/** A job's record ends once: what was told of an end stays. */
const patch = ({ uuid }: RunningJob, patch: Partial<JobRecord>): Effect => ({
  ...{ type: 'patch', bucket: 'job', key: uuid, while: { execution: 'running' } },
  patch,
})

function stepInHand({ name, chain_results }: RunningJob): Step | undefined {
  return JOBS[name as JobName].steps[chain_results.at(-1)?.name ?? '']
}

/** Id of the task of the step in hand: the same however often it is decided. The job's own, but for a version that nobody else gives. */
function taskIdOf({ uuid, chain_results }: RunningJob): string {
  return `${uuid.slice(0, 14)}f${chain_results.length.toString(16).padStart(3, '0')}${uuid.slice(18)}`
}
