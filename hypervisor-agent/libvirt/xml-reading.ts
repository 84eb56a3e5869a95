/** libvirt's XML of domains, networks, pools and volumes, read into what the agent wants to know of them. */
import { XMLParser } from 'fast-xml-parser'
import { readMetadata, type VmMetadata } from './vm-metadata.ts'
import { unescapeXml } from './xml.ts'

export interface ReadDomain {
  name: string
  uuid: string
  title?: string
  memoryMib: number
  vcpus: number
  disks: { target: string; path: string }[]
  nics: ReadNic[]
  vnc?: { host: string; port: number }
  consoleLog?: string
  metadata?: VmMetadata
}

export interface ReadNic {
  mac: string
  network?: string
  bridge?: string
  vlan?: number
  model?: string
  /** The host's end, while it runs. */
  interface?: string
}

const parser = new XMLParser({
  ignoreAttributes: false,
  attributeNamePrefix: '@',
  textNodeName: '#',
  parseTagValue: false,
  parseAttributeValue: false,
  // Entities are decoded here, in one place: the parser's own limits on their number would refuse long metadata.
  processEntities: false,
  trimValues: true,
  isArray: name => ['disk', 'interface', 'graphics', 'serial', 'console', 'tag', 'listen'].includes(name),
})

/** An element: attributes as `@name`, text as `#`, children by name. Text alone is a string. */
type Node = { [key: string]: Node | Node[] | string | undefined }

export function readDomain(text: string): ReadDomain {
  const domain = root(text, 'domain')
  const devices = child(domain, 'devices')
  const metadata = readMetadata(textOf(child(domain, 'metadata'), 'muster:vm'))
  const title = textOf(domain, 'title')
  const vnc = readVnc(devices)
  const consoleLog = children(devices, 'serial')
    .map(serial => attribute(child(serial, 'log'), 'file'))
    .find(Boolean)
  return {
    name: textOf(domain, 'name') ?? '',
    uuid: textOf(domain, 'uuid') ?? '',
    ...(title === undefined ? {} : { title }),
    memoryMib: toMib(textOf(domain, 'memory'), attribute(child(domain, 'memory'), 'unit')),
    vcpus: Number(textOf(domain, 'vcpu') ?? 1),
    disks: children(devices, 'disk')
      .filter(disk => (attribute(disk, 'device') ?? 'disk') === 'disk')
      .map(readDisk),
    nics: children(devices, 'interface').map(readNic),
    ...(vnc ? { vnc } : {}),
    ...(consoleLog ? { consoleLog } : {}),
    ...(metadata ? { metadata } : {}),
  }
}

export function readNetwork(text: string): { bridge?: string; vlan?: number } {
  const network = root(text, 'network')
  const bridge = attribute(child(network, 'bridge'), 'name')
  const vlan = readVlan(network)
  return { ...(bridge ? { bridge } : {}), ...(vlan === undefined ? {} : { vlan }) }
}

export interface ReadSnapshot {
  name: string
  description?: string
  /** Seconds since the epoch. */
  createdAtS: number
  isRunning: boolean
  hasMemory: boolean
  parent?: string
}

export function readSnapshot(text: string): ReadSnapshot {
  const snapshot = root(text, 'domainsnapshot')
  const description = textOf(snapshot, 'description')
  const parent = textOf(child(snapshot, 'parent'), 'name')
  const isRunning = ['running', 'paused', 'blocked'].includes(textOf(snapshot, 'state') ?? '')
  const memory = attribute(child(snapshot, 'memory'), 'snapshot')
  return {
    name: textOf(snapshot, 'name') ?? '',
    createdAtS: Number(textOf(snapshot, 'creationTime') ?? 0),
    isRunning,
    // libvirt's test driver does not say.
    hasMemory: memory === undefined ? isRunning : memory !== 'no',
    ...(description === undefined ? {} : { description }),
    ...(parent === undefined ? {} : { parent }),
  }
}

/** Whether the channel of that name has somebody at its other end, in the guest. */
export function isChannelConnected(text: string, name: string): boolean {
  const channels = children(child(root(text, 'domain'), 'devices'), 'channel')
  const targets = channels.map(channel => child(channel, 'target'))
  return targets.some(target => attribute(target, 'name') === name && attribute(target, 'state') === 'connected')
}

/** The folder or device a pool stands on. */
export function readPoolPath(text: string): string | undefined {
  return textOf(child(root(text, 'pool'), 'target'), 'path')
}

export interface ReadVolume {
  path: string
  format: string
  capacityBytes: number
  allocationBytes: number
  /** The file it stands on. */
  backingPath?: string
}

export function readVolume(text: string): ReadVolume {
  const volume = root(text, 'volume')
  const target = child(volume, 'target')
  const backingPath = textOf(child(volume, 'backingStore'), 'path')
  return {
    path: textOf(target, 'path') ?? '',
    format: attribute(child(target, 'format'), 'type') ?? 'raw',
    capacityBytes: Number(textOf(volume, 'capacity') ?? 0),
    allocationBytes: Number(textOf(volume, 'allocation') ?? 0),
    ...(backingPath ? { backingPath } : {}),
  }
}

function readDisk(disk: Node): { target: string; path: string } {
  const source = child(disk, 'source')
  const path = attribute(source, 'file') ?? attribute(source, 'dev') ?? attribute(source, 'name') ?? ''
  return { target: attribute(child(disk, 'target'), 'dev') ?? '', path }
}

function readNic(nic: Node): ReadNic {
  const source = child(nic, 'source')
  const found = {
    network: attribute(source, 'network'),
    bridge: attribute(source, 'bridge'),
    vlan: readVlan(nic),
    model: attribute(child(nic, 'model'), 'type'),
    interface: attribute(child(nic, 'target'), 'dev'),
  }
  const given = Object.fromEntries(Object.entries(found).filter(([, value]) => value !== undefined))
  return { mac: attribute(child(nic, 'mac'), 'address') ?? '', ...given }
}

/** The single tag of an access port; trunks have none. */
function readVlan(node: Node): number | undefined {
  const tags = children(child(node, 'vlan'), 'tag')
  return tags.length === 1 ? Number(attribute(tags[0], 'id')) : undefined
}

function readVnc(devices: Node): { host: string; port: number } | undefined {
  const graphics = children(devices, 'graphics').find(one => attribute(one, 'type') === 'vnc')
  const port = Number(attribute(graphics, 'port') ?? -1)
  if (!graphics || port < 0) return undefined
  return {
    host: attribute(children(graphics, 'listen')[0], 'address') ?? attribute(graphics, 'listen') ?? '127.0.0.1',
    port,
  }
}

const kibPerUnit: Record<string, number> = {
  b: 1 / 1024,
  bytes: 1 / 1024,
  KiB: 1,
  k: 1,
  MiB: 1024,
  M: 1024,
  GiB: 1024 ** 2,
}

function toMib(value: string | undefined, unit = 'KiB'): number {
  return Math.round((Number(value ?? 0) * (kibPerUnit[unit] ?? 1)) / 1024)
}

function root(text: string, name: string): Node {
  return child(parser.parse(text) as Node, name)
}

function child(node: Node | undefined, name: string): Node {
  const found = node?.[name]
  const first = Array.isArray(found) ? found[0] : found
  if (typeof first === 'string') return { '#': first }
  return first ?? {}
}

function children(node: Node | undefined, name: string): Node[] {
  const found = node?.[name]
  return (Array.isArray(found) ? found : found === undefined ? [] : [found]).map(one =>
    typeof one === 'string' ? { '#': one } : one,
  )
}

function textOf(node: Node, name: string): string | undefined {
  const text = child(node, name)['#']
  return typeof text === 'string' ? unescapeXml(text) : undefined
}

function attribute(node: Node | undefined, name: string): string | undefined {
  const value = node?.[`@${name}`]
  return typeof value === 'string' ? unescapeXml(value) : undefined
}
