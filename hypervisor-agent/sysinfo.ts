/** The node's inventory as a sysinfo, with the field names that CNAPI's clients know (contract Sysinfo). */
import type { Sysinfo } from '../actors/contract/server.ts'
import type { HostInventory } from './hypervisor.ts'

/** Release of the agent, told as the version of `cn-agent`. */
export const agentVersion = '0.1.0'

/** Derives the sysinfo. A node is set up when its storage pool is there. */
export function sysinfoOf(serverUuid: string, hypervisor: string, host: HostInventory): Sysinfo {
  const { versions } = host
  const address = adminAddress(host)
  return {
    UUID: serverUuid,
    Hostname: host.hostname,
    'System Type': 'Linux',
    // CNAPI wants a platform here, and placement refuses a server without one.
    'Live Image': versions.kernel,
    'Boot Time': host.boot_time_s,
    'MiB of Memory': host.memory_mib,
    'CPU Type': host.cpu_model,
    'CPU Total Cores': host.cpu_cores,
    'CPU Online Count': host.cpu_online,
    Setup: host.pools.length > 0,
    'Boot Parameters': {},
    'Network Interfaces': interfacesOf(host),
    'Virtual Network Interfaces': {},
    Disks: Object.fromEntries(host.disks.map(disk => [disk.name, { 'Size in GB': Math.round(disk.size_bytes / 1e9) }])),
    Pools: Object.fromEntries(host.pools.map(({ name, ...pool }) => [name, pool])),
    'SDC Agents': [{ name: 'cn-agent', version: agentVersion }],
    ...(address === undefined ? {} : { 'Admin IP': address }),
    Hypervisor: hypervisor,
    Versions: { ...versions, agent: agentVersion },
  }
}

/** Interfaces of the host with the nic tags that lead to them; a bridge is an interface of its own, listed also where the host lists none. */
function interfacesOf({ nics, bridges }: HostInventory): NonNullable<Sysinfo['Network Interfaces']> {
  const tagged = new Map(bridges.map(bridge => [bridge.name, bridge.nic_tags]))
  const bridgeFields = (name: string) => ({
    'NIC Names': tagged.get(name) ?? [],
    ...(tagged.has(name) ? { Bridge: name } : {}),
  })
  const bare = bridges.filter(bridge => !nics.some(nic => nic.name === bridge.name))
  return Object.fromEntries([
    ...nics.map(({ name, mac, link, address }) => [
      name,
      { 'MAC Address': mac, 'Link Status': link, ...(address ? { ip4addr: address } : {}), ...bridgeFields(name) },
    ]),
    ...bare.map(({ name }) => [name, { 'Link Status': 'unknown', ...bridgeFields(name) }]),
  ])
}

/** Address of the bridge behind nic tag `admin`, else the first address there is. */
function adminAddress({ nics, bridges }: HostInventory): string | undefined {
  const admin = bridges.find(bridge => bridge.nic_tags.includes('admin'))?.name
  return (nics.find(nic => nic.name === admin && nic.address) ?? nics.find(nic => nic.address))?.address
}
