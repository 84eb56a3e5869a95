/** The host behind the hypervisor: what /proc and /sys say of it, and libvirt's figures of processors, pools and versions. */
import { readdir, readFile } from 'node:fs/promises'
import { hostname, networkInterfaces, release } from 'node:os'
import type { Hypervisor as Libvirt } from 'node-libvirt'
import type { HostInventory } from '../hypervisor.ts'
import type { OpenVswitch } from '../openvswitch/bridges.ts'
import { installedPlatforms } from '../platforms.ts'
import { poolFigures } from './volumes.ts'

export interface HostOptions {
  openvswitch: OpenVswitch
  /** Nic tag -> bridge. */
  nicTags: Record<string, string>
  /** How guests run: `kvm`, or `qemu` for TCG. */
  hypervisor: string
}

export async function hostInventory(libvirt: Libvirt, driver: string, options: HostOptions): Promise<HostInventory> {
  const [node, memory, cpuModel, bootTime, disks, nics, bridges, ports, pools, versions] = await Promise.all([
    libvirt.getNodeInfo(),
    hostMemory(),
    cpuModelName(),
    bootTimeSeconds(),
    hostDisks(),
    hostNics(),
    options.openvswitch.bridges(),
    options.openvswitch.ports(),
    activePools(libvirt),
    hostVersions(libvirt, driver, options),
  ])
  return {
    hostname: hostname(),
    cpu_model: cpuModel ?? node.model,
    cpu_cores: Math.max(node.cpus, node.nodes * node.sockets * node.cores * node.threads),
    cpu_online: node.cpus,
    ...memory,
    boot_time_s: bootTime,
    disks,
    nics: nics.map(nic => {
      const bridge = ports[nic.name]
      return bridge === undefined ? nic : { ...nic, bridge }
    }),
    bridges: bridges.map(name => ({
      name,
      nic_tags: Object.keys(options.nicTags).filter(tag => options.nicTags[tag] === name),
    })),
    pools,
    platforms: await installedPlatforms(versions.kernel),
    versions,
  }
}

/** From /proc/meminfo: libvirt's node info was seen with half of the memory, its sum of NUMA nodes. */
export async function hostMemory(): Promise<{ memory_mib: number; memory_available_mib: number }> {
  const text = await readFile('/proc/meminfo', 'utf8')
  const mib = (field: string) =>
    Math.floor(Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(text)?.[1] ?? 0) / 1024)
  return { memory_mib: mib('MemTotal'), memory_available_mib: mib('MemAvailable') }
}

async function cpuModelName(): Promise<string | undefined> {
  return /^model name\s*:\s*(.+)$/m.exec(await text('/proc/cpuinfo'))?.[1]
}

async function bootTimeSeconds(): Promise<number> {
  return Number(/^btime (\d+)$/m.exec(await text('/proc/stat'))?.[1] ?? 0)
}

/** Whole disks; loop devices, RAM disks, device-mapper and CD drives are none. */
async function hostDisks(): Promise<HostInventory['disks']> {
  const names = (await readdir('/sys/block').catch(() => [])).filter(
    name => !/^(loop|ram|zram|dm-|md|sr|nbd|zd)/.test(name),
  )
  const disks = await Promise.all(
    names.map(async name => ({ name, size_bytes: Number(await text(`/sys/block/${name}/size`)) * 512 })),
  )
  return disks.filter(disk => disk.size_bytes > 0).sort((a, b) => a.name.localeCompare(b.name))
}

/** Interfaces with a MAC address; guests' ends of their NICs (vnet) come and go and are left out, like the loopback. */
async function hostNics(): Promise<HostInventory['nics']> {
  const names = (await readdir('/sys/class/net').catch(() => [])).filter(
    name => !/^(lo$|vnet|tap|veth|ovs-)/.test(name),
  )
  const nics = await Promise.all(names.map(hostNic))
  return nics.filter(nic => nic !== undefined).sort((a, b) => a.name.localeCompare(b.name))
}

async function hostNic(name: string): Promise<HostInventory['nics'][number] | undefined> {
  const [mac, state] = await Promise.all(
    ['address', 'operstate'].map(async file => (await text(`/sys/class/net/${name}/${file}`)).trim()),
  )
  if (!mac || !/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/.test(mac)) return undefined
  const address = networkInterfaces()[name]?.find(one => one.family === 'IPv4')?.address
  const link = state === 'up' || state === 'down' ? state : 'unknown'
  return { name, mac, link, ...(address === undefined ? {} : { address }) }
}

/** A pool that does not tell its figures is left out: it must not hide the node. */
async function activePools(libvirt: Libvirt): Promise<HostInventory['pools']> {
  const pools = await libvirt.listStoragePools({ active: true })
  const figures = await Promise.all(pools.map(pool => poolFigures(pool).catch(() => undefined)))
  return figures.filter(pool => pool !== undefined)
}

async function hostVersions(
  libvirt: Libvirt,
  driver: string,
  options: HostOptions,
): Promise<HostInventory['versions']> {
  const [libvirtVersion, hypervisorVersion, openvswitch, osRelease] = await Promise.all([
    libvirt.getLibVersion(),
    libvirt.getVersion(),
    options.openvswitch.version(),
    text('/etc/os-release'),
  ])
  return {
    hypervisor: options.hypervisor,
    libvirt: libvirtVersion,
    ...(driver === 'QEMU' ? { qemu: hypervisorVersion } : {}),
    ...(openvswitch === undefined ? {} : { openvswitch }),
    kernel: release(),
    os: /^PRETTY_NAME="?([^"\n]*)"?$/m.exec(osRelease)?.[1] ?? 'Linux',
  }
}

async function text(path: string): Promise<string> {
  return readFile(path, 'utf8').catch(() => '')
}
