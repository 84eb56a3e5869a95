/** Which server records placement can work with: the first thing wrong with one, in words; such a server is left out, never an error. */
import type { FleetServer } from './fleet.ts'

/** What is wrong with the record; undefined when nothing is. */
export function problemOf(server: FleetServer): string | undefined {
  for (const [path, { holds, says }] of fields) {
    if (!holds(server[path])) return `"${path}" ${says}`
  }
  const { sysinfo, traits, overprovision_ratios: ratios } = server
  if (!isObject(sysinfo)) return '"sysinfo" must be an object'
  if (traits !== undefined && typeof traits !== 'object') return '"traits" must be an object'
  return ratiosProblem(ratios) ?? sysinfoProblem(sysinfo)
}

interface Check {
  holds: (value: unknown) => boolean
  says: string
}

/** Lenient like the old service: anything whose remainder by one is zero, and limits only for real numbers. */
const integerFrom = (least: number): Check => ({
  holds: value => value !== undefined && wholeEnough(value) && (typeof value !== 'number' || value >= least),
  says: `must be an integer of at least ${least}`,
})
const wholeEnough = (value: unknown) => (typeof value !== 'object' || value === null ? Number(value) % 1 === 0 : false)
const boolean: Check = { holds: value => typeof value === 'boolean', says: 'must be a boolean' }
const optional = ({ holds, says }: Check): Check => ({ holds: value => value === undefined || holds(value), says })
const filled: Check = { holds: value => typeof value === 'string' && value !== '', says: 'must be a non-empty string' }

const fields: [string, Check][] = [
  [
    'uuid',
    {
      holds: value => typeof value === 'string' && /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(value),
      says: 'must be a lower-case UUID',
    },
  ],
  ['memory_available_bytes', integerFrom(0)],
  ['memory_total_bytes', integerFrom(1)],
  ['disk_pool_size_bytes', integerFrom(1)],
  ['disk_pool_alloc_bytes', integerFrom(0)],
  ['disk_system_used_bytes', integerFrom(0)],
  ['disk_installed_images_used_bytes', integerFrom(0)],
  ['disk_cores_quota_used_bytes', integerFrom(0)],
  ['disk_zone_quota_bytes', integerFrom(0)],
  ['disk_kvm_quota_bytes', integerFrom(0)],
  ['disk_kvm_zvol_volsize_bytes', integerFrom(0)],
  ['reserved', boolean],
  ['setup', boolean],
  [
    'reservation_ratio',
    { holds: value => typeof value === 'number' && value >= 0 && value <= 1, says: 'must be a number from 0 to 1' },
  ],
]

const sysinfoFields: [string, Check][] = [
  ['Live Image', filled],
  ...['CPU Total Cores', 'CPU Socket Count', 'CPU Core Count', 'CPU Online Count', 'CPU Count'].map(
    (name): [string, Check] => [name, optional(integerFrom(1))],
  ),
  ['Bhyve Max Vcpus', optional(integerFrom(0))],
  ['Bhyve Capable', optional(boolean)],
  ['HVM API', optional(boolean)],
  ['Admin NIC Tag', optional({ holds: value => typeof value === 'string', says: 'must be a string' })],
  [
    'Admin IP',
    optional({
      holds: value => typeof value === 'string' && /^\d{1,3}(\.\d{1,3}){3}$/.test(value),
      says: 'must be an IPv4 address',
    }),
  ],
  ['SDC Version', optional(filled)],
]

function sysinfoProblem(sysinfo: Record<string, unknown>): string | undefined {
  for (const [name, { holds, says }] of sysinfoFields) {
    if (!holds(sysinfo[name])) return `"sysinfo.${name}" ${says}`
  }
  const nics = sysinfo['Network Interfaces']
  if (!isObject(nics)) return '"sysinfo.Network Interfaces" must be an object'
  for (const [name, nic] of Object.entries(nics)) {
    const path = `sysinfo.Network Interfaces.${name}`
    if (!isObject(nic)) return `"${path}" must be an object`
    if (!linkStates.includes(nic['Link Status'])) return `"${path}.Link Status" must be up, down or unknown`
    const tags = nic['NIC Names']
    if (!Array.isArray(tags) || !tags.every(tag => typeof tag === 'string' && tag !== '')) {
      return `"${path}.NIC Names" must be a list of non-empty strings`
    }
  }
  return undefined
}
const linkStates: unknown[] = ['up', 'down', 'unknown']

function ratiosProblem(ratios: unknown): string | undefined {
  if (ratios === undefined) return undefined
  if (!isObject(ratios)) return '"overprovision_ratios" must be an object'
  for (const [name, value] of Object.entries(ratios)) {
    if (!['ram', 'disk', 'cpu', 'io', 'net'].includes(name))
      return `"overprovision_ratios.${name}" is not a known ratio`
    if (typeof value !== 'number' || value < 0) return `"overprovision_ratios.${name}" must be a number of at least 0`
  }
  return undefined
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
