/**
 * Platforms: what the nodes of the fleet can boot, by the names that `boot_platform` takes. A Linux node reports its installed kernels, a
 * node agent of the old sort only what it runs (cnapi-behaviour §8.1).
 */
import type { Sysinfo } from '../actors/contract/server.ts'
import type { Backend } from './backend.ts'

export interface InstalledPlatform {
  name: string
  /** Absent where the node's `System Type` does not tell. */
  os?: 'smartos' | 'linux'
}

/** Platforms of the whole fleet by name, each once, in text order. */
export async function platformsOf(backend: Backend): Promise<Map<string, InstalledPlatform>> {
  await Promise.all([backend.servers.barrier(), backend.inventory.barrier()])
  const known = new Map<string, InstalledPlatform>()
  for (const { uuid } of backend.servers.all()) {
    for (const platform of backend.inventory.platforms(uuid)) {
      if (!known.get(platform.name)?.os) known.set(platform.name, platform)
    }
  }
  return new Map([...known].sort(([a], [b]) => (a < b ? -1 : 1)))
}

/** A kernel's release, or the time stamp of a SmartOS image: what nobody could take for anything else. */
const nameForm = /^[A-Za-z0-9][A-Za-z0-9._+~:-]{0,127}$/

/** What one node can boot, by its sysinfo. Names that are none are left out. */
export function platformsIn(sysinfo: Sysinfo): InstalledPlatform[] {
  const type = sysinfo['System Type'] ?? ''
  const os = /linux/i.test(type) ? ('linux' as const) : /sunos|smartos/i.test(type) ? ('smartos' as const) : undefined
  const names = [...(sysinfo.Platforms ?? []).map(({ name }) => name), sysinfo['Live Image'] ?? '']
  return [...new Set(names)].filter(name => nameForm.test(name)).map(name => ({ name, ...(os ? { os } : {}) }))
}

/**
 * The newest: of names with a time stamp (20260131T120000Z) the last in text order; where there are none, the highest kernel release.
 * Undefined for none.
 */
export function latestOf(names: Iterable<string>): string | undefined {
  const all = [...names]
  const stamped = all.filter(name => /\d{8}T\d{6}Z/.test(name))
  const order = stamped.length > 0 ? (a: string, b: string) => (a < b ? -1 : 1) : byRelease
  return (stamped.length > 0 ? stamped : all).sort(order).at(-1)
}

/**
 * Kernel releases as dpkg orders versions, in short: runs of digits count as numbers, other characters as text, and a release candidate
 * (`-rc`, `~`) is older than what it leads to.
 */
export function byRelease(left: string, right: string): number {
  const [a, b] = [runsOf(left), runsOf(right)]
  for (let at = 0; at < Math.max(a.length, b.length); at++) {
    const order = rank(a[at]) - rank(b[at]) || compare(a[at] ?? '', b[at] ?? '')
    if (order !== 0) return order
  }
  return 0
}

const runsOf = (release: string) => release.match(/~|-rc(?=\d)|\d+|[^\d~]/g) ?? []
/** Candidate, end, other characters, number: what comes later is newer. */
const rank = (run: string | undefined) => (run === undefined ? 1 : /^(~|-rc)$/.test(run) ? 0 : /^\d/.test(run) ? 3 : 2)
const compare = (a: string, b: string) => (/^\d/.test(a) ? Number(a) - Number(b) : a < b ? -1 : a > b ? 1 : 0)
