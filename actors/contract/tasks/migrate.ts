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

export const MIGRATION_TASKS = {
  /** On the source: what there is to move. SnapshotsExist, MigrationNotSupported for what Muster did not make. */
  machine_migrate_examine: {
    params: v.object(params),
    result: v.object({ vm: VmSummary, found: v.object({ spec: VmSpec }) }),
    limitMs: 2 * minute,
    serial: 'vm',
  },
  /** On the target: a definition that cannot be started, empty volumes, and the stream that will fill them. */
  machine_migrate_receive: {
    params: v.object({ ...params, spec: VmSpec, token: StreamToken }),
    result: v.object({ found: v.object({ stream: v.object({ host: v.string(), port: v.number() }) }) }),
    limitMs: 5 * minute,
    serial: 'vm',
  },
  /** On the source: holds the stopped VM and streams its disks to the target. */
  machine_migrate_send: {
    params: v.object({ ...params, host: v.string(), port: v.number(), token: StreamToken }),
    result: v.object({ found: v.object({ disks: v.array(DiskDigest) }) }),
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
  /** On the target: starts it and watches whether it stays up. */
  machine_migrate_start: { params: v.object(params), result: vmResult, limitMs: 10 * minute, serial: 'vm' },
  /** On the target, when the VM is its own: it starts with its node again, if it did on the source. */
  machine_migrate_finish: {
    params: v.object({ ...params, autoboot: v.boolean() }),
    result: vmResult,
    limitMs: 5 * minute,
    serial: 'vm',
  },
  /** On the source, when the VM is the target's: removes the held copy. */
  machine_migrate_remove: { params: v.object(params), result: v.object({}), limitMs: 15 * minute, serial: 'vm' },
  /** Undo on the target: removes what this migration made, running or not. */
  machine_migrate_discard: {
    params: v.object({ ...params, token: StreamToken }),
    result: v.object({}),
    limitMs: 15 * minute,
    serial: 'vm',
  },
  /** Undo on the source: no longer held; started again if it ran. */
  machine_migrate_release: {
    params: v.object({ ...params, start: v.boolean() }),
    result: vmResult,
    limitMs: 10 * minute,
    serial: 'vm',
  },
} as const satisfies Record<string, TaskKind>
