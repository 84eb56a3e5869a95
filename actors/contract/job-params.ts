/** What each job is asked for, and the command that starts one (cnapi-behaviour §7). */
import * as v from 'valibot'
import { Hostname, Uuid } from './ids.ts'
import type { JobName } from './job.ts'
import { NicTagging } from './tasks/server.ts'

const nics = v.pipe(v.array(NicTagging), v.maxLength(128))
/** Who asked for it, as clients of CNAPI say it. */
const who = { origin: v.optional(v.string()), creator_uuid: v.optional(v.string()) }
/** A script waits in the actor's record until its turn: characters. */
export const POSTSETUP_SCRIPT_MAX = 64 * 1024

/** Name -> parameters (cnapi-behaviour §7). */
export const JOB_PARAMS = {
  'server-setup': v.object({
    hostname: v.optional(Hostname),
    nics: v.optional(nics),
    postsetup_script: v.optional(v.pipe(v.string(), v.maxLength(POSTSETUP_SCRIPT_MAX))),
  }),
  'server-reboot': v.object({ drain: v.optional(v.boolean(), false), ...who }),
  'server-factory-reset': v.object(who),
  'server-update-nics': v.object({ action: v.picklist(['update', 'replace', 'delete']), nics, ...who }),
} as const satisfies Record<JobName, v.GenericSchema>

export type JobParams<N extends JobName> = v.InferOutput<(typeof JOB_PARAMS)[N]>

/** A command to start a job, by name. */
export const JobStart = v.variant('name', [
  v.object({ job_uuid: Uuid, name: v.literal('server-setup'), params: JOB_PARAMS['server-setup'] }),
  v.object({ job_uuid: Uuid, name: v.literal('server-reboot'), params: JOB_PARAMS['server-reboot'] }),
  v.object({ job_uuid: Uuid, name: v.literal('server-factory-reset'), params: JOB_PARAMS['server-factory-reset'] }),
  v.object({ job_uuid: Uuid, name: v.literal('server-update-nics'), params: JOB_PARAMS['server-update-nics'] }),
])
export type JobStart = v.InferOutput<typeof JobStart>
