/** The settings of placement: ALLOC_* as operators know them, and `dapi.changeDefaults` as one JSON object (rules.md §7). */
import { KNOBS, type Knobs, SPREADS } from '../../actors/allocation/fleet.ts'

type Kind = 'boolean' | 'number' | 'ratio' | 'spread' | 'stamp'

/** Setting, the allocator's key for it, and what it holds. A ratio or a limit of 0 is the built-in one. */
const SETTINGS: readonly [env: string | undefined, knob: keyof Knobs, kind: Kind][] = [
  ['ALLOC_SERVER_SPREAD', 'server_spread', 'spread'],
  ['ALLOC_FILTER_CAPNESS', 'filter_capness', 'boolean'],
  ['ALLOC_FILTER_HEADNODE', 'filter_headnode', 'boolean'],
  ['ALLOC_FILTER_MIN_RESOURCES', 'filter_min_resources', 'boolean'],
  ['ALLOC_FILTER_LARGE_SERVERS', 'filter_large_servers', 'boolean'],
  ['ALLOC_FILTER_MIN_DISK', 'min_disk', 'boolean'],
  ['ALLOC_FILTER_VM_COUNT', 'filter_vm_limit', 'ratio'],
  ['ALLOC_FILTER_DOCKER_MIN_PLATFORM', 'filter_docker_min_platform', 'stamp'],
  ['ALLOC_MIN_FREE_DISK', 'minimum_free_disk', 'number'],
  ['ALLOC_DISABLE_OVERRIDE_OVERPROVISIONING', 'disable_override_overprovisioning', 'boolean'],
  ['ALLOC_OVERRIDE_OVERPROVISION_CPU', 'overprovision_ratio_cpu', 'ratio'],
  ['ALLOC_OVERRIDE_OVERPROVISION_RAM', 'overprovision_ratio_ram', 'ratio'],
  ['ALLOC_OVERRIDE_OVERPROVISION_DISK', 'overprovision_ratio_disk', 'ratio'],
  ['ALLOC_WEIGHT_CURRENT_PLATFORM', 'weight_current_platform', 'number'],
  ['ALLOC_WEIGHT_NEXT_REBOOT', 'weight_next_reboot', 'number'],
  ['ALLOC_WEIGHT_NUM_OWNER_ZONES', 'weight_num_owner_zones', 'number'],
  ['ALLOC_WEIGHT_UNIFORM_RANDOM', 'weight_uniform_random', 'number'],
  ['ALLOC_WEIGHT_UNRESERVED_DISK', 'weight_unreserved_disk', 'number'],
  ['ALLOC_WEIGHT_UNRESERVED_RAM', 'weight_unreserved_ram', 'number'],
  [undefined, 'filter_docker_nfs_volumes_automount_min_platform', 'stamp'],
  [undefined, 'filter_non_docker_nfs_volumes_automount_min_platform', 'stamp'],
  [undefined, 'filter_volapi_nfs_v2_min_platform', 'stamp'],
  [undefined, 'filter_flexible_disk_min_platform', 'stamp'],
]

/** ALLOC_CHANGE_DEFAULTS holds `dapi.changeDefaults`; ALLOC_* stand above it. Empty is the default. Problems are told by setting. */
export function knobsFrom(env: Record<string, string | undefined>): { knobs: Knobs } | { problems: string[] } {
  const problems: string[] = []
  const changes = objectOf(env['ALLOC_CHANGE_DEFAULTS'], problems)
  const knobs: Record<string, unknown> = { ...KNOBS }
  for (const [name, knob, kind] of SETTINGS) {
    for (const [where, value] of [
      [`dapi.changeDefaults.${knob}`, changes[knob]],
      ...(name ? [[name, env[name]]] : []),
    ]) {
      if (value === undefined || value === null || value === '') continue
      const read = readers[kind](String(value))
      if (read === undefined) problems.push(`${where}: ${wants[kind]}`)
      else knobs[knob] = kind === 'ratio' && read === 0 ? KNOBS[knob] : read
    }
  }
  const known = new Set<string>(SETTINGS.map(([, knob]) => knob))
  for (const key of Object.keys(changes))
    if (!known.has(key)) problems.push(`dapi.changeDefaults.${key}: is no setting of placement`)
  if (env['ALLOC_FILTER_OWNER_SERVER_EXPERIMENTAL']) {
    problems.push(
      'ALLOC_FILTER_OWNER_SERVER_EXPERIMENTAL: code in a setting is not run; reserve servers or give them traits',
    )
  }
  return problems.length > 0 ? { problems } : { knobs: knobs as unknown as Knobs }
}

/** Names of the settings, for what passes an environment on. */
export const ALLOC_SETTINGS = SETTINGS.flatMap(([name]) => name ?? [])

const readers: Record<Kind, (text: string) => unknown> = {
  boolean: text => ({ true: true, false: false })[text.toLowerCase()],
  number: text => (Number.isFinite(Number(text)) ? Number(text) : undefined),
  ratio: text => (Number(text) >= 0 ? Number(text) : undefined),
  spread: text => SPREADS.find(spread => spread === text),
  stamp: text => (/^20\d{6}T\d{6}Z$/.test(text) ? text : undefined),
}
const wants: Record<Kind, string> = {
  boolean: 'must be true or false',
  number: 'must be a number',
  ratio: 'must be a number of at least 0',
  spread: `must be one of ${SPREADS.join(', ')}`,
  stamp: 'must be a platform stamp such as 20210115T003355Z',
}

function objectOf(text: string | undefined, problems: string[]): Record<string, unknown> {
  if (!text) return {}
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>
  } catch {}
  problems.push('ALLOC_CHANGE_DEFAULTS: must be a JSON object')
  return {}
}
