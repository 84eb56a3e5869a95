/** The definition of a guest that comes running from another node: the machine it is, with the disks, networks and files of this node. */
import { HypervisorError } from '../hypervisor.ts'
import {
  changedBlocks,
  diskBlock,
  isDisk,
  movedInterface,
  nicBlock,
  nicIn,
  sameMac,
  targetIn,
  withPath,
} from './changed-definition.ts'
import type { NicPlace } from './domain-xml.ts'
import { metadataElement } from './vm-metadata.ts'
import { escapeXml } from './xml.ts'
import { type ReadNic, readDomain } from './xml-reading.ts'

/** `coming`: as the other node's libvirt describes it; `stored`: as this node's does. LiveMigrationNotSupported where they do not fit. */
export function arrivingDefinition(coming: string, stored: string): string {
  const here = readDomain(stored)
  const metadata = here.metadata
  if (!metadata) throw new TypeError('a definition of Muster has metadata')
  const disks = changedBlocks(coming, diskBlock, block => {
    if (!isDisk(block)) return block
    const target = targetIn(block)
    const disk = here.disks.find(one => one.target === target)
    if (!disk) throw unfit(`a disk ${target}`)
    return withPath(block.replace(backing, ''), disk.path)
  })
  const nics = changedBlocks(disks, nicBlock, block => {
    const arriving = nicIn(block)
    const nic = here.nics.find(one => sameMac(one, arriving))
    if (!nic) throw unfit(`a NIC ${arriving.mac}`)
    return movedInterface(block, nic, placeOf(nic))
  })
  return nics
    .replace(/<muster:vm[ >][\s\S]*?<\/muster:vm>/, () => metadataElement(metadata).text)
    .replace(/<log file=(["'])[^"']*\1/g, () => `<log file="${escapeXml(here.consoleLog ?? '')}"`)
}

/**
 * What it boots from next: this node's definition with the machine that arrives, so that a guest finds each device at its address again.
 * How much memory and how many processors it has then, and what it is called, is as in `stored`.
 */
export function bootedNext(arriving: string, stored: string): string {
  const devices = devicesElement.exec(arriving)?.[0]
  const machine = machineType.exec(arriving)?.[0]
  if (!devices || !machine) throw unfit('no devices or no machine type')
  return stored.replace(devicesElement, () => devices.replaceAll(noBacking, '')).replace(machineType, () => machine)
}

const devicesElement = /<devices>[\s\S]*<\/devices>/
const machineType = /(?<=<os[ >][\s\S]*?)<type [^>]*>/
const noBacking = /<backingStore\/>\s*/g

/** What it stood on: it is copied whole. */
const backing = /<backingStore[ >][\s\S]*<\/backingStore>\s*|<backingStore\/>\s*/

function placeOf({ network, bridge, vlan }: ReadNic): NicPlace {
  if (network !== undefined) return { network }
  return { bridge: bridge ?? '', ...(vlan === undefined ? {} : { vlan }) }
}

const unfit = (what: string) =>
  new HypervisorError('LiveMigrationNotSupported', `the running VM has ${what} that its definition lacks`)
