/** Tasks: the table of all kinds, and the record that TaskGet shows. A new task is a row here, a route row and a file of the agent. */
import * as v from 'valibot'
import { BridgeName, NetworkName, Uuid, VlanId } from './ids.ts'
import { VmSpec, VmSummary } from './vm.ts'

const vmParams = { uuid: Uuid }
const idempotent = v.optional(v.boolean(), false)
/** Seconds. */
const timeout = v.optional(v.pipe(v.number(), v.minValue(0), v.maxValue(3600)))
const vmResult = v.object({ vm: v.nullable(VmSummary) })
const nothing = v.looseObject({})

export interface TaskKind {
  params: v.GenericSchema
  result: v.GenericSchema
  /** Longest run on the agent, ms; then the compute node ends it as TaskTimedOut. */
  limitMs: number
  /** One at a time for each of these on a node. */
  serial: 'vm' | 'network' | 'none'
}

const minute = 60_000
const hour = 60 * minute

/** Wire name -> parameters, result, limit (cnapi-behaviour §5.6; 3600 s is the documented limit of any task). */
export const TASKS = {
  machine_create: { params: v.object({ spec: VmSpec }), result: vmResult, limitMs: hour, serial: 'vm' },
  machine_boot: { params: v.object({ ...vmParams, idempotent }), result: vmResult, limitMs: 5 * minute, serial: 'vm' },
  machine_shutdown: {
    params: v.object({ ...vmParams, force: v.optional(v.boolean(), false), timeout, idempotent }),
    result: vmResult,
    limitMs: hour,
    serial: 'vm',
  },
  machine_reboot: {
    params: v.object({ ...vmParams, force: v.optional(v.boolean(), false), timeout, idempotent }),
    result: vmResult,
    limitMs: hour,
    serial: 'vm',
  },
  machine_kill: {
    params: v.object({ ...vmParams, signal: v.optional(v.union([v.string(), v.number()])), idempotent }),
    result: vmResult,
    limitMs: 5 * minute,
    serial: 'vm',
  },
  machine_destroy: { params: v.object({ ...vmParams }), result: vmResult, limitMs: 15 * minute, serial: 'vm' },
  network_create: {
    params: v.object({ name: NetworkName, bridge: BridgeName, vlan: VlanId }),
    result: nothing,
    limitMs: 2 * minute,
    serial: 'network',
  },
  network_delete: { params: v.object({ name: NetworkName }), result: nothing, limitMs: 2 * minute, serial: 'network' },
  nop: {
    params: v.object({
      sleep: v.optional(v.pipe(v.number(), v.minValue(0), v.maxValue(3600)), 0),
      error: v.optional(v.string()),
    }),
    result: nothing,
    limitMs: hour + minute,
    serial: 'none',
  },
} as const satisfies Record<string, TaskKind>

export type TaskName = keyof typeof TASKS
export const TASK_NAMES = Object.keys(TASKS) as TaskName[]
export type TaskParams<N extends TaskName> = v.InferOutput<(typeof TASKS)[N]['params']>
export type TaskResult<N extends TaskName> = v.InferOutput<(typeof TASKS)[N]['result']>

/** How long an offer may stay unaccepted before the task fails as AgentNotConnected, ms. */
export const ACCEPT_LIMIT_MS = 60_000

/** Live reads: what a caller may ask an agent at once, without a task. */
export const READS = {
  machine_load: { params: v.object({ uuid: Uuid }), limitMs: 60_000 },
  machine_info: { params: v.object({ uuid: Uuid, types: v.optional(v.array(v.string())) }), limitMs: 10_000 },
  network_list: { params: v.object({}), limitMs: 10_000 },
  network_load: { params: v.object({ name: NetworkName }), limitMs: 10_000 },
  domain_list: { params: v.object({}), limitMs: 10_000 },
} as const satisfies Record<string, { params: v.GenericSchema; limitMs: number }>

export type ReadName = keyof typeof READS

/** One entry of a task's history (cnapi-behaviour §5.1). */
export const TaskHistoryEntry = v.looseObject({ name: v.string(), timestamp: v.string(), event: v.unknown() })

/** The record in bucket `task`: CNAPI's fields, then ours. `status` goes from `active` to `complete` or `failure`, once. */
export const TaskRecord = v.object({
  id: v.string(),
  req_id: v.optional(v.string()),
  task: v.string(),
  server_uuid: v.string(),
  status: v.picklist(['active', 'complete', 'failure']),
  timestamp: v.string(),
  history: v.optional(v.array(TaskHistoryEntry)),
  vm_uuid: v.optional(v.string()),
  /** 0 to 100, with the step the agent named last. */
  progress: v.optional(v.number()),
  step: v.optional(v.string()),
  finished_at: v.optional(v.string()),
  error: v.optional(v.object({ code: v.string(), message: v.string() })),
  /** What the agent is given. */
  params: v.optional(v.record(v.string(), v.unknown())),
})
export type TaskRecord = v.InferOutput<typeof TaskRecord>
