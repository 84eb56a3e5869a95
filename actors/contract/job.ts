/** Jobs: operations of several steps on one compute node. What the record of its actor holds of one, and what GET /jobs shows. */
import * as v from 'valibot'

export const JOB_NAMES = ['server-setup', 'server-reboot', 'server-factory-reset', 'server-update-nics'] as const
export type JobName = (typeof JOB_NAMES)[number]

/** In the words of the workflow API. A job here begins at once or is refused, so none is `queued` for long enough to be seen. */
export const JOB_EXECUTIONS = ['queued', 'running', 'succeeded', 'failed', 'canceled'] as const

const failure = v.object({ code: v.string(), message: v.string() })

/** A step that was begun. */
export const JobStepResult = v.object({
  name: v.string(),
  task_id: v.optional(v.string()),
  started_at: v.string(),
  finished_at: v.optional(v.string()),
  result: v.optional(v.unknown()),
  error: v.optional(failure),
})
export type JobStepResult = v.InferOutput<typeof JobStepResult>

/** The body in bucket `job`. `execution` goes from `running` to one of the others, once. */
export const JobRecord = v.object({
  uuid: v.string(),
  name: v.string(),
  server_uuid: v.string(),
  /** What it was asked for, without what may be secret. */
  params: v.record(v.string(), v.unknown()),
  execution: v.picklist(JOB_EXECUTIONS),
  created_at: v.string(),
  started_at: v.optional(v.string()),
  finished_at: v.optional(v.string()),
  /** Seconds from its start to its end. */
  elapsed: v.optional(v.number()),
  /** Names of all its steps. */
  chain: v.array(v.string()),
  chain_results: v.array(JobStepResult),
  error: v.optional(failure),
  req_id: v.optional(v.string()),
})
export type JobRecord = v.InferOutput<typeof JobRecord>

/** The job that a compute node runs, in its actor's context. */
export const RunningJob = v.object({
  uuid: v.string(),
  name: v.picklist(JOB_NAMES),
  params: v.record(v.string(), v.unknown()),
  req_id: v.optional(v.string()),
  /** ms since the epoch. */
  created_at: v.number(),
  /** Names of its steps as they were planned at its start: a newer release may plan otherwise. The one in hand is the last begun. */
  chain: v.array(v.string()),
  chain_results: v.array(JobStepResult),
  /** The open task of the step in hand. */
  task_id: v.nullable(v.string()),
  /** While it runs, the node takes no tasks but its own. */
  paused: v.boolean(),
  /** Once the reboot was asked for: `last_boot` as it was before. */
  boot_before: v.optional(v.nullable(v.string())),
  /** Likewise `boot_id`, where it was known. */
  boot_id_before: v.optional(v.string()),
  /** What the step in hand came to. Within a decision only: the run of the job takes it before anything is stored. */
  came: v.optional(
    v.object({ failure: v.optional(failure), canceled: v.optional(v.boolean()), result: v.optional(v.unknown()) }),
  ),
})
export type RunningJob = v.InferOutput<typeof RunningJob>
