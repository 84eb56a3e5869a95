/** Networks of the node: Open vSwitch bridges with a VLAN. libvirt checks neither the bridge nor who uses a network, so this does. */
import { isLibvirtError, type Hypervisor as Libvirt, type Network } from 'node-libvirt'
import * as v from 'valibot'
import { BridgeName, NetworkName, VlanId } from '../../actors/contract/ids.ts'
import type { NetworkSummary } from '../../actors/contract/server.ts'
import { HypervisorError } from '../hypervisor.ts'
import { networkXml } from './domain-xml.ts'
import { readDomain, readNetwork } from './xml-reading.ts'

/** libvirt accepts `..` as a network's name and 4095 as a VLAN, so nothing reaches it unchecked. */
const NewNetwork = v.object({ name: NetworkName, bridge: BridgeName, vlan: VlanId })
export type NewNetwork = v.InferOutput<typeof NewNetwork>

export async function listNetworks(libvirt: Libvirt): Promise<NetworkSummary[]> {
  const networks = await libvirt.listNetworks()
  const summaries = await Promise.all(networks.map(network => ifThere(summary(network))))
  return summaries.filter(one => one !== undefined)
}

async function summary(network: Network): Promise<NetworkSummary> {
  const [active, autostart, persistent, text] = await Promise.all([
    network.isActive(),
    network.getAutostart().catch(() => false),
    network.isPersistent(),
    network.getXml(),
  ])
  return {
    name: network.name,
    state: active ? 'active' : 'inactive',
    autostart: autostart ? 'yes' : 'no',
    persistent: persistent ? 'yes' : 'no',
    ...readNetwork(text),
  }
}

/** Defined, autostarted and started; completes one that is there with the same bridge and VLAN. */
export async function createNetwork(libvirt: Libvirt, wanted: NewNetwork, bridges: string[]): Promise<void> {
  const checked = v.safeParse(NewNetwork, wanted)
  if (!checked.success) throw new HypervisorError('InvalidArgument', checked.issues[0].message)
  const { name, bridge, vlan } = checked.output
  let network = await findNetwork(libvirt, name)
  if (network) {
    const there = readNetwork(await network.getXml())
    if (there.bridge !== bridge || there.vlan !== vlan) {
      const is = `bridge ${there.bridge ?? 'none'}, VLAN ${there.vlan ?? 'none'}`
      throw new HypervisorError('NetworkExists', `the network ${name} exists already (${is})`)
    }
  }
  if (!bridges.includes(bridge)) {
    throw new HypervisorError('BridgeNotFound', `the server has no Open vSwitch bridge ${bridge}`)
  }
  network ??= await libvirt.defineNetwork(networkXml({ name, bridge, vlan }))
  await network.setAutostart(true)
  if (!(await network.isActive())) await network.create()
}

/** NetworkNotFound; NetworkInUse, naming the VMs whose running or stored definition plugs into it. */
export async function deleteNetwork(libvirt: Libvirt, name: string): Promise<void> {
  const network = await findNetwork(libvirt, name)
  if (!network) throw new HypervisorError('NetworkNotFound', `there is no network ${name}`)
  const users = await networkUsers(libvirt, name)
  if (users.length > 0) {
    throw new HypervisorError('NetworkInUse', `network ${name} is used by ${users.join(', ')}`)
  }
  if (await network.isActive()) await network.destroy()
  await ifThere(network.undefine())
}

/** The network of this name, if there is one. */
export async function findNetwork(libvirt: Libvirt, name: string): Promise<Network | undefined> {
  if (!v.is(NetworkName, name)) return undefined
  return ifThere(libvirt.lookupNetworkByName(name))
}

async function networkUsers(libvirt: Libvirt, name: string): Promise<string[]> {
  const domains = await libvirt.listDomains()
  const users = await Promise.all(
    domains.map(async domain => {
      const texts = [await ifThere(domain.getXml({ inactive: true })), await ifThere(domain.getXml())]
      const nics = texts.flatMap(text => (text === undefined ? [] : readDomain(text).nics))
      return nics.some(nic => nic.network === name) ? domain.name : undefined
    }),
  )
  return users.filter(user => user !== undefined)
}

/** Undefined for what went away while it was looked at. */
async function ifThere<T>(promise: Promise<T>): Promise<T | undefined> {
  try {
    return await promise
  } catch (error) {
    if (isLibvirtError(error, 'NO_NETWORK', 'NO_DOMAIN')) return undefined
    throw error
  }
}
