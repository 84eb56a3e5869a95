/**
 * Tasks of a migration's steps, in their order; its VM's actor orders them on the source and on the target. `migration`: the task that
 * the caller was given, which marks what belongs to this migration on both nodes. `found` in a result is told to the VM's actor.
 */
import * as v from 'valibot'
import { Uuid } from '../ids.ts'
import { DiskDigest, StreamToken } from '../migration.ts'
import { VmSpec, VmSummary } from '../vm.ts'
import { hour, minute, type TaskKind, vmParams, vmResult } from './kind.ts'

const params = { ...vmParams, migration: Uuid }
/** The guest runs on while it is moved. */
const live = v.optional(v.boolean())

export const MIGRATION_TASKS = {
  /** On the source: what there is to move. SnapshotsExist, MigrationNotSupported for what Muster did not make; live: VmNotRunning. */
  machine_migrate_examine: {
    params: v.object({ ...params, live }),
    result: v.object({ vm: VmSummary, found: v.object({ spec: VmSpec }) }),
    limitMs: 2 * minute,
    serial: 'vm',
  },
  /** On the target: a definition that cannot be started, empty volumes, and the stream that will fill them. */
  machine_migrate_receive: {
    params: v.object({ ...params, spec: VmSpec, token: StreamToken, live }),
    result: v.object({ found: v.object({ stream: v.object({ host: v.string(), port: v.number() }) }) }),
    limitMs: 5 * minute,
    serial: 'vm',
  },
  /**
   * On the source: holds the VM and streams its disks to the target. Live: with the memory of the running guest, which is paused in the
   * end. LiveMigrationNotSupported where one of the two hypervisors cannot.
   */
  machine_migrate_send: {
    params: v.object({ ...params, host: v.string(), port: v.number(), token: StreamToken, live }),
    result: v.object({
      found: v.union([v.object({ disks: v.array(DiskDigest) }), v.object({ cookie: v.string() })]),
    }),
    limitMs: 12 * hour,
    serial: 'vm',
  },
  /** On the target: reads the disks back, compares them, and makes the VM whole. It is not started. */
  machine_migrate_adopt: {
    params: v.object({ ...params, disks: v.array(DiskDigest) }),
    result: vmResult,
    limitMs: 12 * hour,
    serial: 'vm',
  },
  /**
   * On the target: starts it and watches whether it stays up, or with the `cookie` of a live migration has it go on. `downtime_ms`: how long
   * the guest stood still, where the hypervisor tells.
   */
  machine_migrate_start: {
    params: v.object({ ...params, cookie: v.optional(v.string()) }),
    result: v.object({ ...vmResult.entries, found: v.optional(v.object({ downtime_ms: v.optional(v.number()) })) }),
    limitMs: 10 * minute,
    serial: 'vm',
  },
  /** On the target, when the VM is its own: it starts with its node again, if it did on the source. */
  machine_migrate_finish: {
    params: v.object({ ...params, autoboot: v.boolean() }),
    result: vmResult,
    limitMs: 5 * minute,
    serial: 'vm',
  },
  /** On the source, when the VM is the target's: removes the held copy. */
  machine_migrate_remove: { params: v.object(params), result: v.object({}), limitMs: 15 * minute, serial: 'vm' },
  /**
   * Undo on the target: removes what this migration made, running or not. `unless_running`: one that runs is left running and made whole,
   * and `arrived` says so.
   */
  machine_migrate_discard: {
    params: v.object({ ...params, token: StreamToken, unless_running: v.optional(v.boolean()) }),
    result: v.object({
      vm: v.optional(vmResult.entries.vm),
      found: v.optional(v.object({ arrived: v.optional(v.boolean()) })),
    }),
    limitMs: 15 * minute,
    serial: 'vm',
  },
  /** Undo on the source: no longer held; started again if it ran. Live: it goes on if it was paused. */
  machine_migrate_release: {
    params: v.object({ ...params, start: v.boolean(), live }),
    result: vmResult,
    limitMs: 10 * minute,
    serial: 'vm',
  },
} as const satisfies Record<string, TaskKind>
