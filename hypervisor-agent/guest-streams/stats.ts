/** A VM's statistics in the shape of Docker's, one line a second. What libvirt cannot tell (processes, throttling) is not in it. */
import { pause, within } from '../abort.ts'
import { HypervisorError } from '../hypervisor.ts'
import type { NicFigures, VmFigures } from '../vm-stats.ts'
import type { StreamWork } from './guest-streams.ts'

const everyMs = 1_000
const callMs = 15_000

export interface StatsWish {
  uuid: string
  name: string
  /** One line only. */
  isOnce: boolean
}

/** Until the caller leaves or the VM ends. */
export async function stats({ hypervisor, lines, signal }: StreamWork, wish: StatsWish): Promise<object> {
  const read = async () => {
    const figures = await within(callMs, signal, stuck, () => hypervisor.vmStats(wish.uuid))
    return { figures, at: new Date().toISOString() }
  }
  const left = lines.left()
  left.catch(() => {})
  let before = await read()
  for (;;) {
    // What Docker's own clients show is the difference of two readings.
    await Promise.race([pause(everyMs, signal), left])
    const now = await read()
    await lines.send(dockerStats(wish, now, before))
    if (wish.isOnce) return {}
    before = now
  }
}

interface Reading {
  figures: VmFigures
  at: string
}

export function dockerStats({ uuid, name }: Pick<StatsWish, 'uuid' | 'name'>, now: Reading, before: Reading): object {
  const { figures } = now
  return {
    id: uuid,
    name: `/${name}`,
    read: now.at,
    preread: before.at,
    num_procs: 0,
    pids_stats: {},
    cpu_stats: cpu(figures),
    precpu_stats: cpu(before.figures),
    memory_stats: { usage: figures.memory_used_bytes, limit: figures.memory_limit_bytes, stats: {} },
    blkio_stats: {
      io_service_bytes_recursive: disks(figures, disk => [disk.read_bytes, disk.write_bytes]),
      io_serviced_recursive: disks(figures, disk => [disk.reads, disk.writes]),
    },
    storage_stats: {},
    networks: Object.fromEntries(
      figures.nics.map(({ rx, tx }, n) => [`eth${n}`, { ...direction('rx', rx), ...direction('tx', tx) }]),
    ),
  }
}

function cpu({ cpu_ns, user_ns, system_ns, host_cpus, host_cpu_ns }: VmFigures): object {
  return {
    cpu_usage: { total_usage: cpu_ns, usage_in_usermode: user_ns, usage_in_kernelmode: system_ns },
    system_cpu_usage: host_cpu_ns,
    online_cpus: host_cpus,
    throttling_data: { periods: 0, throttled_periods: 0, throttled_time: 0 },
  }
}

/** Docker names disks by the kernel's numbers, which a VM's disks have none of on their host: their place stands for it. */
function disks(figures: VmFigures, read: (disk: VmFigures['disks'][number]) => [number, number]): object[] {
  return figures.disks.flatMap((disk, minor) => {
    const [reads, writes] = read(disk)
    return [
      { major: 0, minor, op: 'Read', value: reads },
      { major: 0, minor, op: 'Write', value: writes },
    ]
  })
}

function direction(name: 'rx' | 'tx', { bytes, packets, errors, dropped }: NicFigures): Record<string, number> {
  return {
    [`${name}_bytes`]: bytes,
    [`${name}_packets`]: packets,
    [`${name}_errors`]: errors,
    [`${name}_dropped`]: dropped,
  }
}

const stuck = () => new HypervisorError('HypervisorUnavailable', 'the hypervisor does not tell statistics in time')
