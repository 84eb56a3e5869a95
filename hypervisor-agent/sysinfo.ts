/** The node's inventory as a sysinfo, with the field names that CNAPI's clients know (contract Sysinfo). */
import type { Sysinfo } from '../actors/contract/server.ts'
import type { HostInventory, Hypervisor } from './hypervisor.ts'
import type { NodeTools } from './tools.ts'

/** Release of the agent. */
export const agentVersion = '0.1.0'

/**
 * What the agent can do, in the versions of `cn-agent` that clients and our own gateway compare with (cnapi-behaviour §8.4): this one
 * knows every task those gates ask for. It is not our release, which would look older than all of them.
 */
export const cnAgentVersion = '2.15.0'

/** Takes the inventory and derives the sysinfo. */
export async function takeSysinfo(
  serverUuid: string,
  hypervisor: Hypervisor,
  { host, resetMark }: Pick<NodeTools, 'host' | 'resetMark'>,
): Promise<Sysinfo> {
  const [inventory, boot_time_s, bootId] = await Promise.all([hypervisor.inventory(), host.bootTimeS(), host.bootId()])
  return sysinfoOf(serverUuid, hypervisor.kind, { ...inventory, boot_time_s }, { isReset: resetMark.isSet(), bootId })
}

/** The same with the agents that were installed on the node, after this one. */
export function withAgents(
  sysinfo: Sysinfo,
  installed: readonly { name: string; version: string; image_uuid?: string | undefined }[],
): Sysinfo {
  const others = installed.map(({ name, version, image_uuid }) => ({
    ...{ name, version },
    ...(image_uuid ? { image_uuid } : {}),
  }))
  return { ...sysinfo, 'SDC Agents': [...(sysinfo['SDC Agents'] ?? []), ...others] }
}

/** Derives the sysinfo. A node is set up when its storage pool is there and it was not reset since. */
export function sysinfoOf(
  serverUuid: string,
  hypervisor: string,
  host: HostInventory,
  { isReset, bootId }: { isReset: boolean; bootId?: string } = { isReset: false },
): Sysinfo {
  const { versions } = host
  const address = adminAddress(host)
  return {
    UUID: serverUuid,
    Hostname: host.hostname,
    'System Type': 'Linux',
    // Nodes that say this do what CNAPI asks of today's ones (cnapi-behaviour §9.3).
    'SDC Version': '7.0',
    // CNAPI wants a platform here, and placement refuses a server without one.
    'Live Image': versions.kernel,
    Platforms: host.platforms,
    'Boot Time': host.boot_time_s,
    ...(bootId === undefined ? {} : { 'Boot Id': bootId }),
    'MiB of Memory': host.memory_mib,
    'CPU Type': host.cpu_model,
    'CPU Total Cores': host.cpu_cores,
    'CPU Online Count': host.cpu_online,
    Setup: host.pools.length > 0 && !isReset,
    'Boot Parameters': {},
    'Network Interfaces': interfacesOf(host),
    'Virtual Network Interfaces': {},
    Disks: Object.fromEntries(host.disks.map(disk => [disk.name, { 'Size in GB': Math.round(disk.size_bytes / 1e9) }])),
    Pools: Object.fromEntries(host.pools.map(({ name, ...pool }) => [name, pool])),
    'SDC Agents': [{ name: 'cn-agent', version: cnAgentVersion }],
    ...(address === undefined ? {} : { 'Admin IP': address }),
    Hypervisor: hypervisor,
    Versions: { ...versions, agent: agentVersion },
  }
}

/**
 * Interfaces of the host with the nic tags that lead to them: a bridge, listed also where the host lists none, and every port of one, since
 * a nic tag is given to the NIC with the port's MAC address.
 */
function interfacesOf({ nics, bridges }: HostInventory): NonNullable<Sysinfo['Network Interfaces']> {
  const tagged = new Map(bridges.map(bridge => [bridge.name, bridge.nic_tags]))
  const bridgeFields = (name: string | undefined) => ({
    'NIC Names': tagged.get(name ?? '') ?? [],
    ...(name !== undefined && tagged.has(name) ? { Bridge: name } : {}),
  })
  const bare = bridges.filter(bridge => !nics.some(nic => nic.name === bridge.name))
  return Object.fromEntries([
    ...nics.map(({ name, mac, link, address, bridge = name }) => [
      name,
      { 'MAC Address': mac, 'Link Status': link, ...(address ? { ip4addr: address } : {}), ...bridgeFields(bridge) },
    ]),
    ...bare.map(({ name }) => [name, { 'Link Status': 'unknown', ...bridgeFields(name) }]),
  ])
}

/** Address of the bridge behind nic tag `admin`, else the first address there is. */
function adminAddress({ nics, bridges }: HostInventory): string | undefined {
  const admin = bridges.find(bridge => bridge.nic_tags.includes('admin'))?.name
  return (nics.find(nic => nic.name === admin && nic.address) ?? nics.find(nic => nic.address))?.address
}
