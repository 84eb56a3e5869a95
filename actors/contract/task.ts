/** Tasks: the table of all kinds, and the record that TaskGet shows. A new task is a row in `tasks/`, a route row and a file of the agent. */
import * as v from 'valibot'
import { NetworkName, Uuid } from './ids.ts'
import { AGENT_TASKS } from './tasks/agents.ts'
import { DOCKER_TASKS } from './tasks/docker.ts'
import { IMAGE_TASKS } from './tasks/images.ts'
import type { TaskKind } from './tasks/kind.ts'
import { MIGRATION_TASKS } from './tasks/migrate.ts'
import { NETWORK_TASKS } from './tasks/network.ts'
import { NOP_TASKS } from './tasks/nop.ts'
import { SERVER_TASKS } from './tasks/server.ts'
import { VM_TASKS } from './tasks/vm.ts'
import { VM_CHANGE_TASKS } from './tasks/vm-changes.ts'
import { VM_IMAGE_TASKS } from './tasks/vm-images.ts'
import { VM_SNAPSHOT_TASKS } from './tasks/vm-snapshots.ts'
import { ZFS_READS, ZFS_TASKS } from './tasks/zfs.ts'

/** Wire name -> parameters, result, limit (cnapi-behaviour §5.6; 3600 s is the documented limit of any task). */
export const TASKS = {
  ...VM_TASKS,
  ...MIGRATION_TASKS,
  ...VM_CHANGE_TASKS,
  ...VM_SNAPSHOT_TASKS,
  ...VM_IMAGE_TASKS,
  ...NETWORK_TASKS,
  ...NOP_TASKS,
  ...SERVER_TASKS,
  ...IMAGE_TASKS,
  ...AGENT_TASKS,
  ...ZFS_TASKS,
  ...DOCKER_TASKS,
} as const satisfies Record<string, TaskKind>

export type TaskName = keyof typeof TASKS
/** What a caller is given where several tasks make one: nobody works on it, its VM's actor ends it. */
export const COMPOSED_TASKS = ['machine_migrate'] as const
export type ComposedTask = (typeof COMPOSED_TASKS)[number]
export const TASK_NAMES = Object.keys(TASKS) as TaskName[]
export type TaskParams<N extends TaskName> = v.InferOutput<(typeof TASKS)[N]['params']>
export type TaskResult<N extends TaskName> = v.InferOutput<(typeof TASKS)[N]['result']>

/** How long an offer may stay unaccepted before the task fails as AgentNotConnected, ms. */
export const ACCEPT_LIMIT_MS = 60_000

/** Live reads: what a caller may ask an agent at once, without a task. */
export const READS = {
  machine_load: { params: v.object({ uuid: Uuid }), limitMs: 60_000 },
  machine_proc: { params: v.object({ uuid: Uuid }), limitMs: 20_000 },
  machine_info: { params: v.object({ uuid: Uuid, types: v.optional(v.array(v.string())) }), limitMs: 10_000 },
  machine_snapshots: { params: v.object({ uuid: Uuid }), limitMs: 10_000 },
  /** The node's VMs as they are found, those after this uuid: a FoundPage (found.ts). */
  machine_found: { params: v.object({ after: v.optional(Uuid) }), limitMs: 20_000 },
  network_list: { params: v.object({}), limitMs: 10_000 },
  network_load: { params: v.object({ name: NetworkName }), limitMs: 10_000 },
  domain_list: { params: v.object({}), limitMs: 10_000 },
  node_health: { params: v.object({}), limitMs: 10_000 },
  image_list: { params: v.object({}), limitMs: 20_000 },
  ...ZFS_READS,
  /** The last tasks of the agent, as CNAPI's node agents list them (cnapi-behaviour §5.7). */
  task_history: { params: v.object({}), limitMs: 10_000 },
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
