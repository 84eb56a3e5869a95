/** New internal metadata that a start or reboot carries (cnapi-behaviour §9.3): set before the guest boots, taken back if it does not. */
import type { TaskParams } from '../../actors/contract/task.ts'
import type { VmShape } from '../devices.ts'
import { changedShape } from '../shape.ts'
import type { TaskContext } from './task.ts'

type Update = TaskParams<'machine_boot'>['update']

const parts = ['internal_metadata']

export async function setInternalMetadata(context: TaskContext, uuid: string, update: Update): Promise<void> {
  if (!update) return
  const before = await context.once('metadata_before', () => context.hypervisor.shapeOf(uuid))
  await context.once('metadata_set', async () => {
    const wanted = changedShape(uuid, before, update, context.taskId)
    await context.hypervisor.reshapeVm(uuid, wanted, { parts })
  })
}

/** For the task's undo. */
export async function takeMetadataBack(context: TaskContext, uuid: string): Promise<void> {
  const before = await context.once<VmShape | null>('metadata_before', () => null)
  if (before) await context.hypervisor.reshapeVm(uuid, before, { parts })
}
