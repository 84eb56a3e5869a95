/** Tasks of a VM's lifecycle. */
import * as v from 'valibot'
import { VmSpec } from '../vm.ts'
import { MetadataUpdate } from '../vm-changes.ts'
import { hour, idempotent, minute, type TaskKind, timeout, vmParams, vmResult } from './kind.ts'

const update = v.optional(MetadataUpdate)

export const VM_TASKS = {
  machine_create: { params: v.object({ spec: VmSpec }), result: vmResult, limitMs: hour, serial: 'vm' },
  machine_boot: {
    params: v.object({ ...vmParams, idempotent, update }),
    result: vmResult,
    limitMs: 5 * minute,
    serial: 'vm',
  },
  machine_shutdown: {
    params: v.object({ ...vmParams, force: v.optional(v.boolean(), false), timeout, idempotent }),
    result: vmResult,
    limitMs: hour,
    serial: 'vm',
  },
  machine_reboot: {
    params: v.object({ ...vmParams, force: v.optional(v.boolean(), false), timeout, idempotent, update }),
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
} as const satisfies Record<string, TaskKind>
