/** See `Findings`: a VM as libvirt and Open vSwitch have it, read without touching its guest. */
import { type Domain, type Hypervisor as Libvirt, LibvirtError } from 'node-libvirt'
import type { FoundDefinition, FoundVm, PortPlace } from '../../actors/contract/found.ts'
import type { Findings } from '../findings.ts'
import { HypervisorError } from '../hypervisor.ts'
import type { PortTags } from '../openvswitch/tags.ts'
import { foundDisks } from '../shape.ts'
import { lookup } from './definition.ts'
import { type DeviceParts, pendingParts, shapeOf } from './devices.ts'
import { findNetwork } from './networks.ts'
import { isOnItsWay } from './vms.ts'
import { type ReadNic, readDomain, readNetwork } from './xml-reading.ts'

export interface FindingParts {
  look<T>(doing: string, action: (libvirt: Libvirt) => Promise<T>): Promise<T>
  /** When libvirt last told of a change of this VM, ms since the epoch. */
  changedAt(uuid: string): number
  options: DeviceParts['options']
  switchPorts: PortTags
}

export function libvirtFindings({ look, changedAt, options, switchPorts }: FindingParts): Findings {
  /** Two looks: a VM that starts or stops between the first look at it and that at the switch would seem to be off it. */
  async function portsOf(domain: Domain, libvirt: Libvirt): Promise<FoundVm['ports']> {
    const ports = await lookAtPorts(domain, libvirt)
    return ports.every(isRight) ? ports : lookAtPorts(domain, libvirt)
  }

  async function lookAtPorts(domain: Domain, libvirt: Libvirt): Promise<FoundVm['ports']> {
    if (!(await domain.isActive())) return []
    const nics = readDomain(await domain.getXml()).nics.filter(nic => nic.interface !== undefined)
    const places = nics.length > 0 ? await switchPorts.places() : undefined
    if (!places) return []
    return Promise.all(
      nics.map(async nic => {
        const name = nic.interface as string
        const is = places[name] ?? { bridge: null, vlan_id: null }
        return { mac: nic.mac.toLowerCase(), interface: name, as: await placeOf(nic, libvirt), is }
      }),
    )
  }

  return {
    lookAtVm: uuid =>
      look(`look at VM ${uuid}`, async libvirt => {
        const domain = await lookup(libvirt, uuid)
        if (!domain) return undefined
        const [state, definition, ports] = await Promise.all([
          domain.getState(),
          definitionOf(domain, libvirt, options),
          portsOf(domain, libvirt),
        ])
        return {
          uuid: domain.uuid,
          name: domain.name,
          state: await stateOf(domain, state),
          changed_at: changedAt(uuid),
          definition,
          ports,
          pending: await pendingParts(domain).catch(ifStopped),
        }
      }),
    mendPorts: (uuid, macs) =>
      look(`mend the ports of VM ${uuid}`, async libvirt => {
        const domain = await lookup(libvirt, uuid)
        if (!domain) throw new HypervisorError('VmNotFound', `there is no VM ${uuid}`)
        const isMeant = ({ mac }: { mac: string }) => macs === undefined || macs.some(one => one.toLowerCase() === mac)
        const bent = (await portsOf(domain, libvirt)).filter(port => isMeant(port) && !isRight(port))
        const mended: string[] = []
        for (const { mac, interface: name, as, is } of bent) {
          if (as.bridge !== is.bridge) continue
          await switchPorts.setTag(name, as.vlan_id)
          mended.push(mac)
        }
        return { mended, pending: bent.map(({ mac }) => mac).filter(mac => !mended.includes(mac)) }
      }),
  }
}

/** The words of listings (vms.ts). */
async function stateOf(domain: Domain, { state, reason }: Awaited<ReturnType<Domain['getState']>>): Promise<string> {
  if (state === 'paused' && isOnItsWay(readDomain(await domain.getXml({ inactive: true })))) return 'stopped'
  if (state === 'crashed' || (state === 'shutoff' && reason === 'crashed')) return 'failed'
  return state === 'shutoff' || state === 'nostate' ? 'stopped' : 'running'
}

const isRight = ({ as, is }: FoundVm['ports'][0]) => as.bridge === is.bridge && as.vlan_id === is.vlan_id

/** Where a running VM's NIC is plugged in, through its network if it is on one. */
async function placeOf({ network, bridge, vlan }: ReadNic, libvirt: Libvirt): Promise<PortPlace> {
  if (network === undefined) return { bridge: bridge ?? null, vlan_id: vlan ?? null }
  const found = await findNetwork(libvirt, network)
  const is = found ? readNetwork(await found.getXml()) : {}
  return { bridge: is.bridge ?? bridge ?? null, vlan_id: is.vlan ?? vlan ?? null }
}

/** Of whoever made it. */
async function definitionOf(
  domain: Domain,
  libvirt: Libvirt,
  options: DeviceParts['options'],
): Promise<FoundDefinition> {
  const none = { disks: [], customer_metadata: {}, internal_metadata: {}, tags: {} }
  let isOurs = false
  const shape = await shapeOf(domain, libvirt, options, ({ metadata, title }) => {
    isOurs = metadata !== undefined
    return { ...none, ...(title === undefined ? {} : { alias: title }), ...metadata }
  })
  // Where the disks of a VM are that somebody else made is nobody's business.
  const disks = foundDisks(domain.uuid, shape.disks).map(({ file, ...disk }) =>
    isOurs && file ? { ...disk, file } : disk,
  )
  return {
    ram: shape.memory_mib,
    vcpus: shape.vcpus,
    autoboot: shape.autoboot,
    alias: shape.alias ?? null,
    owner_uuid: shape.owner_uuid ?? null,
    cpu_cap: shape.cpu_cap ?? null,
    quota: shape.quota_gib ?? null,
    tags: shape.tags,
    disks: disks.filter(({ slot }) => slot >= 0 && slot < 256),
    nics: shape.nics,
  }
}

/** It stopped while it was looked at. */
function ifStopped(error: unknown): string[] {
  if (error instanceof LibvirtError) return []
  throw error
}
