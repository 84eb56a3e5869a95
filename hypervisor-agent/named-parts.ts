/** Which parts of a VM an update names: those are as it says from then on, whether or not they were so before. */
import type { VmChanges } from '../actors/contract/vm-changes.ts'
import type { VmShape } from './devices.ts'
import { diskPart, findDisk, nicPart } from './shape.ts'

/** Disks and NICs that come or go are changed parts in any case (`changedParts`). */
export function namedParts(changes: VmChanges, wanted: VmShape): string[] {
  const fields = Object.entries(fieldNames).filter(([name]) => changes[name as keyof VmChanges] !== undefined)
  return [
    ...new Set([
      ...fields.map(([, part]) => part),
      ...(changes.update_disks ?? []).map(({ disk }) => diskPart(findDisk(wanted.disks, disk))),
      ...(changes.update_nics ?? []).map(nicPart),
    ]),
  ]
}

const fieldNames = {
  memory_mib: 'ram',
  vcpus: 'vcpus',
  cpu_cap: 'cpu_cap',
  quota_gib: 'quota',
  alias: 'alias',
  owner_uuid: 'owner_uuid',
  autoboot: 'autoboot',
  set_tags: 'tags',
  remove_tags: 'tags',
} as const satisfies { [N in keyof VmChanges]?: string }
