/**
 * The table of jobs: of which steps each is made, what changes in the server's record when it begins, and what is taken back when it
 * fails (cnapi-behaviour §7). How they are run: job-run.ts.
 */
import { rejection } from '../contract/errors.ts'
import type { JobName, RunningJob } from '../contract/job.ts'
import type { ServerContext } from '../contract/server.ts'
import type { TaskName } from '../contract/task.ts'
import type { Failure } from './task-effects.ts'

type Changes = Partial<ServerContext>

/** A step; its name is its key in the job's `steps`. */
export type Step =
  /** A task of the node's agent. Its deadlines are the task's own: to be accepted, and to end. */
  | {
      kind: 'task'
      task: TaskName
      params?: (given: Record<string, unknown>) => Record<string, unknown>
      /** Why a result is no success although the task ended well. */
      refuses?: (result: unknown) => Failure | undefined
      /** What the job's record shows of the result; the task's record has all of it. */
      shows?: (result: unknown) => unknown
      /** The node goes with this task: another boot is its end too. */
      reboots?: true
    }
  /** Nothing to do but wait until something is so, for so long at most, ms. */
  | { kind: 'wait'; isDone: (context: ServerContext, job: RunningJob) => boolean; limitMs: number; late: Failure }
  | { kind: 'change' }

interface Job {
  /** In the record from the start of the job. */
  begins?: (params: Record<string, unknown>) => Changes
  /** In the record when it did not succeed. */
  undo?: () => Changes
  /** What is shown of its params where not all may be. */
  shows?: (params: Record<string, unknown>) => Record<string, unknown>
  /** All steps it may have, in order, with those that depend on its params. */
  steps: Record<string, Step & { when?: (params: Record<string, unknown>) => boolean; changes?: () => Changes }>
}

/** Longest wait for the node's other tasks, and for the node to be back from a reboot. */
const DRAIN_LIMIT_MS = 900_000
const BOOT_LIMIT_MS = 30 * 60_000
/** Two boot times that differ by less are of one boot. */
const CLOCK_SLACK_MS = 5_000

/** What a step changes in the record when it begins is in `changes`; a job's own field `job` is not theirs to change. */
export const JOBS: Record<JobName, Job> = {
  'server-setup': {
    begins: params => ({ setting_up: true, ...(params['hostname'] ? { hostname: String(params['hostname']) } : {}) }),
    undo: () => ({ setting_up: false, setup_failed: true }),
    shows: ({ postsetup_script, ...params }) => ({
      ...params,
      ...(postsetup_script ? { postsetup_script: '(not shown)' } : {}),
    }),
    steps: {
      check: { kind: 'task', task: 'server_check', refuses: failedChecks, shows: result => result },
      storage: { kind: 'task', task: 'server_setup_storage' },
      nics: {
        kind: 'task',
        task: 'server_update_nics',
        when: ({ nics }) => Array.isArray(nics) && nics.length > 0,
        params: ({ nics }) => ({ action: 'update', nics }),
      },
      hostname: {
        kind: 'task',
        task: 'server_set_hostname',
        when: ({ hostname }) => Boolean(hostname),
        params: ({ hostname }) => ({ hostname }),
      },
      script: {
        kind: 'task',
        task: 'server_run_script',
        when: ({ postsetup_script }) => Boolean(postsetup_script),
        params: ({ postsetup_script }) => ({ script: postsetup_script }),
        refuses: failedScript,
        shows: result => ({ exit_code: exitCode(result) }),
      },
      sysinfo: { kind: 'task', task: 'server_sysinfo' },
      record: { kind: 'change', changes: () => ({ setup: true, setting_up: false, setup_failed: undefined }) },
    },
  },
  'server-reboot': {
    steps: {
      drain: { ...drain(), when: ({ drain }) => drain === true },
      reboot: reboot(),
      boot: boot(),
      resume: { kind: 'change', when: ({ drain }) => drain === true },
    },
  },
  'server-factory-reset': {
    steps: {
      // What is being made now would be found by the reset, or come after it.
      drain: drain(),
      reset: { kind: 'task', task: 'server_factory_reset' },
      reboot: reboot(),
      boot: boot(),
      record: { kind: 'change', changes: () => ({ setup: false }) },
    },
  },
  'server-update-nics': {
    steps: {
      nics: {
        kind: 'task',
        task: 'server_update_nics',
        params: ({ action, nics }) => ({ action, nics }),
      },
      sysinfo: { kind: 'task', task: 'server_sysinfo' },
    },
  },
}

/** Steps during which the node takes no tasks but the job's: from `drain` until `resume` or the job's end. */
export const PAUSES: Readonly<Record<string, boolean>> = { drain: true, resume: false }

export function chainOf(name: JobName, params: Record<string, unknown>): string[] {
  return Object.entries(JOBS[name].steps).flatMap(([step, { when }]) => (!when || when(params) ? [step] : []))
}

/**
 * Has the node booted since its reboot was asked for. Ids of boots tell it at once where both are known. Times tell it of nodes without ids,
 * and of those whose id does not change, as in some containers; clocks are set a little all the time, and boot times move with them.
 */
export function isRebooted(
  { last_boot, boot_id }: Pick<ServerContext, 'last_boot' | 'boot_id'>,
  { boot_before, boot_id_before }: Pick<RunningJob, 'boot_before' | 'boot_id_before'>,
): boolean {
  if (boot_before === undefined) return false
  if (isOtherBoot(boot_id_before, boot_id)) return true
  if (last_boot === null) return false
  return boot_before === null || Math.abs(Date.parse(last_boot) - Date.parse(boot_before)) > CLOCK_SLACK_MS
}

/** An agent that told no id before, or tells none now, says nothing with it. */
export const isOtherBoot = (before: string | undefined, now: string | undefined): boolean =>
  before !== undefined && now !== undefined && before !== now

function drain(): Step {
  return {
    kind: 'wait',
    isDone: ({ open }) => Object.keys(open).length === 0,
    limitMs: DRAIN_LIMIT_MS,
    late: rejection('JobTimedOut', `Tasks of the server were still open after ${DRAIN_LIMIT_MS / 1000} seconds`),
  }
}

function reboot(): Step & { changes: () => Changes } {
  return {
    kind: 'task',
    task: 'server_reboot',
    reboots: true,
    changes: () => ({ transitional_status: 'rebooting' }),
  }
}

function boot(): Step {
  return {
    kind: 'wait',
    isDone: isRebooted,
    limitMs: BOOT_LIMIT_MS,
    late: rejection('JobTimedOut', `The server was not back in another boot after ${BOOT_LIMIT_MS / 1000} seconds`),
  }
}

/** What a check may find wrong, since the setup's next step puts it right: without a pool there is one to be made. */
const MENDED: ReadonlySet<string> = new Set(['storage'])

function failedChecks(result: unknown): Failure | undefined {
  const { checks } = (result ?? {}) as { checks?: { name: string; ok: boolean; message: string }[] }
  const failed = Array.isArray(checks) ? checks.filter(({ name, ok }) => !ok && !MENDED.has(name)) : []
  if (failed.length === 0) return undefined
  return rejection('ServerCheckFailed', failed.map(({ name, message }) => `${name}: ${message}`).join('; '))
}

function failedScript(result: unknown): Failure | undefined {
  const code = exitCode(result)
  return code === 0 ? undefined : rejection('ScriptFailed', `The post-setup script ended with ${code ?? 'a signal'}`)
}

function exitCode(result: unknown): number | null {
  const { exit_code } = (result ?? {}) as { exit_code?: unknown }
  return typeof exit_code === 'number' ? exit_code : null
}
