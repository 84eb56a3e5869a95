/**
 * Changes what a VM is. Everything is checked first; then disks are made, the definition is switched, the running guest gets what it can
 * take, and disks grow last. What fails before the end is taken back by the same steps towards what it was, so nothing stays half done.
 */
import type { TaskParams, TaskResult } from '../../actors/contract/task.ts'
import type { VmShape } from '../devices.ts'
import { namedParts } from '../named-parts.ts'
import { appliedWhen, changedParts, changedShape, nicPart, resizedDisks, wantedOf } from '../shape.ts'
import { lookAt, mayBegin, type TaskContext, type TaskHandler } from './task.ts'
import { needNoSnapshots } from './without-snapshots.ts'

export const machine_update: TaskHandler<'machine_update'> = {
  run: async (context, { uuid, changes, ignored }) => {
    context.progress(5, 'check')
    const plan = await mayBegin(context, () => planOf(context, uuid, changes))
    const applied = await apply(context, uuid, plan, changes)
    const looked = await lookAt(context, uuid)
    // From here on it is as wanted, and is not taken back.
    await context.once('done', () => true)
    const leftOver = await sweep(context, uuid)
    return { ...looked, applied, wanted: wantedOf(plan.wanted, aboutParts(plan, changes)), ignored, ...leftOver }
  },
  undo: async (context, { uuid }) => takeBack(context, uuid),
}

/** From what to what. */
export interface Plan {
  before: VmShape
  wanted: VmShape
}

interface UpdatePlan extends Plan {
  /** Parts that the definition has as wanted, and the running guest has not. */
  lacking?: string[]
}

async function planOf(
  context: TaskContext,
  uuid: string,
  changes: TaskParams<'machine_update'>['changes'],
): Promise<UpdatePlan> {
  const before = await context.hypervisor.shapeOf(uuid)
  const wanted = changedShape(uuid, before, changes, context.taskId)
  // A snapshot is of all disks as they were.
  if (changedParts(before, wanted).some(part => part.startsWith('disks.')))
    await needNoSnapshots(context, uuid, 'change the disks of')
  await context.hypervisor.checkShape(uuid, wanted)
  const named = namedParts(changes, wanted)
  const pending = named.length > 0 ? await context.hypervisor.pendingParts(uuid) : []
  return { before, wanted, lacking: pending.filter(part => named.includes(part)) }
}

/** Makes the VM what is wanted, and says when each part of it is so. May happen twice. */
async function apply(
  context: TaskContext,
  uuid: string,
  { before, wanted, lacking = [] }: UpdatePlan,
  { update_nics }: TaskParams<'machine_update'>['changes'],
): Promise<TaskResult<'machine_update'>['applied']> {
  const { hypervisor } = context
  const parts = [...new Set([...changedParts(before, wanted), ...lacking])]
  context.progress(20, 'make_disks')
  const images = wanted.disks.flatMap(({ image }) => image ?? [])
  await context.images.using(images, () => hypervisor.makeVolumes(uuid, wanted))
  context.progress(50, 'change')
  const outcome = await hypervisor.reshapeVm(uuid, wanted, { parts })
  context.progress(80, 'grow_disks')
  for (const disk of resizedDisks(before, wanted)) await hypervisor.resizeDisk(uuid, disk.slot, disk.size_mib)
  const ports = update_nics ? await mendPorts(context, uuid, update_nics) : { mended: [], pending: [] }
  const pending = [...outcome.pending, ...ports.pending]
  return appliedWhen([...new Set([...parts, ...ports.mended, ...ports.pending])], { ...outcome, pending })
}

/** A NIC that is named is to be where it is wanted, also where somebody changed the switch under it. */
async function mendPorts(context: TaskContext, uuid: string, nics: { mac: string }[]) {
  const { mended, pending } = await context.hypervisor.mendPorts(
    uuid,
    nics.map(({ mac }) => mac),
  )
  return { mended: mended.map(mac => nicPart({ mac })), pending: pending.map(mac => nicPart({ mac })) }
}

/** What the VM's record takes over: not what was found changed beside it. */
function aboutParts({ before, wanted }: Plan, changes: TaskParams<'machine_update'>['changes']): string[] {
  return [...new Set([...changedParts(before, wanted), ...namedParts(changes, wanted)])]
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
