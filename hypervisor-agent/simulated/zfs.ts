/** The ZFS of a simulated node: one pool, kept in memory. Sizes never change. */
import { HypervisorError } from '../hypervisor.ts'
import type { Zfs, ZfsRow } from '../zfs/zfs.ts'

export function simulatedZfs({ pool = 'zones' }: { pool?: string } = {}): Zfs {
  /** By name, datasets and snapshots: properties. A snapshot has those that its dataset had. */
  const known = new Map<string, Record<string, string>>()
  const make = (name: string, type: 'filesystem' | 'snapshot', own: Record<string, string> = {}) => {
    const avail = type === 'filesystem' ? { available: String(sizeBytes), mountpoint: `/${name}` } : {}
    known.set(name, { ...own, type, used: '0', referenced: '98304', ...avail })
  }
  make(pool, 'filesystem')

  const need = (name: string) => {
    const found = known.get(name)
    if (!found) throw new HypervisorError('DatasetNotFound', `cannot open '${name}': dataset does not exist`)
    return found
  }
  const absent = (name: string) => {
    if (known.has(name)) throw new HypervisorError('DatasetExists', `cannot create '${name}': dataset already exists`)
  }
  const row = ([name, of]: [string, Record<string, string>]): ZfsRow => ({
    name,
    used: of['used'] ?? '-',
    avail: of['available'] ?? '-',
    refer: of['referenced'] ?? '-',
    type: of['type'] ?? '-',
    mountpoint: of['mountpoint'] ?? '-',
  })
  const isSnapshot = (name: string) => name.includes('@')

  return {
    datasets: async () => [...known].filter(([name]) => !isSnapshot(name)).map(row),
    snapshots: async dataset => {
      need(dataset)
      const isBelow = (name: string) => name.startsWith(`${dataset}@`) || name.startsWith(`${dataset}/`)
      return [...known].filter(([name]) => isSnapshot(name) && isBelow(name)).map(row)
    },
    properties: async (dataset, names) => {
      const of = (own: Record<string, string>) =>
        names.length > 0 ? Object.fromEntries(names.map(name => [name, own[name] ?? '-'])) : { ...own }
      const found: [string, Record<string, string>][] = dataset === undefined ? [...known] : [[dataset, need(dataset)]]
      return Object.fromEntries(found.map(([name, own]) => [name, of(own)]))
    },
    ownProperties: async (dataset, names) => {
      const own = need(dataset)
      const set = names.filter(name => name in own && !readonly.has(name))
      return Object.fromEntries(set.map(name => [name, own[name] ?? '-']))
    },
    pools: async () => {
      const size = String(sizeBytes)
      return [{ name: pool, size, allocated: '0', free: size, cap: '0%', health: 'ONLINE' }]
    },
    create: async dataset => {
      absent(dataset)
      const parent = dataset.slice(0, dataset.lastIndexOf('/'))
      if (!known.has(parent))
        throw new HypervisorError('DatasetNotFound', `cannot create '${dataset}': parent does not exist`)
      make(dataset, 'filesystem')
    },
    snapshot: async name => {
      const own = need(name.slice(0, name.indexOf('@')))
      absent(name)
      make(name, 'snapshot', own)
    },
    rollback: async name => {
      need(name)
    },
    set: async (dataset, properties) => {
      const found = need(dataset)
      const fixed = Object.keys(properties).find(name => readonly.has(name))
      if (fixed) throw new HypervisorError('ZfsFailed', `cannot set property for '${dataset}': '${fixed}' is readonly`)
      Object.assign(found, properties)
    },
    unset: async (dataset, property) => {
      delete need(dataset)[property]
    },
    destroy: async name => {
      need(name)
      const children = [...known.keys()].filter(other => other.startsWith(`${name}/`) || other.startsWith(`${name}@`))
      if (children.length > 0)
        throw new HypervisorError('ZfsFailed', `cannot destroy '${name}': filesystem has children`)
      known.delete(name)
    },
  }
}

const readonly = new Set(['type', 'used', 'available', 'referenced'])
const sizeBytes = 64 * 2 ** 30
