/** Reads back what was received: only disks that are here what they are there make the VM whole. It is not started. */
import { HypervisorError } from '../hypervisor.ts'
import { digestOf } from '../streams/disks.ts'
import { lookAt, needVm, type TaskContext, type TaskHandler } from './task.ts'

export const machine_migrate_adopt: TaskHandler<'machine_migrate_adopt'> = {
  run: async (context, { uuid, migration, disks }) => {
    const { hypervisor } = context
    await needOurs(context, uuid, migration)
    const total = disks.reduce((sum, { bytes }) => sum + bytes, 0) || 1
    let done = 0
    for (const [n, { bytes, sha256 }] of disks.entries()) {
      const read = (some: number) => {
        done += some
        context.progress(Math.min(95, Math.floor((95 * done) / total)), 'verify')
      }
      const found = await digestOf(await hypervisor.readDisk(uuid, n, bytes), read)
      if (found.sha256 === sha256 && found.bytes === bytes) continue
      const message = `disk ${n} of VM ${uuid} has ${found.bytes} bytes with SHA-256 ${found.sha256}, sent were ${bytes} with ${sha256}`
      throw new HypervisorError('MigrationCorrupted', message)
    }
    await hypervisor.completeVm(uuid)
    return lookAt(context, uuid)
  },
}

/** The VM that this migration made here; VmNotFound for any other. */
export async function needOurs(context: Pick<TaskContext, 'hypervisor'>, uuid: string, migration: string) {
  const vm = await needVm(context, uuid)
  if (vm.created_by === migration) return vm
  throw new HypervisorError('VmNotFound', `the VM ${uuid} on this server is not of this migration`)
}
