/** VLANs of Open vSwitch ports: read for all of them at once, and set for one. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import * as v from 'valibot'

export interface PortTags {
  /** Port -> its access VLAN, null for none. Undefined where Open vSwitch does not say. Never rejects. */
  tags(): Promise<Record<string, number | null> | undefined>
  /** Rejects where Open vSwitch refuses. */
  setTag(port: string, vlan: number | null): Promise<void>
}

export function portTags(ovsVsctl: (args: string[]) => Promise<string> = onHost): PortTags {
  return {
    tags: () => ovsVsctl(['--format=json', '--columns=name,tag', 'list', 'Port']).then(readTags, () => undefined),
    setTag: async (port, vlan) => {
      await ovsVsctl(vlan === null ? ['clear', 'Port', port, 'tag'] : ['set', 'Port', port, `tag=${vlan}`])
    },
  }
}

/** An empty column is an empty set. */
const Tag = v.union([
  v.number(),
  v.pipe(
    v.tuple([v.literal('set'), v.array(v.number())]),
    v.transform(([, tags]) => tags[0] ?? null),
  ),
])
const Answer = v.object({ data: v.array(v.tuple([v.string(), Tag])) })

function readTags(answer: string): Record<string, number | null> {
  return Object.fromEntries(v.parse(Answer, JSON.parse(answer)).data)
}

const run = promisify(execFile)
const onHost = async (args: string[]) => (await run('ovs-vsctl', ['--timeout=3', ...args], { timeout: 5_000 })).stdout
