/** Where Open vSwitch has its ports, and with which VLAN: read for all of them at once as they are now, and the VLAN set for one. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import * as v from 'valibot'
import type { PortPlace } from '../../actors/contract/found.ts'

export interface PortTags {
  /** Port -> its bridge and access VLAN. Undefined where Open vSwitch does not say. Never rejects. */
  places(): Promise<Record<string, PortPlace> | undefined>
  /** Rejects where Open vSwitch refuses. */
  setTag(port: string, vlan: number | null): Promise<void>
}

export function portTags(ovsVsctl: (args: string[]) => Promise<string> = onHost): PortTags {
  return {
    places: () =>
      ovsVsctl(portTables)
        .then(readPlaces)
        .catch(() => undefined),
    setTag: async (port, vlan) => {
      await ovsVsctl(vlan === null ? ['clear', 'Port', port, 'tag'] : ['set', 'Port', port, `tag=${vlan}`])
    },
  }
}

/** What to ask ovs-vsctl for: it answers one line of JSON a table. */
const portTables = [
  '--format=json',
  ...['--', '--columns=name,ports', 'list', 'Bridge'],
  ...['--', '--columns=_uuid,name,tag', 'list', 'Port'],
]

const Id = v.tuple([v.literal('uuid'), v.string()])
/** A column of one value holds it plainly, others are sets. */
const Ids = v.union([
  v.pipe(
    Id,
    v.transform(id => [id]),
  ),
  v.pipe(
    v.tuple([v.literal('set'), v.array(Id)]),
    v.transform(([, ids]) => ids),
  ),
])
const Tag = v.union([
  v.number(),
  v.pipe(
    v.tuple([v.literal('set'), v.array(v.number())]),
    v.transform(([, tags]) => tags[0] ?? null),
  ),
])
const Bridges = v.object({ data: v.array(v.tuple([v.string(), Ids])) })
const Ports = v.object({ data: v.array(v.tuple([Id, v.string(), Tag])) })

/** Throws when the answer is not of that form. */
export function readPlaces(answer: string): Record<string, PortPlace> {
  const [bridges, ports] = answer
    .split('\n')
    .filter(Boolean)
    .map(line => JSON.parse(line))
  const bridgeOf = new Map(
    v.parse(Bridges, bridges).data.flatMap(([bridge, ids]) => ids.map(([, id]) => [id, bridge] as const)),
  )
  const { data } = v.parse(Ports, ports)
  return Object.fromEntries(
    data.map(([[, id], name, vlan_id]) => [name, { bridge: bridgeOf.get(id) ?? null, vlan_id }]),
  )
}

const run = promisify(execFile)
const onHost = async (args: string[]) => (await run('ovs-vsctl', ['--timeout=3', ...args], { timeout: 5_000 })).stdout
