/**
 * What a node tells of itself and does at once: its inventory anew, its last tasks, a script, and the recovery configuration of an
 * encrypted pool (cnapi-behaviour §1.5, §5.7, §8.3, §8.5).
 */
import * as v from 'valibot'
import { type Rejection, rejection } from '../../actors/contract/errors.ts'
import { Sysinfo } from '../../actors/contract/server.ts'
import { SCRIPT_LIMIT_MS, SCRIPT_MAX, SERVER_TASKS } from '../../actors/contract/tasks/server.ts'
import { refuseOldAgent } from '../agent-version.ts'
import type { Backend } from '../backend.ts'
import { type AnyRow, type Entries, type Incoming, row } from '../row.ts'
import { booleanWord, number, text } from '../rules.ts'
import { runTask, started } from '../tasks.ts'

const noSysinfo = { error: rejection('TaskFailed', 'the agent told no sysinfo') }
/** Longest wait for a sysinfo, ms: the limit of its task, and the time an offer may take. */
const sysinfoCapMs = 2 * 60_000
const { args, env } = SERVER_TASKS.command_execute.params.entries
/** The oldest agent that knows the task. */
const recoveryMinimum = '2.13.0'

export const serverNodeRows: AnyRow[] = [
  row({
    method: 'POST',
    path: '/servers/:server_uuid/sysinfo-refresh',
    name: 'ServerSysinfoRefresh',
    summary: 'Takes the inventory of a node anew. Agents tell every change by themselves.',
    deprecated: true,
    gate: 'GSRW',
    strict: true,
    params: {},
    success: { status: 200, description: 'Registered; no body' },
    errors: ['AgentNotConnected', 'TaskNotSupported', 'TaskFailed', 'HypervisorUnavailable', 'RequestTimedOut'],
    handle: async (incoming, backend) => {
      const { server, key, reqId } = incoming
      let told: unknown
      const answer = await runTask(
        backend,
        incoming,
        { task: 'server_sysinfo', params: {} },
        {
          capMs: sysinfoCapMs,
          done: result => {
            told = result.sysinfo
            return { status: 200 }
          },
        },
      )
      if ('error' in answer) return answer
      const sysinfo = v.safeParse(Sysinfo, told)
      if (!sysinfo.success || (sysinfo.output.UUID ?? server.uuid).toLowerCase() !== server.uuid) return noSysinfo
      // The actor has heard of it with the task's end; asking it once more makes sure that it has before this is answered.
      const outcome = await backend.call('cn', server.uuid, 'register', { sysinfo: sysinfo.output }, { key, reqId })
      return 'error' in outcome ? outcome : answer
    },
  }),
  row({
    method: 'GET',
    path: '/servers/:server_uuid/task-history',
    name: 'ServerTaskHistory',
    summary: 'The last 16 tasks of a node as its agent remembers them, newest last. The server need not run.',
    gate: 'GS',
    strict: true,
    params: {},
    success: {
      status: 200,
      description: 'Tasks',
      body: v.array(v.looseObject({ task: v.string(), status: v.string(), started_at: v.string() })),
    },
    errors: ['AgentNotConnected'],
    handle: async ({ server, reqId }, backend) => {
      if (server.uuid === 'default') return { error: rejection('ResourceNotFound', 'default is no node') }
      const outcome = await backend.call('cn', server.uuid, 'read', { read: 'task_history', params: {} }, { reqId })
      return 'error' in outcome ? outcome : { status: 200, body: outcome.value }
    },
  }),
  row({
    method: 'POST',
    path: '/servers/:server_uuid/execute',
    name: 'CommandExecute',
    summary:
      'Runs a bash script on a node whose agent allows it (EXECUTE). With `json` the answer tells how it ended; without, it is the output, or 500.',
    deprecated: true,
    gate: 'GSR',
    strict: false,
    params: {
      script: v.pipe(text, v.minLength(1, 'must not be empty'), v.maxLength(SCRIPT_MAX)),
      args: v.optional(args.wrapped),
      env,
      json: v.optional(booleanWord),
      timeout: v.optional(v.pipe(number, v.minValue(1), v.maxValue(SCRIPT_LIMIT_MS))),
    },
    success: {
      status: 200,
      description: 'The trimmed output as a string, or with `json` an object',
      body: v.union([
        v.string(),
        v.looseObject({ exitCode: v.nullable(v.number()), stdout: v.string(), stderr: v.string() }),
      ]),
    },
    errors: ['ExecuteNotAllowed', 'AgentNotConnected', 'TaskNotSupported', 'TaskFailed', 'RequestTimedOut'],
    handle: (incoming, backend) => {
      const { script, args = [], env, timeout, json = false } = incoming.params
      const params = { script, args, ...(env ? { env } : {}), ...(timeout === undefined ? {} : { timeout }) }
      return runTask(
        backend,
        incoming,
        { task: 'command_execute', params },
        {
          capMs: SCRIPT_LIMIT_MS,
          done: result => {
            if (json) return { status: 200, body: result }
            if (result.exitCode === 0) return { status: 200, body: result.stdout.trim() }
            return { error: rejection('InternalError', 'Error executing on remote system') }
          },
        },
      )
    },
  }),
  row({
    method: 'POST',
    path: '/servers/:server_uuid/recovery-config',
    name: 'ServerRecoveryConfig',
    summary:
      'Stages or activates a recovery configuration of an encrypted pool. Linux nodes have none: their answer is 412.',
    gate: 'GSR',
    strict: false,
    params: {
      action: v.optional(text),
      recovery_uuid: v.optional(text),
      pivtoken: v.optional(text),
      template: v.optional(text),
      token: v.optional(text),
    },
    success: { status: 200, description: 'The task', body: v.object({ id: v.string() }) },
    errors: ['PreconditionFailed'],
    handle: async (incoming, backend) => {
      const refusal = await refuseRecovery(incoming, backend)
      if (refusal) return { error: refusal }
      const { server, params, ids, key, reqId } = incoming
      const task = { task_id: ids.task(), task: 'recovery_config' as const, params: { ...params }, req_id: reqId }
      return started(await backend.call('cn', server.uuid, 'task_add', task, { key, reqId }))
    },
  }),
]

type Recovery = { [N in 'action' | 'recovery_uuid' | 'pivtoken' | 'template' | 'token']?: string | undefined }

/** The preconditions in CNAPI's order; undefined when all hold. */
async function refuseRecovery(
  { server, params }: Pick<Incoming<Entries, 'GS'>, 'server'> & { params: Recovery },
  backend: Backend,
): Promise<Rejection | undefined> {
  const refuse = (message: string) => rejection('PreconditionFailed', message)
  const missing = (['action', 'recovery_uuid', 'pivtoken'] as const).find(name => !params[name])
  if (missing) return refuse(`${missing} is required`)
  const { action, recovery_uuid, template, token } = params
  if (action !== 'stage' && action !== 'activate') return refuse('action must be stage or activate')
  if (action === 'stage' && !(template && token)) return refuse('template and token are required to stage')
  const old = refuseOldAgent(server, 'recovery_config', recoveryMinimum)
  if (old) return old
  await backend.inventory.barrier()
  const sysinfo = backend.inventory.sysinfo(server.uuid) ?? {}
  if (!sysinfo['Zpool Encrypted']) return refuse(`server ${server.uuid} has no encrypted pool`)
  if (action === 'stage') return undefined
  const { active, staged } = (sysinfo['Zpool Recovery'] ?? {}) as { active?: unknown; staged?: unknown }
  const wanted = recovery_uuid?.toLowerCase()
  if (uuidOf(active) === wanted) return refuse(`recovery configuration ${wanted} is active already`)
  if (uuidOf(staged) !== wanted) return refuse(`recovery configuration ${wanted} is not the staged one`)
  return undefined
}

/** The UUID of a configuration: the first 32 digits of its hash. */
function uuidOf(hash: unknown): string | undefined {
  const parts = typeof hash === 'string' ? /^(.{8})(.{4})(.{4})(.{4})(.{12})/.exec(hash.toLowerCase()) : null
  return parts?.slice(1).join('-')
}
