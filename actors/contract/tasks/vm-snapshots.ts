/** Tasks about a VM's snapshots (cnapi-behaviour §5.6). */
import * as v from 'valibot'
import { SnapshotName } from '../ids.ts'
import { VmSummary } from '../vm.ts'
import { hour, type TaskKind, vmParams, vmResult } from './kind.ts'

const params = v.object({ ...vmParams, snapshot_name: SnapshotName })

export const VM_SNAPSHOT_TASKS = {
  machine_create_snapshot: {
    params,
    result: v.object({ vm: v.nullable(VmSummary), snapshot_name: v.string() }),
    limitMs: hour,
    serial: 'vm',
  },
  machine_rollback_snapshot: { params, result: vmResult, limitMs: hour, serial: 'vm' },
  machine_delete_snapshot: { params, result: vmResult, limitMs: hour, serial: 'vm' },
} as const satisfies Record<string, TaskKind>
