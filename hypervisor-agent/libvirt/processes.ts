/** See `Processes`: threads as the kernel shows them; an agent that may not know QEMU's process asks libvirt for the virtual CPUs. */
import { readdir, readFile } from 'node:fs/promises'
import type { Domain, Hypervisor as Libvirt } from 'node-libvirt'
import { HypervisorError } from '../hypervisor.ts'
import type { VmThread } from '../processes.ts'
import { qemuPid } from './vms.ts'

/** Linux counts CPU time in hundredths of a second, whatever its own clock. */
const msPerTick = 10

export async function listThreads(domain: Domain, libvirt: Libvirt): Promise<VmThread[]> {
  if (!(await domain.isActive())) throw new HypervisorError('VmNotRunning', `the VM ${domain.uuid} is not running`)
  const pid = await qemuPid(domain.name)
  const threads = pid === undefined ? [] : await threadsOf(pid)
  return threads.length > 0 ? threads : vcpusOf(domain, libvirt)
}

async function threadsOf(pid: number): Promise<VmThread[]> {
  const ids = await readdir(`/proc/${pid}/task`).catch(() => [])
  const texts = await Promise.all(ids.map(id => readFile(`/proc/${pid}/task/${id}/stat`, 'utf8').catch(() => '')))
  return texts.flatMap(text => readStat(text) ?? [])
}

/** A line of /proc/<pid>/stat. The name may hold anything, blanks and brackets too, so it ends at the last bracket. */
export function readStat(text: string): VmThread | undefined {
  const found = /^(\d+) \(([\s\S]*)\) (\S) ([\d\s-]+)/.exec(text)
  if (!found) return undefined
  const [, id, name = '', state = '', rest = ''] = found
  const fields = rest.trim().split(/\s+/).map(Number)
  // Fields 14 and 15 of the line: user and system time. `rest` begins with field 4.
  const ticks = (fields[10] ?? 0) + (fields[11] ?? 0)
  return { id: Number(id), name, state, cpu_ms: ticks * msPerTick }
}

async function vcpusOf(domain: Domain, libvirt: Libvirt): Promise<VmThread[]> {
  const all = await libvirt.getAllDomainStats({ stats: { vcpu: true }, filter: { nowait: true } })
  const stats = all.find(one => one.uuid === domain.uuid)?.stats ?? {}
  const count = Number(stats['vcpu.current'] ?? 0)
  if (count === 0) return [{ id: 0, name: 'QEMU', cpu_ms: Math.floor((await domain.getInfo()).cpuTimeNs / 1e6) }]
  return Array.from({ length: count }, (_, n) => ({
    id: n,
    name: `CPU ${n}`,
    cpu_ms: Math.floor(Number(stats[`vcpu.${n}.time`] ?? 0) / 1e6),
  }))
}
