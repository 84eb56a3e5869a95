/** See `Devices`: changing the definition of a VM, and bringing a running guest in line with it. */
import { type Domain, type Hypervisor as Libvirt, LibvirtError, type StoragePool } from 'node-libvirt'
import { slotOf } from '../../actors/contract/found.ts'
import type { NicSpec } from '../../actors/contract/vm.ts'
import type { Devices, ShapeDisk, VmShape } from '../devices.ts'
import { HypervisorError } from '../hypervisor.ts'
import { diskPart, diskSpecs, nicPart, targetOf } from '../shape.ts'
import {
  changedDefinition,
  diskXmlIn,
  isAt,
  movedInterface,
  nicXmlIn,
  retaggedInterface,
  sameMac,
} from './changed-definition.ts'
import { type DefinitionOptions, nicPlaces } from './definition.ts'
import { diskElement, type NicPlace, networkInterface } from './domain-xml.ts'
import { hostMemory } from './host.ts'
import type { VmMetadata } from './vm-metadata.ts'
import {
  deleteVolume,
  findImages,
  makeVolume,
  mib,
  ownVolumes,
  slotOfVolume,
  spaceLeft,
  volumeSizes,
} from './volumes.ts'
import { type ReadDomain, type ReadNic, readDomain, readPoolPath } from './xml-reading.ts'

export interface DeviceParts {
  /** Does it on the domain of this VM, which must exist. */
  act<T>(doing: string, uuid: string, action: (domain: Domain, libvirt: Libvirt) => Promise<T>): Promise<T>
  options: Pick<DefinitionOptions, 'pool' | 'nicTags' | 'bridges'>
  /** Left to the host, MiB. */
  reservedMib: number
  /** This VM has changed. */
  forget(uuid: string): void
}

/** How long a guest gets to follow its balloon or to let go of a NIC, ms. */
const guestFollowsMs = 8_000
const lookEveryMs = 200
/** Copying the metadata of a large volume takes longer than other calls. */
const resizeDeadline = { deadlineMs: 120_000 }

export function libvirtDevices({ act, options, reservedMib, forget }: DeviceParts): Devices {
  async function reshape(domain: Domain, libvirt: Libvirt, wanted: VmShape, parts: string[]) {
    const definition = await domain.getXml({ inactive: true, secure: true })
    const metadata = metadataOf(readDomain(definition), domain.uuid)
    const folder = await poolFolder(libvirt, options.pool)
    const pathOf = (disk: ShapeDisk) => (disk.volume.startsWith('/') ? disk.volume : `${folder}/${disk.volume}`)
    const places = await nicPlaces(libvirt, wanted, options)
    const change = { shape: wanted, metadata: shapedMetadata(metadata, wanted), pathOf, places }
    await libvirt.defineDomain(changedDefinition(definition, change))
    if ((await domain.getAutostart().catch(() => wanted.autoboot)) !== wanted.autoboot)
      await domain.setAutostart(wanted.autoboot)
    if (!(await domain.isActive())) return { running: false, pending: [] }
    await bringInLine(domain, { ...change, parts })
    const pending = (await pendingParts(domain)).filter(part => parts.includes(part))
    // It may have stopped meanwhile: then everything comes with its next boot.
    return { running: await domain.isActive(), pending }
  }

  return {
    shapeOf: uuid => act('read the definition of', uuid, (domain, libvirt) => shapeOf(domain, libvirt, options)),
    checkShape: (uuid, wanted) =>
      act('check the change of', uuid, async (domain, libvirt) => {
        const before = await shapeOf(domain, libvirt, options)
        await nicPlaces(libvirt, wanted, options)
        await checkDisks(libvirt, options.pool, before, wanted)
        await checkMemory(domain, before, wanted, reservedMib)
      }),
    makeVolumes: (uuid, wanted) =>
      act('make disks of', uuid, async (domain, libvirt) => {
        const pool = await libvirt.lookupStoragePoolByName(options.pool)
        for (const disk of await absentDisks(domain, libvirt, options, wanted)) {
          const [image] = await findImages(libvirt, options.pool, { disks: [disk] })
          await deleteVolume(pool, disk.volume)
          await makeVolume(pool, disk.volume, disk.size_mib, image)
        }
      }),
    reshapeVm: async (uuid, wanted, { parts }) => {
      try {
        return await act('change', uuid, (domain, libvirt) => reshape(domain, libvirt, wanted, parts))
      } finally {
        // libvirt tells of a definition, not of its metadata.
        forget(uuid)
      }
    },
    pendingParts: uuid => act('compare with its definition', uuid, pendingParts),
    resizeDisk: (uuid, slot, sizeMib) =>
      act('resize a disk of', uuid, (domain, libvirt) => resize(domain, libvirt, options.pool, slot, sizeMib)),
    sweepVolumes: uuid =>
      act('delete unused disks of', uuid, async (domain, libvirt) => {
        const pool = await libvirt.lookupStoragePoolByName(options.pool)
        const xmls = await Promise.all([domain.getXml(), domain.getXml({ inactive: true })])
        const disks = xmls.flatMap(text => readDomain(text).disks)
        for (const name of await ownVolumes(libvirt, options.pool, domain.uuid)) {
          if (!disks.some(disk => mayUse(disk, name))) await deleteVolume(pool, name)
        }
      }),
  }
}

/** A disk in a file that Muster did not make (the overlay of a backup, of an external snapshot) may stand on the volume of its slot. */
function mayUse({ target, path }: ReadDomain['disks'][0], volume: string): boolean {
  const file = fileOf(path)
  return file === volume || (slotOfVolume(file) === undefined && slotOf(target) === slotOfVolume(volume))
}

type ShapedMetadata = Omit<VmMetadata, 'task_id' | 'created_at' | 'complete' | 'brand' | 'held'>

/** InvalidArgument, VmBusy: see `Devices`. */
export async function shapeOf(
  domain: Domain,
  libvirt: Libvirt,
  options: DeviceParts['options'],
  metadataIn: (read: ReadDomain, uuid: string) => ShapedMetadata = metadataOf,
): Promise<VmShape> {
  const poolName = options.pool
  const read = readDomain(await domain.getXml({ inactive: true }))
  const metadata = metadataIn(read, domain.uuid)
  const folder = await poolFolder(libvirt, poolName)
  const paths = read.disks.map(disk => disk.path)
  const [sizes, autoboot] = await Promise.all([
    volumeSizes(libvirt, poolName, paths),
    domain.getAutostart().catch(() => false),
  ])
  const asked = new Map(metadata.disks.map((disk, n) => [targetOf(disk.slot ?? n), disk]))
  const { alias, owner_uuid, cpu_cap, quota_gib, customer_metadata, internal_metadata, tags } = metadata
  return {
    memory_mib: read.memoryMib,
    vcpus: read.vcpus,
    autoboot,
    ...(alias === undefined ? {} : { alias }),
    ...(owner_uuid === undefined ? {} : { owner_uuid }),
    ...(cpu_cap === undefined ? {} : { cpu_cap }),
    ...(quota_gib === undefined ? {} : { quota_gib }),
    disks: read.disks
      .map(({ target, path }) => {
        const image = asked.get(target)?.image
        const size = sizes.get(path)?.size_bytes
        return {
          slot: slotOf(target),
          volume: path === `${folder}/${fileOf(path)}` ? fileOf(path) : path,
          size_mib: size === undefined ? (asked.get(target)?.size_mib ?? 0) : Math.ceil(size / mib),
          ...(image === undefined ? {} : { image }),
        }
      })
      .sort((a, b) => a.slot - b.slot),
    nics: read.nics.map(nic => nicOf(nic, metadata.nics, options.nicTags)),
    customer_metadata,
    internal_metadata,
    tags,
  }
}

/** Muster changes what it made, when it has made it. */
function metadataOf({ metadata }: ReadDomain, uuid: string): VmMetadata {
  if (!metadata)
    throw new HypervisorError('InvalidArgument', `the VM ${uuid} was not made by Muster: it stays as it is`)
  if (metadata.complete) return metadata
  throw new HypervisorError('VmBusy', `the VM ${uuid} was not made completely: create or destroy it first`)
}

/** The definition says where a NIC is; by which tag, and what else was said of it, is remembered while that is still so. */
function nicOf(
  { mac, network, bridge, vlan }: ReadNic,
  asked: NicSpec[] = [],
  nicTags: Record<string, string>,
): NicSpec {
  const known = asked.find(one => sameMac(one, { mac }))
  const described = {
    mac: mac.toLowerCase(),
    ...(known?.ip === undefined ? {} : { ip: known.ip }),
    ...(known?.primary === undefined ? {} : { primary: known.primary }),
  }
  if (network !== undefined) return { ...described, network }
  const tagged = vlan === undefined ? {} : { vlan_id: vlan }
  if (known?.nic_tag !== undefined && (known.bridge ?? nicTags[known.nic_tag]) === bridge)
    return {
      ...described,
      nic_tag: known.nic_tag,
      ...(known.bridge === undefined ? {} : { bridge: known.bridge }),
      ...tagged,
    }
  return { ...described, ...(bridge === undefined ? {} : { bridge }), ...tagged }
}

function shapedMetadata(metadata: VmMetadata, shape: VmShape): VmMetadata {
  const { alias: _, owner_uuid: __, cpu_cap: ___, quota_gib: ____, ...kept } = metadata
  const { alias, owner_uuid, cpu_cap, quota_gib, nics, customer_metadata, internal_metadata, tags } = shape
  return {
    ...kept,
    ...(alias === undefined ? {} : { alias }),
    ...(owner_uuid === undefined ? {} : { owner_uuid }),
    ...(cpu_cap === undefined ? {} : { cpu_cap }),
    ...(quota_gib === undefined ? {} : { quota_gib }),
    ...{ disks: diskSpecs(shape.disks), nics, customer_metadata, internal_metadata, tags },
  }
}

// Checks.

async function checkDisks(libvirt: Libvirt, poolName: string, before: VmShape, wanted: VmShape): Promise<void> {
  const isNew = (disk: ShapeDisk) => !before.disks.some(was => was.volume === disk.volume)
  const outside = wanted.disks.find(
    disk =>
      disk.volume.startsWith('/') &&
      before.disks.some(was => was.volume === disk.volume && was.size_mib !== disk.size_mib),
  )
  if (outside)
    throw new HypervisorError('InvalidArgument', `disk ${outside.volume} is not in pool ${poolName}: it is not resized`)
  await findImages(libvirt, poolName, { disks: wanted.disks.filter(isNew) })
  const grown = (disk: ShapeDisk) =>
    disk.size_mib - (before.disks.find(was => was.volume === disk.volume)?.size_mib ?? 0)
  const neededBytes = wanted.disks.reduce((sum, disk) => sum + Math.max(0, grown(disk)), 0) * mib
  if (neededBytes === 0) return
  const free = await spaceLeft(await libvirt.lookupStoragePoolByName(poolName))
  if (neededBytes <= free) return
  const message = `the disks need ${neededBytes} bytes more, pool ${poolName} has ${free} left that are not promised`
  throw new HypervisorError('InsufficientStorage', message)
}

async function checkMemory(domain: Domain, before: VmShape, wanted: VmShape, reservedMib: number): Promise<void> {
  if (wanted.memory_mib <= before.memory_mib) return
  const needed = wanted.memory_mib - ((await domain.isActive()) ? before.memory_mib : 0)
  const { memory_available_mib: available } = await hostMemory()
  const free = Math.max(0, available - reservedMib)
  if (needed <= free) return
  const message = `VM ${domain.uuid} needs ${needed} MiB more, the server has ${free} MiB free`
  throw new HypervisorError('InsufficientMemory', message)
}

/** Disks of the shape whose volumes the definition does not use. */
async function absentDisks(
  domain: Domain,
  libvirt: Libvirt,
  options: DeviceParts['options'],
  wanted: VmShape,
): Promise<ShapeDisk[]> {
  const there = await shapeOf(domain, libvirt, options)
  return wanted.disks.filter(disk => !there.disks.some(one => one.volume === disk.volume))
}

async function resize(
  domain: Domain,
  libvirt: Libvirt,
  poolName: string,
  slot: number,
  sizeMib: number,
): Promise<void> {
  const target = targetOf(slot)
  const path = readDomain(await domain.getXml({ inactive: true })).disks.find(disk => disk.target === target)?.path
  if (path === undefined) throw new HypervisorError('InvalidArgument', `the VM ${domain.uuid} has no disk ${target}`)
  const pool: StoragePool = await libvirt.lookupStoragePoolByName(poolName)
  const volume = await pool.lookupVolume(fileOf(path))
  const { capacityBytes } = await volume.getInfo()
  const wantedBytes = sizeMib * mib
  if (capacityBytes === wantedBytes) return
  const isOpen = (await domain.isActive()) && readDomain(await domain.getXml()).disks.some(disk => disk.path === path)
  // QEMU holds the file of a running guest, and tells the guest.
  if (isOpen) await domain.blockResize(target, wantedBytes, resizeDeadline)
  else await volume.resize(wantedBytes, { shrink: wantedBytes < capacityBytes }, resizeDeadline)
}

// A running guest.

interface Line {
  shape: VmShape
  parts: string[]
  places: NicPlace[]
  pathOf: (disk: ShapeDisk) => string
}

/** Gives the running guest what it takes of the parts. What libvirt refuses waits for the next boot. */
async function bringInLine(domain: Domain, { shape, parts, places, pathOf }: Line): Promise<void> {
  const attempt = async (part: string, give: () => Promise<void>) => {
    if (!parts.includes(part)) return
    try {
      await give()
    } catch (error) {
      if (!(error instanceof LibvirtError)) throw error
    }
  }
  await attempt('ram', () => balloon(domain, shape.memory_mib * 1024))
  await attempt('vcpus', () => domain.setVcpus(shape.vcpus, { affect: 'live' }))
  const running = readDomain(await domain.getXml())
  for (const target of union(
    running.disks,
    shape.disks.map(disk => ({ target: targetOf(disk.slot) })),
    'target',
  )) {
    const disk = shape.disks.find(one => targetOf(one.slot) === target)
    await attempt(diskPart({ slot: slotOf(target) }), () => plugDisk(domain, target, disk?.slot, disk && pathOf(disk)))
  }
  for (const mac of union(running.nics, shape.nics, 'mac')) {
    const n = shape.nics.findIndex(nic => sameMac(nic, { mac }))
    await attempt(nicPart({ mac }), () => plugNic(domain, mac, places[n]))
  }
}

/** Where the running guest is not as its definition. */
export async function pendingParts(domain: Domain): Promise<string[]> {
  if (!(await domain.isActive())) return []
  const [live, stored, info] = await Promise.all([domain.getXml(), domain.getXml({ inactive: true }), domain.getInfo()])
  const now = readDomain(live)
  const wanted = readDomain(stored)
  const targets = union(now.disks, wanted.disks, 'target').filter(target => {
    const pathIn = ({ disks }: ReadDomain) => disks.find(disk => disk.target === target)?.path
    return pathIn(now) !== pathIn(wanted)
  })
  const macs = union(now.nics, wanted.nics, 'mac').filter(mac => {
    const [is, was] = [now, wanted].map(({ nics }) => nics.find(nic => sameMac(nic, { mac })))
    return !is || !was || !isAt(is, was.network === undefined ? placeOn(was) : { network: was.network })
  })
  return [
    ...(Math.round(info.memoryKib / 1024) === wanted.memoryMib ? [] : ['ram']),
    ...(info.vcpus === wanted.vcpus ? [] : ['vcpus']),
    ...targets.map(target => diskPart({ slot: slotOf(target) })),
    ...macs.map(mac => nicPart({ mac })),
  ]
}

const placeOn = ({ bridge = '', vlan }: ReadNic) => ({ bridge, ...(vlan === undefined ? {} : { vlan }) })

/** The values of one field in two lists, each once. */
function union<K extends string>(a: { [N in K]: string }[], b: { [N in K]: string }[], key: K): string[] {
  return [...new Set([...a, ...b].map(one => one[key].toLowerCase()))]
}

/** Within what the guest was started with: its balloon gives memory back or takes it. */
async function balloon(domain: Domain, wantedKib: number): Promise<void> {
  const { maxMemoryKib, memoryKib } = await domain.getInfo()
  if (memoryKib === wantedKib || wantedKib > maxMemoryKib) return
  await domain.setMemory(wantedKib, { affect: 'live' })
  if (await becomes(async () => (await domain.getInfo()).memoryKib === wantedKib)) return
  // A guest without a driver for it: what it has is left to it.
  await domain.setMemory(memoryKib, { affect: 'live' })
}

async function plugDisk(
  domain: Domain,
  target: string,
  slot: number | undefined,
  path: string | undefined,
): Promise<void> {
  const there = async () => readDomain(await domain.getXml()).disks.find(disk => disk.target === target)?.path
  const now = await there()
  if (now === path) return
  if (now !== undefined) {
    await domain.detachDevice(diskXmlIn(await domain.getXml({ secure: true }), target) ?? '', 'live')
    if (!(await becomes(async () => (await there()) === undefined))) return
  }
  if (slot !== undefined && path !== undefined) await domain.attachDevice(diskElement(path, slot).text, 'live')
}

/** Plugs the NIC in there, or out where `place` is undefined. */
async function plugNic(domain: Domain, mac: string, place: NicPlace | undefined): Promise<void> {
  const block = async () => nicXmlIn(await domain.getXml({ secure: true }), { mac })
  const now = await block()
  if (now === undefined) {
    if (place) await domain.attachDevice(networkInterface(mac, place).text, 'live')
    return
  }
  const is = readDomain(`<domain><devices>${now}</devices></domain>`).nics[0] as ReadNic
  if (place && isAt(is, place)) return
  // A NIC on a bridge moves under the guest's feet; one on a network must be pulled out and plugged in, which the guest sees.
  if (place && 'bridge' in place && is.network === undefined) {
    const refusal = await domain.updateDevice(retaggedInterface(now, place), { affect: 'live' }).catch(error => error)
    if (refusal === undefined) return
    if (!(refusal instanceof LibvirtError)) throw refusal
  }
  await domain.detachDevice(now, 'live')
  if (!(await becomes(async () => (await block()) === undefined)) || !place) return
  try {
    await domain.attachDevice(movedInterface(now, { mac }, place), 'live')
  } catch (error) {
    // Rather at its old place than nowhere.
    if (error instanceof LibvirtError) await domain.attachDevice(now, 'live').catch(() => {})
    throw error
  }
}

async function becomes(holds: () => Promise<boolean>): Promise<boolean> {
  const end = performance.now() + guestFollowsMs
  for (;;) {
    if (await holds()) return true
    if (performance.now() >= end) return false
    await new Promise(resolve => setTimeout(resolve, lookEveryMs))
  }
}

async function poolFolder(libvirt: Libvirt, poolName: string): Promise<string> {
  return readPoolPath(await (await libvirt.lookupStoragePoolByName(poolName)).getXml()) ?? ''
}

const fileOf = (path: string) => path.slice(path.lastIndexOf('/') + 1)
