/** A migration as its VM's record keeps it: which step is under way, what earlier steps found, why it is being taken back. */
import * as v from 'valibot'

/**
 * Steps in their order. Up to `start` everything can be taken back; with its end the VM is the target's, and there is only forward.
 * `discard` and `release` take back, on the target and on the source.
 */
export const MIGRATION_STEPS = [
  'examine',
  'receive',
  'stop',
  'send',
  'adopt',
  'start',
  'finish',
  'remove',
  'discard',
  'release',
] as const
export type MigrationStep = (typeof MIGRATION_STEPS)[number]

/** A disk as a file: its length in bytes, and its SHA-256 in hex. */
export const DiskDigest = v.object({
  bytes: v.number(),
  sha256: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/, 'must be 64 hex digits')),
})
export type DiskDigest = v.InferOutput<typeof DiskDigest>

/** Opens one stream once; never part of what is shown. */
export const StreamToken = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/, 'must be 64 hex digits'))

const failure = v.object({ code: v.string(), message: v.string() })

export const Migration = v.object({
  /** The caller's task, kept on the source: nobody works on it, the VM's actor ends it. Marks what belongs to this migration. */
  task_id: v.string(),
  source: v.string(),
  target: v.string(),
  token: v.string(),
  req_id: v.optional(v.string()),
  /** How the guest is stopped: as the verb `stop` says. */
  stop: v.object({ timeout: v.optional(v.number()), force: v.optional(v.boolean()) }),
  /** The guest runs on while it is moved: `stop` and `adopt` are left out. */
  live: v.optional(v.boolean()),
  step: v.picklist(MIGRATION_STEPS),
  /** Task of the step; null where none is under way (an uncertain migration between two questions). */
  step_task: v.nullable(v.string()),
  /** Tasks ordered so far: each has an id of its own. */
  ordered: v.number(),
  /** The guest ran when it began. */
  ran: v.boolean(),
  /** The source was asked to stop or hold it. */
  held: v.boolean(),
  /** What the target makes: the source's spec, with disks that stand on no image. */
  spec: v.optional(v.record(v.string(), v.unknown())),
  stream: v.optional(v.object({ host: v.string(), port: v.number() })),
  disks: v.optional(v.array(DiskDigest)),
  /** Of a live one: what the hypervisor of the source has for that of the target, base64. */
  cookie: v.optional(v.string()),
  /** The target may have started it: before the source may, the target must have said that its copy is gone. */
  may_run_on_target: v.boolean(),
  /** It was to be taken back, and runs on the target already. */
  arrived: v.optional(v.boolean()),
  /** How long a guest that was moved live stood still, ms. */
  downtime_ms: v.optional(v.number()),
  /** An operator gave up waiting for a node that does not answer. */
  forced: v.boolean(),
  /** Times the last step was ordered again. */
  tries: v.optional(v.number()),
  /** Why it is being taken back. */
  failure: v.nullable(failure),
})
export type Migration = v.InferOutput<typeof Migration>

/** What a migration could not remove because a node did not answer: asked again until it is gone. */
export const Leftover = v.object({
  server_uuid: v.string(),
  task: v.picklist([
    'machine_migrate_finish',
    'machine_migrate_remove',
    'machine_migrate_discard',
    'machine_migrate_release',
  ]),
  params: v.record(v.string(), v.unknown()),
  /** Its task under way; null until it is asked again. */
  task_id: v.nullable(v.string()),
  /** Where ids of its tasks come from. */
  migration: v.string(),
  ordered: v.number(),
})
export type Leftover = v.InferOutput<typeof Leftover>
