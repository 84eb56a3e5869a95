/**
 * Changes what a VM is. Everything is checked first; then disks are made, the definition is switched, the running guest gets what it can
 * take, and disks grow last. What fails before the end is taken back by the same steps towards what it was, so nothing stays half done.
 */
import type { TaskParams, TaskResult } from '../../actors/contract/task.ts'
import type { VmShape } from '../devices.ts'
import { appliedWhen, changedParts, changedShape, resizedDisks, wantedOf } from '../shape.ts'
import { lookAt, mayBegin, type TaskContext, type TaskHandler } from './task.ts'
import { needNoSnapshots } from './without-snapshots.ts'

export const machine_update: TaskHandler<'machine_update'> = {
  run: async (context, { uuid, changes, ignored }) => {
    context.progress(5, 'check')
    const plan = await mayBegin(context, () => planOf(context, uuid, changes))
    const applied = await apply(context, uuid, plan)
    const looked = await lookAt(context, uuid)
    // From here on it is as wanted, and is not taken back.
    await context.once('done', () => true)
    const leftOver = await sweep(context, uuid)
    return { ...looked, applied, wanted: wantedOf(plan.wanted), ignored, ...leftOver }
  },
  undo: async (context, { uuid }) => takeBack(context, uuid),
}

/** From what to what. */
export interface Plan {
  before: VmShape
  wanted: VmShape
}

async function planOf(
  context: TaskContext,
  uuid: string,
  changes: TaskParams<'machine_update'>['changes'],
): Promise<Plan> {
  const before = await context.hypervisor.shapeOf(uuid)
  const wanted = changedShape(uuid, before, changes, context.taskId)
  // A snapshot is of all disks as they were.
  if (changedParts(before, wanted).some(part => part.startsWith('disks.')))
    await needNoSnapshots(context, uuid, 'change the disks of')
  await context.hypervisor.checkShape(uuid, wanted)
  return { before, wanted }
}

/** Makes the VM what is wanted, and says when each part of it is so. May happen twice. */
async function apply(
  context: TaskContext,
  uuid: string,
  { before, wanted }: Plan,
): Promise<TaskResult<'machine_update'>['applied']> {
  const { hypervisor } = context
  const parts = changedParts(before, wanted)
  context.progress(20, 'make_disks')
  const images = wanted.disks.flatMap(({ image }) => image ?? [])
  await context.images.using(images, () => hypervisor.makeVolumes(uuid, wanted))
  context.progress(50, 'change')
  const outcome = await hypervisor.reshapeVm(uuid, wanted, { parts })
  context.progress(80, 'grow_disks')
  for (const disk of resizedDisks(before, wanted)) await hypervisor.resizeDisk(uuid, disk.slot, disk.size_mib)
  return appliedWhen(parts, outcome)
}

/** The same way back. What was never begun, and what is done, stays. */
async function takeBack(context: TaskContext, uuid: string): Promise<void> {
  const plan = await context.once<Plan | null>('may_begin', () => null)
  if (!plan || (await context.once('done', () => false))) return
  const { before, wanted } = plan
  for (const disk of resizedDisks(wanted, before)) await context.hypervisor.resizeDisk(uuid, disk.slot, disk.size_mib)
  await context.hypervisor.reshapeVm(uuid, before, { parts: changedParts(wanted, before) })
  await context.hypervisor.sweepVolumes(uuid)
}

/** Volumes that nothing uses any more. One that cannot be deleted is named, and goes with the next change or with the VM. */
export async function sweep(context: TaskContext, uuid: string): Promise<{ left_over?: string }> {
  context.progress(95, 'delete_disks')
  try {
    await context.hypervisor.sweepVolumes(uuid)
    return {}
  } catch (error) {
    context.signal.throwIfAborted()
    return { left_over: error instanceof Error ? error.message : String(error) }
  }
}
