/**
 * A VM's definition with another shape. Text as libvirt gave it is changed only where the shape differs, so that addresses of devices,
 * and what somebody added by hand, stay as they are.
 */
import type { NicSpec } from '../../actors/contract/vm.ts'
import type { ShapeDisk, VmShape } from '../devices.ts'
import { targetOf } from '../shape.ts'
import { diskElement, type NicPlace, networkInterface, titleElement } from './domain-xml.ts'
import { metadataElement, type VmMetadata } from './vm-metadata.ts'
import { escapeXml } from './xml.ts'
import { type ReadNic, readDomain } from './xml-reading.ts'

export interface Change {
  shape: VmShape
  metadata: VmMetadata
  /** File of a disk. */
  pathOf: (disk: ShapeDisk) => string
  /** Of each NIC of the shape. */
  places: NicPlace[]
}

export function changedDefinition(definition: string, change: Change): string {
  const { shape, metadata, pathOf, places } = change
  const read = readDomain(definition)
  let text = definition
  if (read.memoryMib !== shape.memory_mib) {
    text = replaced(text, /<memory[ >][\s\S]*?<\/memory>/, `<memory unit="MiB">${shape.memory_mib}</memory>`)
    text = text.replace(/<currentMemory[ >][\s\S]*?<\/currentMemory>\s*/, '')
  }
  if (read.vcpus !== shape.vcpus) {
    text = replaced(text, /<vcpu[ >][\s\S]*?<\/vcpu>/, `<vcpu placement="static">${shape.vcpus}</vcpu>`)
    text = text.replace(/<vcpus>[\s\S]*?<\/vcpus>\s*/, '')
  }
  const title = titleElement(shape.alias)
  text = text.replace(/\s*<title>[\s\S]*?<\/title>/, '')
  if (title) text = replaced(text, /<\/uuid>/, `</uuid>\n${title.text}`)
  text = replaced(text, /<muster:vm[ >][\s\S]*?<\/muster:vm>/, metadataElement(metadata).text)
  text = changedBlocks(text, diskBlock, block => {
    const target = targetIn(block)
    const disk = shape.disks.find(one => targetOf(one.slot) === target)
    // A CD-ROM or the like is not of the shape.
    if (!target || !isDisk(block)) return block
    return disk && withPath(block, pathOf(disk))
  })
  text = changedBlocks(text, nicBlock, block => {
    const n = shape.nics.findIndex(nic => isOf(block, nic))
    return n < 0 ? undefined : movedInterface(block, shape.nics[n] as NicSpec, places[n] as NicPlace)
  })
  const newDisks = shape.disks.filter(disk => !read.disks.some(one => one.target === targetOf(disk.slot)))
  const newNics = shape.nics.flatMap((nic, n) => (read.nics.some(one => sameMac(one, nic)) ? [] : [n]))
  const devices = [
    ...newDisks.map(disk => diskElement(pathOf(disk), disk.slot).text),
    ...newNics.map(n => networkInterface((shape.nics[n] as NicSpec).mac, places[n] as NicPlace).text),
  ]
  return devices.length === 0 ? text : replaced(text, /<\/devices>/, `${devices.join('\n')}\n</devices>`)
}

export const diskBlock = /<disk [\s\S]*?<\/disk>\s*/g
export const nicBlock = /<interface [\s\S]*?<\/interface>\s*/g

/** The element of this disk in a domain's XML. */
export function diskXmlIn(xml: string, target: string): string | undefined {
  return (xml.match(diskBlock) ?? []).find(block => isDisk(block) && targetIn(block) === target)
}

/** The element of the NIC of this address. */
export function nicXmlIn(xml: string, nic: { mac: string }): string | undefined {
  return (xml.match(nicBlock) ?? []).find(block => isOf(block, nic))
}

/** The same NIC of the same model at the same address of the machine, plugged in elsewhere. */
export function movedInterface(block: string, nic: { mac: string }, place: NicPlace): string {
  if (isAt(nicIn(block), place)) return block
  const device = [/<model [^>]*\/>/, /<address [^>]*\/>/].map(pattern => pattern.exec(block)?.[0] ?? '')
  return networkInterface(nic.mac, place)
    .text.replace(/<model [^>]*\/>/, () => device[0] || '<model type="virtio"/>')
    .replace('</interface>', () => `${device[1]}</interface>`)
}

/** A running NIC on a bridge with another VLAN or bridge: what libvirt can change in place, all else as it is. */
export function retaggedInterface(block: string, place: { bridge: string; vlan?: number }): string {
  const vlan = place.vlan === undefined ? '' : `<vlan><tag id="${place.vlan}"/></vlan>`
  return block
    .replace(/<vlan[ >][\s\S]*?<\/vlan>\s*/, '')
    .replace(/(<source [^>]*?bridge=)(["'])[^"']*\2/, (_, head: string) => `${head}"${escapeXml(place.bridge)}"`)
    .replace('</interface>', () => `${vlan}</interface>`)
}

export function isAt(nic: ReadNic, place: NicPlace): boolean {
  if ('network' in place) return nic.network === place.network
  return nic.network === undefined && nic.bridge === place.bridge && nic.vlan === place.vlan
}

export const sameMac = (a: { mac: string }, b: { mac: string }) => a.mac.toLowerCase() === b.mac.toLowerCase()

/** Each block as `change` gives it; undefined: left out. */
export function changedBlocks(text: string, pattern: RegExp, change: (block: string) => string | undefined): string {
  return text.replace(pattern, block => change(block) ?? '')
}

/** The disk's element with another file, on no image. */
export function withPath(block: string, path: string): string {
  const source = /<source [^>]*?file=(["'])(.*?)\1/.exec(block)
  if (source && readDomain(`<domain><devices>${block}</devices></domain>`).disks[0]?.path === path) return block
  return block
    .replace(/<backingStore[ >][\s\S]*<\/backingStore>\s*|<backingStore\/>\s*/, '')
    .replace(/<source [^>]*?(\/>|>[\s\S]*?<\/source>)/, () => `<source file="${escapeXml(path)}"/>`)
}

export function nicIn(block: string): ReadNic {
  return readDomain(`<domain><devices>${block}</devices></domain>`).nics[0] as ReadNic
}

export const targetIn = (block: string) => /<target [^>]*?dev=(["'])(.*?)\1/.exec(block)?.[2]
/** No CD-ROM or the like. */
export const isDisk = (block: string) => !/^<disk [^>]*device=["'](?!disk)/.test(block)
const isOf = (block: string, nic: { mac: string }) => sameMac(nicIn(block), nic)

function replaced(text: string, pattern: RegExp, by: string): string {
  if (!pattern.test(text)) throw new TypeError(`the definition has nothing like ${pattern.source}`)
  return text.replace(pattern, () => by)
}
