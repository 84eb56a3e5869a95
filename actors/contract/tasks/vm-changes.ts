/** Tasks that change what a VM is: update, another image, NICs of many VMs at once. */
import * as v from 'valibot'
import { ImageName, Uuid } from '../ids.ts'
import { VmSummary } from '../vm.ts'
import { LocatedNics, VmChanges, Wanted } from '../vm-changes.ts'
import { hour, minute, type TaskKind, vmParams } from './kind.ts'

/** Field by field: whether the running guest has the change already, or gets it when it boots next. */
const applied = v.record(v.string(), v.picklist(['live', 'next_boot']))
const changed = { applied, wanted: Wanted }
/** Why volumes that nothing uses are still there: they go with the next change, or with the VM. */
const left_over = v.optional(v.string())

export const VM_CHANGE_TASKS = {
  machine_update: {
    params: v.object({
      ...vmParams,
      changes: VmChanges,
      /** Keys of the request that mean nothing here: named in the result. */
      ignored: v.optional(v.array(v.string()), []),
    }),
    result: v.object({ vm: v.nullable(VmSummary), ...changed, ignored: v.array(v.string()), left_over }),
    limitMs: 15 * minute,
    serial: 'vm',
  },
  machine_reprovision: {
    params: v.object({ ...vmParams, image_uuid: ImageName }),
    result: v.object({ vm: v.nullable(VmSummary), wanted: Wanted, left_over }),
    limitMs: hour,
    serial: 'vm',
  },
  /**
   * Every NIC at `from` moves to the place in `to` whose subnet has its address, else the first; each VM is changed whole or not at all, and
   * told of in a report of its own. `wanted` is only in results of agents of an earlier release.
   */
  machine_update_nics: {
    params: v.object({ from: LocatedNics, to: v.pipe(v.array(LocatedNics), v.minLength(1), v.maxLength(32)) }),
    result: v.object({
      vms: v.array(
        v.object({
          uuid: Uuid,
          ...v.partial(v.object(changed)).entries,
          error: v.optional(v.object({ code: v.string(), message: v.string() })),
        }),
      ),
    }),
    limitMs: hour,
    serial: 'none',
  },
} as const satisfies Record<string, TaskKind>
