/** See `VmStats`: libvirt's statistics, in the one call that skips guests that hang. */
import { cpus } from 'node:os'
import type { Hypervisor as Libvirt } from 'node-libvirt'
import { HypervisorError } from '../hypervisor.ts'
import type { NicFigures, VmFigures } from '../vm-stats.ts'

const running = 1
const paused = 3

export async function vmStats(libvirt: Libvirt, uuid: string): Promise<VmFigures> {
  const all = await libvirt.getAllDomainStats({
    stats: { state: true, cpuTotal: true, balloon: true, block: true, interface: true },
    filter: { nowait: true },
  })
  const found = all.find(one => one.uuid === uuid.toLowerCase())?.stats
  if (!found) throw new HypervisorError('VmNotFound', `there is no VM ${uuid}`)
  if (![running, paused].includes(Number(found['state.state']))) {
    throw new HypervisorError('VmNotRunning', `the VM ${uuid} is not running`)
  }
  const number = (name: string) => Number(found[name] ?? 0)
  const each = <T>(kind: string, make: (prefix: string, name: string) => T): T[] =>
    Array.from({ length: number(`${kind}.count`) }, (_, n) =>
      make(`${kind}.${n}`, String(found[`${kind}.${n}.name`] ?? n)),
    )
  const direction = (prefix: string): NicFigures => ({
    bytes: number(`${prefix}.bytes`),
    packets: number(`${prefix}.pkts`),
    errors: number(`${prefix}.errs`),
    dropped: number(`${prefix}.drop`),
  })
  const limit = number('balloon.current') * 1024
  const unused = found['balloon.unused']
  return {
    cpu_ns: number('cpu.time'),
    user_ns: number('cpu.user'),
    system_ns: number('cpu.system'),
    host_cpus: cpus().length,
    host_cpu_ns: hostCpuNs(),
    memory_limit_bytes: limit,
    // The guest's balloon driver knows better than the host what is used.
    memory_used_bytes: unused === undefined ? number('balloon.rss') * 1024 : limit - Number(unused) * 1024,
    disks: each('block', (prefix, name) => ({
      name,
      read_bytes: number(`${prefix}.rd.bytes`),
      reads: number(`${prefix}.rd.reqs`),
      write_bytes: number(`${prefix}.wr.bytes`),
      writes: number(`${prefix}.wr.reqs`),
    })),
    nics: each('net', (prefix, name) => ({ name, rx: direction(`${prefix}.rx`), tx: direction(`${prefix}.tx`) })),
  }
}

function hostCpuNs(): number {
  return cpus().reduce((sum, { times }) => sum + Object.values(times).reduce((a, b) => a + b, 0), 0) * 1e6
}
