/** Brings a VM back to a snapshot: its disks as they were, running with its memory or stopped as it was then. */
import type { VmShape } from '../devices.ts'
import { HypervisorError } from '../hypervisor.ts'
import { changedParts, diskPart, nicPart, wantedOf } from '../shape.ts'
import { lookAt, mayBegin, needVm, type TaskContext, type TaskHandler } from './task.ts'

export const machine_rollback_snapshot: TaskHandler<'machine_rollback_snapshot'> = {
  run: async (context, { uuid, snapshot_name: name }) => {
    const { hypervisor, installs } = context
    await mayBegin(context, async () => {
      await needVm(context, uuid)
      if ((await hypervisor.listSnapshots(uuid)).some(one => one.name === name)) return
      throw new HypervisorError('SnapshotNotFound', `the VM ${uuid} has no snapshot ${name}`)
    })
    const before = await context.once('known', () => shapeOf(context, uuid))
    // Its installer would otherwise be taken for finished, and the VM started from disk.
    await installs.forget(uuid)
    context.progress(20, 'rollback')
    await context.once('rolled_back', () => hypervisor.rollbackSnapshot(uuid, name))
    const shape = await keepKnown(context, uuid, before)
    const wanted = shape && wantedOf(shape, [...new Set([before ?? shape, shape].flatMap(madeOf))])
    return { ...(await lookAt(context, uuid)), ...(wanted ? { wanted } : {}) }
  },
  undo: async (context, { uuid }) => {
    const before = await context.once<VmShape | null>('known', () => null)
    if (before) await keepKnown(context, uuid, before)
  },
}

/**
 * What is known of a VM beside what it is made of stays as it was before. An agent that died while the hypervisor worked left what was
 * known then, and a repeat would take that for the present.
 */
async function keepKnown(context: TaskContext, uuid: string, before: VmShape | null): Promise<VmShape | null> {
  const now = await shapeOf(context, uuid)
  if (!before || !now) return now
  const { memory_mib, vcpus, autoboot, disks, nics } = now
  const wanted = { ...before, memory_mib, vcpus, autoboot, disks, nics }
  const parts = changedParts(now, wanted)
  if (parts.length > 0) await context.hypervisor.reshapeVm(uuid, wanted, { parts })
  return wanted
}

/** What a snapshot is of; all else stays what it was, and stays wanted as it was. */
const madeOf = ({ disks, nics }: VmShape) => ['ram', 'vcpus', ...disks.map(diskPart), ...nics.map(nicPart)]

/** What the VM is now. Null for one that Muster did not make: it has no definition that Muster can read so. */
async function shapeOf({ hypervisor }: TaskContext, uuid: string): Promise<VmShape | null> {
  try {
    return await hypervisor.shapeOf(uuid)
  } catch (error) {
    if (error instanceof HypervisorError && error.code === 'InvalidArgument') return null
    throw error
  }
}
