/** Figures of simulated guests: a tenth of each virtual CPU, half of the memory, and a trickle on disks and NICs. */
import { HypervisorError } from '../hypervisor.ts'
import { targetOf } from '../shape.ts'
import type { VmStats } from '../vm-stats.ts'
import { shapeOf } from './devices.ts'
import type { Guest } from './guests.ts'

export interface StatsParts {
  call<T>(name: keyof VmStats, uuid: string, effect: () => T): Promise<T>
  need(uuid: string): Guest
  now(): number
}

export function simulatedVmStats({ call, need, now }: StatsParts): VmStats {
  return {
    vmStats: uuid =>
      call('vmStats', uuid, () => {
        const guest = need(uuid)
        if (guest.state !== 'running') throw new HypervisorError('VmNotRunning', `the VM ${uuid} is not running`)
        const ms = Math.max(0, now() - guest.started_at)
        const { vcpus, memory_mib } = guest.hardware ?? guest.spec
        const memory = memory_mib * 1024 * 1024
        const cpu = Math.floor((ms * vcpus * 1e6) / 10)
        const packets = (perS: number) => {
          const count = Math.floor((ms * perS) / 1000)
          return { bytes: count * 512, packets: count, errors: 0, dropped: 0 }
        }
        const count = Math.floor(ms / 100)
        return {
          cpu_ns: cpu,
          user_ns: Math.floor(cpu * 0.75),
          system_ns: cpu - Math.floor(cpu * 0.75),
          host_cpus: 16,
          host_cpu_ns: now() * 16 * 1e6,
          memory_limit_bytes: memory,
          memory_used_bytes: Math.floor(memory / 2),
          disks: shapeOf(guest).disks.map(disk => ({
            name: targetOf(disk.slot),
            read_bytes: count * 4096,
            reads: count,
            write_bytes: count * 8192,
            writes: count * 2,
          })),
          nics: guest.spec.nics.map((_, n) => ({ name: `vnet${n}`, rx: packets(5), tx: packets(3) })),
        }
      }),
  }
}
