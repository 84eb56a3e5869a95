/** Threads of simulated guests: as many as they have virtual CPUs, and the one that QEMU begins with. */
import { HypervisorError } from '../hypervisor.ts'
import type { Processes, VmThread } from '../processes.ts'
import type { Guest } from './guests.ts'

export interface ProcessParts {
  call<T>(name: keyof Processes, uuid: string, effect: () => T): Promise<T>
  need(uuid: string): Guest
  now(): number
}

export function simulatedProcesses({ call, need, now }: ProcessParts): Processes {
  return {
    listThreads: uuid =>
      call('listThreads', uuid, () => {
        const guest = need(uuid)
        if (guest.state !== 'running') throw new HypervisorError('VmNotRunning', `the VM ${uuid} is not running`)
        const pid = 10_000 + (guest.domain_id ?? 0)
        const vcpus = guest.hardware?.vcpus ?? guest.spec.vcpus
        const cpu_ms = Math.max(0, now() - guest.started_at)
        const main: VmThread = { id: pid, name: 'qemu-system-x86', state: 'S', cpu_ms }
        const ofVcpus = Array.from({ length: vcpus }, (_, n) => ({
          id: pid + 1 + n,
          name: `CPU ${n}/KVM`,
          state: 'S',
          cpu_ms,
        }))
        return [main, ...ofVcpus]
      }),
  }
}
