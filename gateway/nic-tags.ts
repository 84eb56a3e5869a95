/** Which nic tags a change would take from a server, and whether a VM there still uses one (cnapi-behaviour §11, 17). */
import { type Rejection, rejection } from '../actors/contract/errors.ts'
import type { NicTagging } from '../actors/contract/tasks/server.ts'
import type { Backend } from './backend.ts'

export interface NicChange {
  action: 'update' | 'replace' | 'delete'
  nics: NicTagging[]
}

/** NicTagInUse, or undefined. By the records of the VMs; the agent looks at their domains again before it does it. */
export async function tagInUse(
  serverUuid: string,
  change: NicChange,
  backend: Backend,
): Promise<Rejection | undefined> {
  if (change.action === 'update') return undefined
  await Promise.all([backend.vms.barrier(), backend.inventory.barrier()])
  const gone = tagsTaken(backend.inventory.sysinfo(serverUuid)?.['Network Interfaces'] ?? {}, change)
  if (gone.size === 0) return undefined
  for (const vm of backend.vms.of(serverUuid)) {
    const tag = vm.present ? vm.nic_tags.find(name => gone.has(name)) : undefined
    if (tag !== undefined) return rejection('NicTagInUse', `VM ${vm.uuid} uses the nic tag ${tag}`)
  }
  return undefined
}

type Interfaces = Record<
  string,
  { 'MAC Address'?: string | undefined; 'NIC Names'?: string[] | undefined; Bridge?: string | undefined }
>

/** Tags that no interface would have any more. A bridge and its ports are one: what is taken from one of them is taken from all. */
function tagsTaken(interfaces: Interfaces, { action, nics }: NicChange): Set<string> {
  const tags = new Map<string, Set<string>>()
  const groupOf = new Map<string, string>()
  for (const [name, { 'MAC Address': mac, 'NIC Names': names = [], Bridge: bridge = name }] of Object.entries(
    interfaces,
  )) {
    tags.set(bridge, new Set([...(tags.get(bridge) ?? []), ...names]))
    if (mac) groupOf.set(mac.toLowerCase(), bridge)
  }
  const before = union(tags)
  for (const { mac, nic_tags_provided } of nics) {
    const group = groupOf.get(mac.toLowerCase())
    const has = group === undefined ? undefined : tags.get(group)
    if (group === undefined || !has) continue
    const given = new Set(nic_tags_provided)
    tags.set(group, action === 'replace' ? given : new Set([...has].filter(tag => !given.has(tag))))
  }
  const after = union(tags)
  return new Set([...before].filter(tag => !after.has(tag)))
}

const union = (tags: Map<string, Set<string>>): Set<string> => new Set([...tags.values()].flatMap(group => [...group]))
