/** Starts a stopped VM from its disks. */
import { HypervisorError } from '../hypervisor.ts'
import { setInternalMetadata, takeMetadataBack } from './internal-metadata.ts'
import { lookAt, mayBegin, needVm, type TaskHandler } from './task.ts'

export const machine_boot: TaskHandler<'machine_boot'> = {
  run: async (context, { uuid, idempotent, update }) => {
    await mayBegin(context, async () => {
      const { state } = await needVm(context, uuid)
      if (state === 'running' && !idempotent)
        throw new HypervisorError('VmNotStopped', `the VM ${uuid} is running already`)
    })
    await setInternalMetadata(context, uuid, update)
    context.progress(20, 'start')
    await context.hypervisor.startVm(uuid)
    return lookAt(context, uuid)
  },
  undo: (context, { uuid }) => takeMetadataBack(context, uuid),
}
