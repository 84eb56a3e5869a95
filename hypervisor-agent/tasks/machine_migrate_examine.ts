/** Says what there is to move, and refuses what cannot be moved, before anything is stopped. */
import { HypervisorError } from '../hypervisor.ts'
import { diskSpecs } from '../shape.ts'
import { needVm, type TaskHandler } from './task.ts'
import { needNoSnapshots } from './without-snapshots.ts'

export const machine_migrate_examine: TaskHandler<'machine_migrate_examine'> = {
  run: async (context, { uuid, live }) => {
    const { hypervisor, installs } = context
    const listed = await needVm(context, uuid)
    const vm = installs.annotate(listed)
    if (live && vm.state !== 'running') throw new HypervisorError('VmNotRunning', `the VM ${uuid} is not running`)
    if (vm.installing) throw new HypervisorError('VmBusy', `the installer of VM ${uuid} is at work`)
    await needNoSnapshots(context, uuid, 'migrate')
    const { disks, ...shape } = await hypervisor.shapeOf(uuid).catch(error => {
      if (!(error instanceof HypervisorError) || error.code !== 'InvalidArgument') throw error
      throw new HypervisorError('MigrationNotSupported', error.message, { cause: error })
    })
    const elsewhere = disks.find(({ volume }) => volume.startsWith('/'))
    if (elsewhere) {
      const message = `disk ${elsewhere.volume} of VM ${uuid} is not in this server's pool`
      throw new HypervisorError('MigrationNotSupported', message)
    }
    const { name, brand = 'kvm' } = listed
    return { vm, found: { spec: { ...shape, uuid: listed.uuid, name, brand, disks: diskSpecs(disks) } } }
  },
}
