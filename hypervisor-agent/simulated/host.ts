/** The machine a simulated hypervisor pretends to be: everything follows from its seed, so that a fleet differs and stays the same. */
import { createHash } from 'node:crypto'
import type { HostInventory } from '../hypervisor.ts'

export interface HostOptions {
  /** Same seed, same host. */
  seed: string
  hostname?: string
  memoryMib?: number
  poolGib?: number
  /** Nic tag -> bridge; may change while it runs. */
  nicTags?: Record<string, string>
  /** Its Open vSwitch bridges; default those of the nic tags it starts with. */
  bridges?: readonly string[]
  pool?: string
}

export interface SimulatedHost {
  memoryMib: number
  poolBytes: number
  pool: string
  /** With the nic tags that lead to them now. */
  bridges(): HostInventory['bridges']
  /** All that does not change while it runs. */
  inventory: Omit<HostInventory, 'memory_available_mib' | 'pools' | 'bridges'>
}

/** Nic tag -> bridge of a simulated host that was given none. */
export const simulatedNicTags: Readonly<Record<string, string>> = { admin: 'br0', external: 'br1' }

const models = [
  { cpu_model: 'Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz', cpu_cores: 64 },
  { cpu_model: 'AMD EPYC 7543 32-Core Processor', cpu_cores: 64 },
  { cpu_model: 'Intel(R) Xeon(R) CPU E5-2670 v3 @ 2.30GHz', cpu_cores: 48 },
  { cpu_model: 'AMD EPYC 9354P 32-Core Processor', cpu_cores: 64 },
] as const
const memoryGib = [64, 128, 256, 512] as const
const poolGib = [1_000, 2_000, 4_000] as const

/** Derives the host of a seed; options override what matters to a test. */
export function simulatedHost(options: HostOptions): SimulatedHost {
  const chance = createHash('sha256').update(options.seed).digest()
  const pick = <T>(list: readonly T[], at: number): T => list[(chance[at] ?? 0) % list.length] as T
  const mac = (n: number) => ['52:54:00', hex(chance[8]), hex(chance[9]), hex((chance[10] ?? 0) + n)].join(':')
  const tags = options.nicTags ?? simulatedNicTags
  const bridges = options.bridges ?? [...new Set(Object.values(tags))]
  const memoryMib = options.memoryMib ?? pick(memoryGib, 0) * 1024
  const poolBytes = (options.poolGib ?? pick(poolGib, 1)) * 1024 ** 3
  const { cpu_model, cpu_cores } = pick(models, 2)
  return {
    memoryMib,
    poolBytes,
    pool: options.pool ?? 'default',
    bridges: () => bridges.map(name => ({ name, nic_tags: Object.keys(tags).filter(tag => tags[tag] === name) })),
    inventory: {
      hostname: options.hostname ?? `sim-${chance.toString('hex').slice(0, 8)}`,
      cpu_model,
      cpu_cores,
      cpu_online: cpu_cores,
      memory_mib: memoryMib,
      boot_time_s: 1_780_000_000 + chance.readUInt16BE(4),
      disks: [
        { name: 'nvme0n1', size_bytes: poolBytes },
        { name: 'sda', size_bytes: 240_057_409_536 },
      ],
      nics: bridges.map((bridge, n) => ({
        name: `eth${n}`,
        mac: mac(n),
        link: 'up' as const,
        bridge,
        ...(n === 0 ? { address: `10.${chance[11]}.${chance[12]}.${1 + ((chance[13] ?? 0) % 254)}` } : {}),
      })),
      platforms: [
        { name: '6.1.0-55-amd64' },
        { name: '6.1.0-56-amd64', running: true },
        { name: '6.1.0-57-amd64', next: true },
      ],
      versions: {
        hypervisor: 'simulated',
        libvirt: '9.0.0',
        qemu: '7.2.0',
        openvswitch: '3.1.0',
        kernel: '6.1.0-56-amd64',
        os: 'Debian GNU/Linux 12 (bookworm)',
      },
    },
  }
}

const hex = (byte = 0) => (byte & 0xff).toString(16).padStart(2, '0')
