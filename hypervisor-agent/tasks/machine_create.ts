/**
 * Makes a VM: definition and disks, then its first start, from disk or from an installer. The task ends when the VM runs; what
 * follows an installer is up to `installs`. A create that fails leaves nothing behind.
 */
import type { TaskParams } from '../../actors/contract/task.ts'
import { findVm, lookAt, mayBegin, type TaskContext, type TaskHandler } from './task.ts'

export const machine_create: TaskHandler<'machine_create'> = {
  run: async (context, { spec }) => {
    const { hypervisor, images, installs, taskId } = context
    const { uuid, install } = spec
    context.progress(5, 'pre_check')
    // A location that is no installer tree is said before disks are made.
    if (install) await mayBegin(context, async () => void (await installs.examine(install, context.signal)))
    const names = spec.disks.flatMap(({ image }) => image ?? [])
    await images.using(names, async () => {
      if (images.hasService()) await ensureImages(context, names)
      context.progress(20, 'define')
      await hypervisor.defineVm(spec, { taskId })
    })
    if (install) {
      context.progress(50, 'fetch_installer')
      const installer = await context.once('fetched', () => installs.fetch(uuid, install, context.signal))
      context.progress(85, 'start_installer')
      await context.once('installer_started', async () => {
        await installs.begins(uuid, taskId)
        await hypervisor.startInstaller(uuid, installer)
        await installs.runs(uuid)
      })
    } else if (spec.autoboot) {
      context.progress(85, 'start')
      await context.once('started', () => hypervisor.startVm(uuid))
    }
    return lookAt(context, uuid)
  },
  undo: async (context, params) => {
    if (!(await isOurs(context, params))) return
    await context.installs.forget(params.spec.uuid)
    await context.hypervisor.removeVm(params.spec.uuid)
  },
}

/** Where there is an image service, images that are missing come from it; without one, `defineVm` says ImageNotInstalled. */
async function ensureImages(context: TaskContext, names: string[]): Promise<void> {
  for (const name of new Set(names)) await context.images.ensure({ name }, { ...context, share: { from: 5, to: 20 } })
}

/** A create refused because the VM exists must not remove that VM. */
async function isOurs({ hypervisor, taskId }: TaskContext, { spec }: TaskParams<'machine_create'>): Promise<boolean> {
  const vm = await findVm(hypervisor, spec.uuid)
  return vm === undefined || vm.created_by === taskId
}
