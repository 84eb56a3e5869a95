/**
 * Gives a VM's first disk the content of another image; identity, NICs, other disks and metadata stay. The new volume is made beside the
 * old one, the definition is switched in one step, and the old volume goes when the VM has started: at no time has the VM neither.
 */

import type { VmShape } from '../devices.ts'
import { HypervisorError } from '../hypervisor.ts'
import { changedParts, newVolume, wantedOf } from '../shape.ts'
import { shutDown } from './machine_shutdown.ts'
import { type Plan, sweep } from './machine_update.ts'
import { lookAt, mayBegin, needVm, type TaskContext, type TaskHandler } from './task.ts'
import { needNoSnapshots } from './without-snapshots.ts'

export const machine_reprovision: TaskHandler<'machine_reprovision'> = {
  run: async (context, { uuid, image_uuid }) => {
    const { hypervisor, installs } = context
    context.progress(5, 'check')
    const plan = await mayBegin(context, () => planOf(context, uuid, image_uuid))
    const { before, wanted, runs } = plan
    context.progress(15, 'make_disk')
    await context.images.using([image_uuid], () => hypervisor.makeVolumes(uuid, wanted))
    await context.once('stopped', async () => {
      await installs.forget(uuid)
      context.progress(30, 'stop')
      if (runs) await shutDown(context, uuid, context.timings.stopTimeoutMs, { from: 30, to: 65 })
    })
    context.progress(70, 'switch')
    await hypervisor.reshapeVm(uuid, wanted, { parts: changedParts(before, wanted) })
    if (runs) {
      context.progress(80, 'start')
      await context.once('started', () => hypervisor.startVm(uuid))
    }
    const looked = await lookAt(context, uuid)
    await context.once('done', () => true)
    const leftOver = await sweep(context, uuid)
    return { ...looked, wanted: wantedOf(wanted, changedParts(before, wanted)), ...leftOver }
  },
  undo: async (context, { uuid }) => {
    const plan = await context.once<RunningPlan | null>('may_begin', () => null)
    if (!plan || (await context.once('done', () => false))) return
    const { hypervisor } = context
    const { volume } = plan.before.disks[0] as VmShape['disks'][0]
    const isBack = async () => (await hypervisor.shapeOf(uuid)).disks.some(disk => disk.volume === volume)
    // A guest that has begun on the new disk stops before it loses it.
    if (!(await isBack())) {
      await hypervisor.powerOff(uuid, { graceful: true })
      await hypervisor.reshapeVm(uuid, plan.before, { parts: changedParts(plan.wanted, plan.before) })
    }
    if (plan.runs) await hypervisor.startVm(uuid)
    await hypervisor.sweepVolumes(uuid)
  },
}

type RunningPlan = Plan & { runs: boolean }

async function planOf(context: TaskContext, uuid: string, image: string): Promise<RunningPlan> {
  const { state } = await needVm(context, uuid)
  await needNoSnapshots(context, uuid, 'reprovision')
  const before = await context.hypervisor.shapeOf(uuid)
  const [root, ...others] = before.disks
  if (!root) throw new HypervisorError('InvalidArgument', `the VM ${uuid} has no disk`)
  const disk = { ...root, image, volume: newVolume(uuid, root.slot, context.taskId) }
  const wanted = { ...before, disks: [disk, ...others] }
  await context.hypervisor.checkShape(uuid, wanted)
  return { before, wanted, runs: state === 'running' }
}
