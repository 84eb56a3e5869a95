/** For tasks that cannot keep a VM's snapshots: they refuse while it has any. */
import { HypervisorError } from '../hypervisor.ts'
import type { TaskContext } from './task.ts'

/** SnapshotsExist, naming them, unless the VM has none. `doing` completes "cannot ... VM <uuid>". */
export async function needNoSnapshots({ hypervisor }: Pick<TaskContext, 'hypervisor'>, uuid: string, doing: string) {
  const names = (await hypervisor.listSnapshots(uuid)).map(one => one.name)
  if (names.length === 0) return
  const message = `cannot ${doing} VM ${uuid} while it has snapshots: delete ${names.join(', ')} first`
  throw new HypervisorError('SnapshotsExist', message)
}
