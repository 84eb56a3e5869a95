/** CNAPI's recovery configuration of encrypted pools: an agent of another make may know it, a Linux node has nothing of the kind. */
import { HypervisorError } from '../hypervisor.ts'
import type { TaskHandler } from './task.ts'

export const recovery_config: TaskHandler<'recovery_config'> = {
  run: async () => {
    const lacks = 'this node has no encrypted pool with a recovery configuration (kbmadm and PIV tokens)'
    throw new HypervisorError('TaskNotSupported', lacks)
  },
}
