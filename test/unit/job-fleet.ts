/** A node that runs jobs, for tests of decisions: how one is started, what its agent answers, how it boots. */
import type { JobName } from '../../actors/contract/job.ts'
import type { Reply } from '../../actors/contract/record.ts'
import type { ServerContext } from '../../actors/contract/server.ts'
import { type Fleet, makeFleet, SERVER } from './fleet.ts'

export const JOB = '00000000-0000-4000-a000-000000000001'
export const OTHER_JOB = '00000000-0000-4000-a000-000000000002'
export const BOOT_S = 1_699_000_000
const NIC = { mac: '52:54:00:12:34:56', nic_tags_provided: ['external'] }

/** Each job with params that lead through all of its steps, and the steps. */
export const JOBS: Record<JobName, { params: Record<string, unknown>; chain: string[] }> = {
  'server-setup': {
    params: { hostname: 'node7', nics: [NIC], postsetup_script: 'echo s3cret' },
    chain: ['check', 'storage', 'nics', 'hostname', 'script', 'sysinfo', 'record'],
  },
  'server-reboot': { params: { drain: true }, chain: ['drain', 'reboot', 'boot', 'resume'] },
  'server-factory-reset': { params: {}, chain: ['drain', 'reset', 'reboot', 'boot', 'record'] },
  'server-update-nics': { params: { action: 'update', nics: [NIC] }, chain: ['nics', 'sysinfo'] },
}
export const JOB_NAMES = Object.keys(JOBS) as JobName[]

export const sysinfoAt = (bootS: number, more: Record<string, unknown> = {}) => ({
  UUID: SERVER,
  Hostname: 'node1',
  'MiB of Memory': '4096',
  'Boot Time': bootS,
  ...more,
})

/** What the node's agent ends each task with. */
export const RESULTS: Record<string, unknown> = {
  server_check: {
    checks: [
      { name: 'hypervisor', ok: true, message: 'answers' },
      { name: 'storage', ok: false, message: 'no pool yet' },
    ],
  },
  server_run_script: { exit_code: 0, stdout: '', stderr: '' },
  server_update_nics: { sysinfo: sysinfoAt(BOOT_S, { Setup: true }) },
  server_sysinfo: { sysinfo: sysinfoAt(BOOT_S, { Setup: true }) },
}

/** A running node; set up, unless the test is about that. */
export function nodeFleet({ setup = true } = {}): Fleet {
  const fleet = makeFleet()
  boot(fleet, BOOT_S, { Setup: setup })
  return fleet
}

/** The agent registers, having booted then. */
export function boot(fleet: Fleet, bootS: number, more: Record<string, unknown> = {}): Reply {
  return fleet.command('cn', SERVER, 'register', { sysinfo: sysinfoAt(bootS, more) })
}

export const contextOf = (fleet: Fleet) => fleet.record('cn', SERVER).snapshot.context as unknown as ServerContext

export function startJob(fleet: Fleet, name: JobName, params = JOBS[name].params, job_uuid = JOB): Reply {
  return fleet.command('cn', SERVER, 'job_start', { job_uuid, name, params })
}

/** The step in hand; undefined when no job runs. */
export const stepOf = (fleet: Fleet): string | undefined => contextOf(fleet).job?.chain_results.at(-1)?.name

/** The open task of the job's step. */
export const taskOf = (fleet: Fleet): string | undefined => contextOf(fleet).job?.task_id ?? undefined

/** Brings the step in hand to its end, well: the agent does its task, or the node boots. */
export function doStep(fleet: Fleet): void {
  fleet.settle()
  const id = taskOf(fleet)
  fleet.now += 1_000
  if (id) {
    fleet.agent(SERVER, { id, status: 'accepted' })
    const task = fleet.tasks.get(id)?.task ?? ''
    fleet.agent(SERVER, { id, status: 'complete', result: RESULTS[task] ?? {} })
  } else if (stepOf(fleet) === 'boot') {
    fleet.command('cn', SERVER, 'silent')
    fleet.command('cn', SERVER, 'heard')
    boot(fleet, BOOT_S + 600)
  }
  fleet.settle()
}

/** Does steps until the job is at this one; without one, until it has ended. */
export function runTo(fleet: Fleet, step?: string): void {
  for (let n = 0; n < 20 && contextOf(fleet).job; n++) {
    if (step !== undefined && stepOf(fleet) === step) return
    doStep(fleet)
  }
}
