/** Tasks about a VM's snapshots (cnapi-behaviour §5.6). */
import * as v from 'valibot'
import { SnapshotName } from '../ids.ts'
import { VmSummary } from '../vm.ts'
import { Wanted } from '../vm-changes.ts'
import { hour, type TaskKind, vmParams, vmResult } from './kind.ts'

const params = v.object({ ...vmParams, snapshot_name: SnapshotName })

export const VM_SNAPSHOT_TASKS = {
  machine_create_snapshot: {
    params,
    result: v.object({ vm: v.nullable(VmSummary), snapshot_name: v.string() }),
    limitMs: hour,
    serial: 'vm',
  },
  machine_rollback_snapshot: {
    params,
    /** `wanted`: what the VM is made of as of then; its record adopts it. */
    result: v.object({ vm: v.nullable(VmSummary), wanted: v.optional(Wanted) }),
    limitMs: hour,
    serial: 'vm',
  },
  machine_delete_snapshot: { params, result: vmResult, limitMs: hour, serial: 'vm' },
} as const satisfies Record<string, TaskKind>
