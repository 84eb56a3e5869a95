/** Changing simulated guests: a definition that is switched at once, volumes beside it, and what a running guest has of it. */
import type { NicSpec, VmSpec } from '../../actors/contract/vm.ts'
import type { Devices, ShapeDisk, VmShape } from '../devices.ts'
import { HypervisorError } from '../hypervisor.ts'
import { changedParts, diskPart, diskSpecs, nicPart } from '../shape.ts'
import type { Guest } from './guests.ts'

/** What a running guest was started with and was given since. */
export interface SimulatedHardware {
  memory_mib: number
  /** The most its balloon can give back to it. */
  memory_max_mib: number
  vcpus: number
  /** Volume by slot. */
  disks: Record<string, string>
  nics: NicSpec[]
}

export interface DeviceParts {
  call<T>(name: keyof Devices, uuid: string, effect: () => T): Promise<T>
  need(uuid: string): Guest
  save(): void
  tell(change: { uuid: string; what: string }): void
  now(): number
  /** Size of an image in the pool. */
  imageMib(name: string): number | undefined
  checkNics(spec: Pick<VmSpec, 'nics'>): void
  /** MiB that are left in the pool and of the host's memory. */
  poolFreeMib(): number
  memoryFreeMib(): number
}

export function simulatedDevices(parts: DeviceParts): Devices {
  const { call, need, save, tell, now } = parts

  function check(guest: Guest, wanted: VmShape): void {
    parts.checkNics(wanted)
    const before = shapeOf(guest)
    const was = (disk: ShapeDisk) => before.disks.find(one => one.volume === disk.volume)
    for (const disk of wanted.disks) {
      if (!disk.image || was(disk)) continue
      const sizeMib = parts.imageMib(disk.image)
      if (sizeMib === undefined) throw new HypervisorError('ImageNotInstalled', `the pool has no volume ${disk.image}`)
      if (sizeMib > disk.size_mib) {
        const message = `image ${disk.image} has ${sizeMib} MiB, more than the disk's ${disk.size_mib} MiB`
        throw new HypervisorError('InvalidArgument', message)
      }
    }
    const grown = (disk: ShapeDisk) => Math.max(0, disk.size_mib - (was(disk)?.size_mib ?? 0))
    const neededMib = wanted.disks.reduce((sum, disk) => sum + grown(disk), 0)
    const free = parts.poolFreeMib()
    if (neededMib > 0 && neededMib > free)
      throw new HypervisorError(
        'InsufficientStorage',
        `the disks need ${neededMib} MiB more, the pool has ${free} left`,
      )
    if (wanted.memory_mib <= before.memory_mib) return
    const needed = wanted.memory_mib - (guest.state === 'running' ? before.memory_mib : 0)
    if (needed > parts.memoryFreeMib())
      throw new HypervisorError('InsufficientMemory', `VM ${guest.spec.uuid} needs ${needed} MiB more`)
  }

  function makeVolumes(guest: Guest, wanted: VmShape): void {
    const there = shapeOf(guest).disks
    for (const disk of wanted.disks) {
      if (there.some(one => one.volume === disk.volume)) continue
      guest.loose = { ...guest.loose, [disk.volume]: disk.size_mib }
    }
    save()
  }

  function reshape(guest: Guest, wanted: VmShape, changed: string[]) {
    const before = shapeOf(guest)
    const loose = { ...guest.loose }
    for (const disk of before.disks) {
      if (!wanted.disks.some(one => one.volume === disk.volume)) loose[disk.volume] = disk.size_mib
    }
    const disks = wanted.disks.map(disk => {
      const size = before.disks.find(one => one.volume === disk.volume)?.size_mib ?? loose[disk.volume]
      if (size === undefined) throw new HypervisorError('HypervisorError', `there is no volume ${disk.volume}`)
      delete loose[disk.volume]
      return { ...disk, size_mib: size }
    })
    const { memory_mib, vcpus, autoboot, nics, customer_metadata, internal_metadata, tags } = wanted
    const { alias: _, owner_uuid: __, cpu_cap: ___, quota_gib: ____, ...kept } = guest.spec
    const { alias, owner_uuid, cpu_cap, quota_gib } = wanted
    guest.spec = {
      ...kept,
      ...{ memory_mib, vcpus, autoboot, nics, customer_metadata, internal_metadata, tags },
      ...(alias === undefined ? {} : { alias }),
      ...(owner_uuid === undefined ? {} : { owner_uuid }),
      ...(cpu_cap === undefined ? {} : { cpu_cap }),
      ...(quota_gib === undefined ? {} : { quota_gib }),
      disks: diskSpecs(disks),
    }
    guest.loose = loose
    guest.volumes = volumesBySlot(disks)
    guest.modified_at = now()
    if (guest.state === 'running') bringInLine(guest, changed)
    const pending = pendingParts(guest).filter(part => changed.includes(part))
    save()
    tell({ uuid: guest.spec.uuid, what: 'defined' })
    return { running: guest.state === 'running', pending }
  }

  return {
    shapeOf: uuid => call('shapeOf', uuid, () => shapeOf(need(uuid))),
    checkShape: (uuid, wanted) => call('checkShape', uuid, () => check(need(uuid), wanted)),
    makeVolumes: (uuid, wanted) => call('makeVolumes', uuid, () => makeVolumes(need(uuid), wanted)),
    reshapeVm: (uuid, wanted, { parts: changed }) =>
      call('reshapeVm', uuid, () => reshape(need(uuid), wanted, changed)),
    pendingParts: uuid => call('pendingParts', uuid, () => pendingParts(need(uuid))),
    resizeDisk: (uuid, slot, sizeMib) =>
      call('resizeDisk', uuid, () => {
        const { spec } = need(uuid)
        const disk = spec.disks.find((one, n) => (one.slot ?? n) === slot)
        if (!disk) throw new HypervisorError('InvalidArgument', `the VM ${uuid} has no disk in slot ${slot}`)
        disk.size_mib = sizeMib
        save()
      }),
    sweepVolumes: uuid =>
      call('sweepVolumes', uuid, () => {
        const guest = need(uuid)
        const used = Object.values(guest.hardware?.disks ?? {})
        guest.loose = Object.fromEntries(Object.entries(guest.loose ?? {}).filter(([name]) => used.includes(name)))
        save()
      }),
  }
}

/** What a guest that starts now runs with. */
export function hardwareOf(guest: Guest): SimulatedHardware {
  const { memory_mib, vcpus, disks, nics } = shapeOf(guest)
  return { memory_mib, memory_max_mib: memory_mib, vcpus, disks: volumesBySlot(disks), nics }
}

/** Its disks with the volumes they are. */
export function shapeOf(guest: Guest): VmShape {
  const { memory_mib, vcpus, autoboot, alias, owner_uuid, cpu_cap, quota_gib, nics } = guest.spec
  return {
    ...{ memory_mib, vcpus, autoboot },
    ...(alias === undefined ? {} : { alias }),
    ...(owner_uuid === undefined ? {} : { owner_uuid }),
    ...(cpu_cap === undefined ? {} : { cpu_cap }),
    ...(quota_gib === undefined ? {} : { quota_gib }),
    disks: guest.spec.disks.map(({ size_mib, image, slot: given }, n) => {
      const slot = given ?? n
      const volume = guest.volumes?.[slot] ?? `${guest.spec.uuid}-disk${slot}.qcow2`
      return { slot, volume, size_mib, ...(image === undefined ? {} : { image }) }
    }),
    nics: nics.map(nic => ({ ...nic, mac: nic.mac.toLowerCase() })),
    customer_metadata: guest.spec.customer_metadata ?? {},
    internal_metadata: guest.spec.internal_metadata ?? {},
    tags: guest.spec.tags ?? {},
  }
}

/** As QEMU does: memory within what it started with, disks and NICs at once, vcpus at the next boot. */
function bringInLine(guest: Guest, changed: string[]): void {
  const hardware = guest.hardware ?? hardwareOf(guest)
  const { memory_mib, disks, nics } = shapeOf(guest)
  if (changed.includes('ram') && memory_mib <= hardware.memory_max_mib) hardware.memory_mib = memory_mib
  for (const disk of disks) if (changed.includes(diskPart(disk))) hardware.disks[disk.slot] = disk.volume
  for (const slot of Object.keys(hardware.disks)) {
    if (!disks.some(disk => String(disk.slot) === slot)) delete hardware.disks[slot]
  }
  hardware.nics = [
    ...hardware.nics.filter(nic => !changed.includes(nicPart(nic))),
    ...nics.filter(nic => changed.includes(nicPart(nic))),
  ]
  guest.hardware = hardware
}

export function pendingParts(guest: Guest): string[] {
  const { hardware } = guest
  if (guest.state !== 'running' || !hardware) return []
  const wanted = shapeOf(guest)
  const disks = wanted.disks.map(disk => ({ ...disk, volume: hardware.disks[disk.slot] ?? '' }))
  const { memory_mib, vcpus, nics } = hardware
  return changedParts({ ...wanted, memory_mib, vcpus, disks, nics }, wanted)
}

const volumesBySlot = (disks: ShapeDisk[]) => Object.fromEntries(disks.map(({ slot, volume }) => [slot, volume]))
