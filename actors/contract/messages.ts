/** Messages between processes. All are JSON; every answer is a `Reply` ({value} or {error}). */
import * as v from 'valibot'
import { Uuid } from './ids.ts'
import { StatusEvent, Sysinfo } from './server.ts'
import { ChangedVm } from './vm-changes.ts'

/** Overall time a command may take before its sender gives up, and the time of one attempt, ms. */
export const COMMAND_DEADLINE_MS = 15_000
export const COMMAND_ATTEMPT_MS = 1_000

/**
 * Payload of `<kind>.<id>.cmd.<verb>`. An empty payload is a command from a person: it is not remembered.
 * `sender` and `sequence` identify a command across repeats, `floor` is the sender's lowest unanswered sequence.
 */
export const Command = v.object({
  sender: v.optional(v.pipe(v.string(), v.maxLength(128))),
  sequence: v.optional(v.number()),
  floor: v.optional(v.number()),
  /** A caller's Idempotency-Key, with a digest of method, path and body. */
  key: v.optional(v.object({ value: v.pipe(v.string(), v.maxLength(255)), fingerprint: v.string() })),
  req_id: v.optional(v.string()),
  params: v.optional(v.record(v.string(), v.unknown()), {}),
})
export type Command = v.InferOutput<typeof Command>

/** `agent.<uuid>.task`: answered {value: {accepted: true}} once the agent has written it into its journal. */
export const TaskOffer = v.object({
  id: Uuid,
  task: v.string(),
  params: v.record(v.string(), v.unknown()),
  req_id: v.optional(v.string()),
})
export type TaskOffer = v.InferOutput<typeof TaskOffer>

/**
 * `cn.<uuid>.agent.report`. `accepted` asks for leave to begin: the answer's `go` is false for a task that has ended meanwhile.
 * `at`: the agent's clock, ms since the epoch. `changed`: what a task of the node has made of VMs; told in each VM's turn, so that their
 * records hear of changes in the order in which they were made.
 */
export const TaskReport = v.object({
  id: Uuid,
  status: v.picklist(['accepted', 'active', 'complete', 'failure']),
  at: v.number(),
  progress: v.optional(v.pipe(v.number(), v.minValue(0), v.maxValue(100))),
  step: v.optional(v.string()),
  changed: v.optional(v.array(ChangedVm)),
  result: v.optional(v.unknown()),
  error: v.optional(v.object({ code: v.string(), message: v.string() })),
})
export type TaskReport = v.InferOutput<typeof TaskReport>
export const TaskReportAnswer = v.object({ go: v.boolean() })

/** `agent.<uuid>.cancel`: its owner has ended this task; what was begun is taken back. Answered {value: {}}, also for one unknown. */
export const TaskCancel = v.object({ id: Uuid })

/** `cn.<uuid>.agent.sync`: on every connect; answered with everything open. */
export const SyncRequest = v.object({ boot_time: v.optional(v.number()) })
export const SyncAnswer = v.object({ tasks: v.array(TaskOffer) })

/** `cn.<uuid>.agent.sysinfo` and `.status`. */
export const SysinfoReport = v.object({ sysinfo: Sysinfo })
export const StatusReport = StatusEvent

/** `agent.<uuid>.read`: a live read (table READS), answered within its limit. Replies are at most 512 KiB. */
export const LiveRead = v.object({ read: v.string(), params: v.record(v.string(), v.unknown()) })
export type LiveRead = v.InferOutput<typeof LiveRead>
export const REPLY_MAX_BYTES = 512 * 1024

/** `hb.<uuid>`: nothing but the time is needed; `at` is the agent's clock, ms since the epoch. */
export const Heartbeat = v.looseObject({ at: v.optional(v.number()) })
