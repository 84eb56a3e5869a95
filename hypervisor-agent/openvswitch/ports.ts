/** Which interface is a port of which bridge, read from three tables of Open vSwitch's database; a bond is one port of several interfaces. */
import * as v from 'valibot'

/** What to ask ovs-vsctl for: it answers one line of JSON a table. */
export const portTables = [
  '--format=json',
  ...['--', '--columns=name,ports', 'list', 'Bridge'],
  ...['--', '--columns=_uuid,interfaces', 'list', 'Port'],
  ...['--', '--columns=_uuid,name', 'list', 'Interface'],
]

const Id = v.pipe(
  v.tuple([v.literal('uuid'), v.string()]),
  v.transform(([, id]) => id),
)
/** A column of several values holds one plainly and others as a set. */
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
const Bridges = v.object({ data: v.array(v.tuple([v.string(), Ids])) })
const Ports = v.object({ data: v.array(v.tuple([Id, Ids])) })
const Interfaces = v.object({ data: v.array(v.tuple([Id, v.string()])) })

/** Interface -> bridge. Throws when the answer is not of that form. */
export function readPorts(answer: string): Record<string, string> {
  const [bridges, ports, interfaces] = answer
    .split('\n')
    .filter(Boolean)
    .map(line => JSON.parse(line))
  const names = new Map(v.parse(Interfaces, interfaces).data)
  const members = new Map(v.parse(Ports, ports).data)
  const found: Record<string, string> = {}
  for (const [bridge, ids] of v.parse(Bridges, bridges).data) {
    for (const id of ids.flatMap(port => members.get(port) ?? [])) {
      const name = names.get(id)
      if (name !== undefined) found[name] = bridge
    }
  }
  return found
}
