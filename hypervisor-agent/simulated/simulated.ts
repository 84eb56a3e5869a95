/**
 * A hypervisor in memory, with the manners of a real one: guests boot for a while, lose a power button pressed too early, fill
 * memory and pool, and go on without the agent. Calls can be told to be slow, to fail or to hang (faults.ts).
 */
import type { VmSpec } from '../../actors/contract/vm.ts'
import { type HostInventory, type Hypervisor, type HypervisorChange, HypervisorError } from '../hypervisor.ts'
import { hardwareOf, simulatedDevices } from './devices.ts'
import { type FaultPlan, faultPlan } from './faults.ts'
import { simulatedFindings } from './findings.ts'
import { bytes, type Guest, type GuestStore, guestStore, vmDetail, vmState } from './guests.ts'
import { type HostOptions, simulatedHost, simulatedNicTags } from './host.ts'
import { imageStore, simulatedImages, wholeImage } from './images.ts'
import { type ContentWorld, contentWorld, firstContent, simulatedImaging } from './imaging.ts'
import { simulatedInside } from './inside.ts'
import { simulatedLiveMigrations } from './live-migrations.ts'
import { simulatedMigrations } from './migrations.ts'
import { simulatedNodeStorage } from './node-storage.ts'
import { type Power, powerOf } from './power.ts'

export interface SimulatedOptions extends HostOptions {
  /** Folder that remembers guests and networks, so that they outlive the agent; absent: in memory only. */
  folder?: string
  /** Images in the pool: name -> size in MiB. */
  images?: Record<string, number>
  delays?: Partial<Delays>
  /** Guests have a QEMU guest agent from their beginning. */
  guestAgents?: boolean
  /** The clock, ms since the epoch. */
  now?: () => number
}

/** How long things take, ms. `installMs: Infinity` lets the installer run until `world.finishInstaller`. */
export interface Delays {
  call: number
  boot: number
  acpi: number
  install: number
}

/** What a test does to the simulated world behind the agent's back. */
export interface World extends ContentWorld {
  /** Kills the guest as `kill -9` of QEMU would. */
  crash(uuid: string): void
  /** The guest powers itself off. */
  guestPowersOff(uuid: string): void
  /** From now on the guest hears ACPI, or does not. */
  setAcpi(uuid: string, manner: 'listens' | 'ignores'): void
  /** The installer of this VM has written its disk and reboots, which stops the VM. */
  finishInstaller(uuid: string): void
  addImage(name: string, sizeMib: number): void
  removeImage(name: string): void
  /** Tells listeners that anything may have changed, as a reconnect does. */
  reconnect(): void
  power: Power
  /** Somebody removes the storage pool. */
  removePool(): void
  guest(uuid: string): Guest | undefined
}

export interface SimulatedHypervisor extends Hypervisor {
  readonly kind: 'simulated'
  readonly faults: FaultPlan
  readonly world: World
}

const reservedMib = 1024
const defaultDelays: Delays = { call: 0, boot: 0, acpi: 5, install: 50 }

/** Makes a simulated hypervisor; the same `seed` gives the same host. Call `open()` before use. */
export function simulatedHypervisor(options: SimulatedOptions): SimulatedHypervisor {
  const now = options.now ?? Date.now
  const delays = { ...defaultDelays, ...options.delays }
  const host = simulatedHost(options)
  const imagesKept = imageStore(options.folder, options.images ?? {})
  const { images } = imagesKept
  const faults = faultPlan()
  const listeners = new Set<(change: HypervisorChange) => void>()
  const timers = new Map<string, NodeJS.Timeout>()
  const store: GuestStore = guestStore(options.folder)
  let isOpen = false
  const power = powerOf({
    store,
    firstBootS: host.inventory.boot_time_s,
    now,
    start: guest => startGuest(guest, null),
    stop: guest => stopGuest(guest, 'stopped', 'stopped'),
    setOpen: open => {
      isOpen = open
    },
  })
  const nodeStorage = simulatedNodeStorage(host.pool)

  const tell = (change: HypervisorChange) => {
    for (const listener of [...listeners]) listener(change)
  }
  const find = (uuid: string) => store.guests.get(uuid.toLowerCase())
  const need = (uuid: string): Guest => {
    const guest = find(uuid)
    if (!guest) throw new HypervisorError('VmNotFound', `there is no VM ${uuid}`)
    return guest
  }

  /** Every call passes here: closed connection, configured delay, then the faults asked for around its effect. */
  async function call<T>(name: keyof Hypervisor, uuid: string | undefined, effect: () => T): Promise<T> {
    if (!isOpen) throw new HypervisorError('HypervisorUnavailable', 'the simulated hypervisor is not open')
    if (delays.call > 0) await new Promise(resolve => setTimeout(resolve, delays.call))
    await faults.pass(name, uuid, 'before')
    const result = effect()
    await faults.pass(name, uuid, 'after')
    return result
  }

  const usedMemoryMib = () =>
    [...store.guests.values()].reduce(
      (sum, guest) => sum + (guest.state === 'running' ? (guest.hardware ?? guest.spec).memory_mib : 0),
      0,
    )
  const memoryFreeMib = () => host.memoryMib - reservedMib - usedMemoryMib()
  const capacityBytes = () => [...store.guests.values()].reduce((sum, guest) => sum + bytes.capacity(guest), 0)
  const allocatedBytes = () => [...store.guests.values()].reduce((sum, guest) => sum + bytes.allocated(guest), 0)
  const imagesBytes = () => [...images.values()].reduce((sum, image) => sum + image.allocated_bytes, 0)
  const poolFreeBytes = () => Math.max(0, host.poolBytes - allocatedBytes() - imagesBytes())

  function later(uuid: string, ms: number, act: () => void): void {
    clearTimeout(timers.get(uuid))
    timers.delete(uuid)
    if (!Number.isFinite(ms)) return
    const timer = setTimeout(
      () => {
        timers.delete(uuid)
        act()
      },
      Math.max(0, ms),
    )
    timers.set(uuid, timer)
  }

  function stopGuest(guest: Guest, state: 'stopped' | 'failed', what: string): void {
    if (guest.state !== 'running') return
    clearTimeout(timers.get(guest.spec.uuid))
    timers.delete(guest.spec.uuid)
    Object.assign(guest, { state, domain_id: null, installer: null, hardware: null, modified_at: now() })
    store.save()
    tell({ uuid: guest.spec.uuid, what })
  }

  function startGuest(guest: Guest, installer: Guest['installer']): void {
    if (guest.state === 'running') return
    if (guest.held || guest.incoming) {
      throw new HypervisorError('VmBusy', `the VM ${guest.spec.uuid} is being migrated: it is not started`)
    }
    for (const nic of guest.spec.nics) {
      if (nic.network && !store.networks.has(nic.network)) {
        throw new HypervisorError('NetworkNotFound', `there is no network ${nic.network}`)
      }
    }
    const freeMib = memoryFreeMib()
    if (guest.spec.memory_mib > freeMib) {
      throw new HypervisorError(
        'InsufficientMemory',
        `VM ${guest.spec.uuid} needs ${guest.spec.memory_mib} MiB, the server has ${Math.max(0, freeMib)} MiB free`,
      )
    }
    store.lastDomainId += 1
    Object.assign(guest, {
      state: 'running',
      domain_id: store.lastDomainId,
      boots: guest.boots + 1,
      started_at: now(),
      modified_at: now(),
      installer,
      hardware: hardwareOf(guest),
    })
    store.save()
    if (installer) later(guest.spec.uuid, installer.ends_at - now(), () => stopGuest(guest, 'stopped', 'stopped'))
    tell({ uuid: guest.spec.uuid, what: 'started' })
  }

  const listens = (guest: Guest) => guest.acpi === 'listens' && now() - guest.started_at >= delays.boot

  function checkNics(spec: Pick<VmSpec, 'nics'>): void {
    for (const nic of spec.nics) {
      if (nic.network && !store.networks.has(nic.network)) {
        throw new HypervisorError('NetworkNotFound', `there is no network ${nic.network}`)
      }
      if (nic.network) continue
      if (nic.bridge && !host.bridges().some(bridge => bridge.name === nic.bridge)) {
        throw new HypervisorError('BridgeNotFound', `the server has no Open vSwitch bridge ${nic.bridge}`)
      }
      const tag = nic.nic_tag
      if (!nic.bridge && tag && !host.bridges().some(bridge => bridge.nic_tags.includes(tag))) {
        throw new HypervisorError('NicTagNotFound', `the server has no bridge for nic tag ${tag}`)
      }
    }
  }

  function define(spec: VmSpec, taskId: string, incoming: boolean): void {
    const same = find(spec.uuid)
    if (same?.task_id === taskId) return
    if (same) throw new HypervisorError('VmExists', `the VM ${spec.uuid} exists already`)
    const namesake = [...store.guests.values()].find(guest => guest.spec.name === spec.name)
    if (namesake) throw new HypervisorError('VmExists', `the name ${spec.name} belongs to VM ${namesake.spec.uuid}`)
    checkNics(spec)
    for (const { image } of spec.disks) {
      if (image && !images.has(image)) {
        throw new HypervisorError('ImageNotInstalled', `pool ${host.pool} has no volume ${image}`)
      }
    }
    const wanted = spec.disks.reduce((sum, disk) => sum + disk.size_mib * bytes.mib, 0)
    const free = host.poolBytes - capacityBytes() - imagesBytes()
    if (wanted > free) {
      throw new HypervisorError(
        'InsufficientStorage',
        `the disks need ${wanted} bytes, pool ${host.pool} has ${free} left`,
      )
    }
    const uuid = spec.uuid.toLowerCase()
    store.guests.set(uuid, {
      spec: { ...spec, uuid },
      task_id: taskId,
      ...(incoming ? { incoming } : {}),
      ...(options.guestAgents ? { guest_agent: true } : {}),
      state: 'stopped',
      domain_id: null,
      boots: 0,
      started_at: 0,
      modified_at: now(),
      installer: null,
      acpi: 'listens',
      ...firstContent(imagesKept, spec),
    })
    store.save()
    tell({ uuid, what: 'defined' })
  }

  const usersOf = (network: string) =>
    [...store.guests.values()].filter(guest => guest.spec.nics.some(nic => nic.network === network))

  return {
    kind: 'simulated',
    faults,
    open: async () => {
      await faults.pass('open', undefined, 'before')
      isOpen = true
      power.catchUp()
      for (const guest of store.guests.values()) {
        if (guest.installer) {
          later(guest.spec.uuid, guest.installer.ends_at - now(), () => stopGuest(guest, 'stopped', 'stopped'))
        }
      }
    },
    close: async () => {
      isOpen = false
      for (const timer of timers.values()) clearTimeout(timer)
      timers.clear()
      listeners.clear()
    },
    ping: () => call('ping', undefined, () => undefined),
    onChange: listener => {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },

    inventory: () =>
      call('inventory', undefined, (): HostInventory => {
        const available = host.memoryMib - reservedMib - usedMemoryMib()
        const pool = { name: host.pool, size_bytes: host.poolBytes, available_bytes: poolFreeBytes() }
        return {
          ...host.inventory,
          hostname: power.hostname() ?? host.inventory.hostname,
          boot_time_s: power.boot().time_s,
          bridges: host.bridges(),
          memory_available_mib: available,
          pools: nodeStorage.isThere() ? [pool] : [],
        }
      }),
    listVms: () => call('listVms', undefined, () => [...store.guests.values()].map(vmState)),
    loadVm: uuid =>
      call('loadVm', uuid, () => {
        const guest = find(uuid)
        return guest && vmDetail(guest)
      }),
    storage: () =>
      call('storage', undefined, () => ({
        pool: nodeStorage.needPool(),
        size_bytes: host.poolBytes,
        available_bytes: poolFreeBytes(),
        vm_capacity_bytes: capacityBytes(),
        vm_allocated_bytes: allocatedBytes(),
        images_bytes: imagesBytes(),
      })),

    defineVm: (spec, { taskId, incoming = false }) => call('defineVm', spec.uuid, () => define(spec, taskId, incoming)),
    ...simulatedMigrations({ call, need, save: store.save, tell }),
    ...simulatedLiveMigrations({
      ...{ call, need, tell, now, save: store.save, memoryFreeMib },
      nextDomainId: () => {
        store.lastDomainId += 1
        return store.lastDomainId
      },
    }),
    startVm: uuid => call('startVm', uuid, () => startGuest(need(uuid), null)),
    startInstaller: (uuid, { cmdline }) =>
      call('startInstaller', uuid, () => startGuest(need(uuid), { cmdline, ends_at: now() + delays.install })),
    pressPowerButton: uuid =>
      call('pressPowerButton', uuid, () => {
        const guest = need(uuid)
        if (guest.state === 'running' && listens(guest)) {
          later(guest.spec.uuid, delays.acpi, () => stopGuest(guest, 'stopped', 'stopped'))
        }
      }),
    powerOff: uuid => call('powerOff', uuid, () => stopGuest(need(uuid), 'stopped', 'stopped')),
    requestReboot: uuid =>
      call('requestReboot', uuid, () => {
        const guest = running(need(uuid))
        if (listens(guest)) later(guest.spec.uuid, delays.acpi, () => restart(guest))
      }),
    resetVm: uuid => call('resetVm', uuid, () => restart(running(need(uuid)))),
    removeVm: uuid =>
      call('removeVm', uuid, () => {
        const guest = find(uuid)
        if (!guest) return
        stopGuest(guest, 'stopped', 'stopped')
        store.guests.delete(guest.spec.uuid)
        store.save()
        tell({ uuid: guest.spec.uuid, what: 'undefined' })
      }),

    ...simulatedDevices({
      ...{ call, need, tell, now, checkNics },
      imageMib: name => (images.has(name) ? Math.ceil((images.get(name)?.size_bytes ?? 0) / bytes.mib) : undefined),
      save: () => store.save(),
      poolFreeMib: () => Math.floor((host.poolBytes - capacityBytes() - imagesBytes()) / bytes.mib),
      memoryFreeMib,
    }),
    ...simulatedInside({ call, need, now, save: () => store.save() }),
    ...simulatedFindings({
      ...{ call, find, need, nicTags: options.nicTags ?? simulatedNicTags },
      save: () => store.save(),
      network: name => store.networks.get(name),
    }),
    ...simulatedImaging({
      ...{ call, need, tell, now, store: imagesKept, freeBytes: poolFreeBytes, save: () => store.save() },
      start: guest => startGuest(guest, null),
      stop: guest => stopGuest(guest, 'stopped', 'stopped'),
    }),

    makePool: () => call('makePool', undefined, nodeStorage.make),
    // Guests have no volumes apart from themselves here, so none can be left over.
    removeLeftovers: () => call('removeLeftovers', undefined, () => []),

    ...simulatedImages({ store: imagesKept, guests: () => store.guests.values(), freeBytes: poolFreeBytes, call }),

    listNetworks: () => call('listNetworks', undefined, () => [...store.networks.values()]),
    createNetwork: network =>
      call('createNetwork', undefined, () => {
        const there = store.networks.get(network.name)
        if (there?.bridge === network.bridge && there.vlan === network.vlan) return
        if (there) throw new HypervisorError('NetworkExists', `the network ${network.name} exists already`)
        if (!host.bridges().some(bridge => bridge.name === network.bridge)) {
          throw new HypervisorError('BridgeNotFound', `the server has no Open vSwitch bridge ${network.bridge}`)
        }
        store.networks.set(network.name, { state: 'active', autostart: 'yes', persistent: 'yes', ...network })
        store.save()
        tell({ what: 'network' })
      }),
    deleteNetwork: name =>
      call('deleteNetwork', undefined, () => {
        if (!store.networks.has(name)) throw new HypervisorError('NetworkNotFound', `there is no network ${name}`)
        const users = usersOf(name).map(guest => guest.spec.name)
        if (users.length > 0)
          throw new HypervisorError('NetworkInUse', `network ${name} is used by ${users.join(', ')}`)
        store.networks.delete(name)
        store.save()
        tell({ what: 'network' })
      }),

    world: {
      crash: uuid => stopGuest(need(uuid), 'failed', 'crashed'),
      guestPowersOff: uuid => stopGuest(need(uuid), 'stopped', 'stopped'),
      setAcpi: (uuid, manner) => {
        need(uuid).acpi = manner
        store.save()
      },
      finishInstaller: uuid => {
        const guest = need(uuid)
        if (!guest.installer) throw new Error(`no installer runs in VM ${uuid}`)
        stopGuest(guest, 'stopped', 'stopped')
      },
      addImage: (name, sizeMib) => void images.set(name, wholeImage(sizeMib)),
      removeImage: name => void images.delete(name),
      reconnect: () => tell({ what: 'reconnected' }),
      power,
      removePool: nodeStorage.remove,
      guest: uuid => find(uuid),
      ...contentWorld(need, () => store.save()),
    },
  }

  /** A guest that reboots; one whose installer runs stops instead, because its definition says so for that one start. */
  function restart(guest: Guest): void {
    if (guest.state !== 'running') return
    if (guest.installer) {
      stopGuest(guest, 'stopped', 'stopped')
      return
    }
    Object.assign(guest, { boots: guest.boots + 1, started_at: now(), modified_at: now() })
    store.save()
    tell({ uuid: guest.spec.uuid, what: 'rebooted' })
  }

  function running(guest: Guest): Guest {
    if (guest.state !== 'running') throw new HypervisorError('VmNotRunning', `the VM ${guest.spec.uuid} is not running`)
    return guest
  }
}
