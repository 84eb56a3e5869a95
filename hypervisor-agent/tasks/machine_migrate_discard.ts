/**
 * Takes back what a migration made here: its stream, its copy, running or not. What it did not make stays, and so does one that runs where
 * that is not to be undone: what it has done since is on its disks alone.
 */
import { findVm, lookAt, type TaskHandler } from './task.ts'

export const machine_migrate_discard: TaskHandler<'machine_migrate_discard'> = {
  run: async (context, { uuid, migration, token, unless_running = false }) => {
    const { hypervisor, receptions } = context
    await receptions.end(token)
    const vm = await findVm(hypervisor, uuid)
    const isOurs = await context.once('ours', () => vm?.created_by === migration)
    if (!isOurs) return {}
    const isKept = await context.once('kept', () => unless_running && vm?.state === 'running')
    if (!isKept) {
      await hypervisor.removeVm(uuid)
      return {}
    }
    await hypervisor.completeVm(uuid)
    return { ...(await lookAt(context, uuid)), found: { arrived: true } }
  },
}
