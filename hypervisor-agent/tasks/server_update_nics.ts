/**
 * Changes which nic tags lead to which NIC, that is to the Open vSwitch bridge that has it. A tag that a VM on this node uses is not
 * taken away from its bridge.
 */
import type { NicTagging } from '../../actors/contract/tasks/server.ts'
import { type HostInventory, HypervisorError } from '../hypervisor.ts'
import type { TaskContext, TaskHandler } from './task.ts'

type Tags = Record<string, string>

export const server_update_nics: TaskHandler<'server_update_nics'> = {
  run: async (context, { action, nics }) => {
    const { hypervisor, nicTags } = context
    context.progress(10, 'bridges')
    const inventory = await hypervisor.inventory()
    const now: Tags = { ...nicTags.byTag }
    const wanted = nics.reduce((tags, nic) => actions[action](tags, bridgeOf(nic, inventory), nic), now)
    context.progress(30, 'users')
    await refuseTakingUsed(context, now, wanted)
    if (!isSame(now, wanted)) await nicTags.replace(wanted)
    return { sysinfo: await context.sysinfo(hypervisor) }
  },
}

/** What each action makes of the tags of one NIC's bridge. */
const actions: Record<'update' | 'replace' | 'delete', (tags: Tags, bridge: string, nic: NicTagging) => Tags> = {
  update: (tags, bridge, nic) => ({ ...tags, ...leadingTo(bridge, nic) }),
  replace: (tags, bridge, nic) => ({ ...without(tags, (_, at) => at === bridge), ...leadingTo(bridge, nic) }),
  delete: (tags, bridge, nic) =>
    without(tags, (tag, at) => at === bridge && nic.nic_tags_provided.some(given => given === tag)),
}

const leadingTo = (bridge: string, { nic_tags_provided }: NicTagging): Tags =>
  Object.fromEntries(nic_tags_provided.map(tag => [tag, bridge]))

const without = (tags: Tags, goes: (tag: string, bridge: string) => boolean): Tags =>
  Object.fromEntries(Object.entries(tags).filter(([tag, bridge]) => !goes(tag, bridge)))

const isSame = (a: Tags, b: Tags): boolean =>
  Object.keys(a).length === Object.keys(b).length && Object.entries(a).every(([tag, bridge]) => b[tag] === bridge)

/** The bridge that has the NIC of this MAC address, or is it: a bridge usually bears the address of its first port. */
function bridgeOf({ mac }: NicTagging, { nics, bridges }: HostInventory): string {
  const names = new Set(bridges.map(bridge => bridge.name))
  for (const nic of nics.filter(one => one.mac.toLowerCase() === mac.toLowerCase())) {
    const bridge = nic.bridge ?? nic.name
    if (names.has(bridge)) return bridge
  }
  throw new HypervisorError('NicNotFound', `the server has no NIC ${mac} on an Open vSwitch bridge`)
}

async function refuseTakingUsed({ hypervisor }: TaskContext, now: Tags, wanted: Tags): Promise<void> {
  const taken = Object.keys(now).filter(tag => wanted[tag] !== now[tag])
  if (taken.length === 0) return
  for (const { uuid, name } of await hypervisor.listVms()) {
    const vm = await hypervisor.loadVm(uuid)
    // A VM that Muster did not make does not tell its nic tags: it counts for every tag of its bridge.
    const used = taken.find(tag =>
      vm?.nics.some(nic => (nic.nic_tag === undefined ? nic.bridge === now[tag] : nic.nic_tag === tag)),
    )
    if (used === undefined) continue
    throw new HypervisorError('NicTagInUse', `nic tag ${used} is used by VM ${name}`)
  }
}
