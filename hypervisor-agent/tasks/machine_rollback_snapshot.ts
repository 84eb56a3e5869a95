/** Brings a VM back to a snapshot: its disks as they were, running with its memory or stopped as it was then. */
import type { Wanted } from '../../actors/contract/vm-changes.ts'
import { HypervisorError } from '../hypervisor.ts'
import { wantedOf } from '../shape.ts'
import { lookAt, mayBegin, needVm, type TaskContext, type TaskHandler } from './task.ts'

export const machine_rollback_snapshot: TaskHandler<'machine_rollback_snapshot'> = {
  run: async (context, { uuid, snapshot_name: name }) => {
    const { hypervisor, installs } = context
    await mayBegin(context, async () => {
      await needVm(context, uuid)
      if ((await hypervisor.listSnapshots(uuid)).some(one => one.name === name)) return
      throw new HypervisorError('SnapshotNotFound', `the VM ${uuid} has no snapshot ${name}`)
    })
    // Its installer would otherwise be taken for finished, and the VM started from disk.
    await installs.forget(uuid)
    context.progress(20, 'rollback')
    await context.once('rolled_back', () => hypervisor.rollbackSnapshot(uuid, name))
    return { ...(await lookAt(context, uuid)), ...(await shapeAsWanted(context, uuid)) }
  },
}

/** What the VM is now is what is wanted from now on. A VM that Muster did not make has no definition that Muster can read so. */
async function shapeAsWanted({ hypervisor }: TaskContext, uuid: string): Promise<{ wanted?: Wanted }> {
  try {
    return { wanted: wantedOf(await hypervisor.shapeOf(uuid)) }
  } catch (error) {
    if (error instanceof HypervisorError && error.code === 'InvalidArgument') return {}
    throw error
  }
}
