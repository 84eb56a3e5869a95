/** The `Hypervisor` of a real node: libvirt, QEMU and Open vSwitch. */
import { type Domain, Hypervisor as Libvirt } from 'node-libvirt'
import { type Hypervisor, type HypervisorChange, HypervisorError } from '../hypervisor.ts'
import type { OpenVswitch } from '../openvswitch/bridges.ts'
import { type PortTags, portTags } from '../openvswitch/tags.ts'
import { type Connections, connections } from './connections.ts'
import { defineVm, lookup, powerOff, removeVm } from './definition.ts'
import { libvirtDevices } from './devices.ts'
import { type DomainType, installerXml } from './domain-xml.ts'
import { failure } from './failures.ts'
import { libvirtFindings } from './findings.ts'
import { libvirtGuestPrograms } from './guest-programs.ts'
import { hasGuestAgent, runInGuest } from './guest-scripts.ts'
import { hostInventory, hostMemory } from './host.ts'
import { captureImage, readImage } from './image-capture.ts'
import { installImage, listImages, removeImage } from './images.ts'
import { libvirtLiveMigrations } from './live-migrations.ts'
import { libvirtMigrations } from './migrations.ts'
import { createNetwork, deleteNetwork, listNetworks } from './networks.ts'
import { makePool, removeLeftovers } from './node-storage.ts'
import { listThreads } from './processes.ts'
import { createSnapshot, deleteSnapshot, listSnapshots, rollbackSnapshot } from './snapshots.ts'
import { vmStats } from './vm-stats.ts'
import { type Vms, vms } from './vms.ts'
import { openPool, storageFigures } from './volumes.ts'
import { readDomain } from './xml-reading.ts'

export interface LibvirtOptions {
  /** `qemu:///system`. */
  uri: string
  socketPath: string
  /** `kvm`, or `qemu` for TCG. Not taken from the capabilities: a host can offer a KVM that must not be used. */
  domainType: DomainType
  /** Pool of disks and images; made as a folder at `poolPath` where it is absent. */
  pool: string
  poolPath: string
  /** Where virtlogd writes the guests' serial consoles; libvirt's rules must allow it. */
  consoleFolder: string
  /** Nic tag -> bridge. */
  nicTags: Record<string, string>
  openvswitch: OpenVswitch
  /** VLANs of the switch's ports; this host's own without it. */
  portTags?: PortTags
  deadlines?: Partial<typeof defaultDeadlines>
}

const defaultDeadlines = {
  /** A call that only looks, ms. */
  lookDeadlineMs: 10_000,
  /** A call that works on a VM, ms. libvirt itself waits 30 s for a guest's lock; stopping a hung QEMU takes 12 s. */
  workDeadlineMs: 90_000,
  /** How long a call that works on something waits for a libvirtd that restarts, ms: with many guests it takes a while. */
  returnWithinMs: 60_000,
  pingDeadlineMs: 5_000,
}

/** Left to the host when a VM starts, MiB. */
const reservedMib = 256

/** Call `open()` before use. */
export function libvirtHypervisor(options: LibvirtOptions): Hypervisor {
  const deadlines = { ...defaultDeadlines, ...options.deadlines }
  const listeners = new Set<(change: HypervisorChange) => void>()
  let opened: { connections: Connections; vms: Vms } | undefined

  const tell = (change: HypervisorChange) => {
    for (const listener of [...listeners]) listener(change)
  }
  const need = () => {
    if (opened) return opened
    throw new HypervisorError('HypervisorUnavailable', 'the connection to libvirt is not open')
  }
  const definition = {
    ...options,
    bridges: () => options.openvswitch.bridges(),
  }

  type Action<T> = (now: { connections: Connections; vms: Vms }) => Promise<T>

  /** Every call passes here: it survives a restart of libvirtd for so long, and fails in Muster's words. */
  async function call<T>(doing: string, action: Action<T>, returnWithinMs = deadlines.returnWithinMs): Promise<T> {
    try {
      const now = need()
      return await now.connections.survive(() => action(now), returnWithinMs)
    } catch (error) {
      throw failure(doing, error)
    }
  }
  const look = <T>(doing: string, action: Action<T>) => call(doing, action, deadlines.lookDeadlineMs)
  /** On the domain of a VM, which must exist. */
  const act = <T>(
    doing: string,
    uuid: string,
    action: (domain: Domain, libvirt: Libvirt) => Promise<T>,
    how?: { urgent: boolean },
  ) =>
    call(`${doing} VM ${uuid}`, ({ connections }) =>
      connections.work(
        uuid.toLowerCase(),
        async libvirt => {
          const domain = await lookup(libvirt, uuid)
          if (!domain) throw new HypervisorError('VmNotFound', `there is no VM ${uuid}`)
          return action(domain, libvirt)
        },
        how,
      ),
    )

  async function open(): Promise<void> {
    const made = await connections({ ...deadlines, uri: options.uri, socketPath: options.socketPath })
    try {
      const known = vms(() => made.look, options.pool)
      listen(made.events, known)
      await made.events.subscribe('domain', 'reboot', 'network')
      await openPool(made.look, { name: options.pool, path: options.poolPath })
      opened = { connections: made, vms: known }
    } catch (error) {
      await made.close()
      throw failure('use libvirt', error)
    }
  }

  function listen(libvirt: Libvirt, known: Vms): void {
    libvirt.on('domain', event => {
      known.noteEvent(event)
      const failed = event.event === 'stopped' && (event.detail === 'failed' || event.detail === 'crashed')
      tell({ uuid: event.uuid, what: failed ? 'crashed' : event.event })
    })
    libvirt.on('reboot', ({ uuid }) => tell({ uuid, what: 'rebooted' }))
    libvirt.on('network', () => tell({ what: 'network' }))
    libvirt.on('reconnect', () => {
      known.forget()
      tell({ what: 'reconnected' })
    })
  }

  /** The power button exists on QEMU's machines only; the test driver's domains are asked without naming a way. */
  const acpi = () => (need().connections.driver === 'QEMU' ? { acpi: true } : {})

  async function running(domain: Domain): Promise<void> {
    if (await domain.isActive()) return
    throw new HypervisorError('VmNotRunning', `the VM ${domain.uuid} is not running`)
  }

  async function start(domain: Domain, libvirt: Libvirt): Promise<void> {
    const { state } = await domain.getState()
    if (state === 'paused') {
      await checkStays(domain)
      return domain.resume()
    }
    if (await domain.isActive()) return
    await checkStart(domain)
    try {
      await domain.create()
    } catch (error) {
      // Somebody else was quicker, or the answer to an earlier try was lost.
      if (!(await (await lookup(libvirt, domain.uuid))?.isActive())) throw error
    }
  }

  /** Neither half made nor on its way to another node. Answers its memory, MiB. */
  async function checkStays(domain: Domain): Promise<number> {
    const { metadata, memoryMib } = readDomain(await domain.getXml({ inactive: true }))
    if (metadata && !metadata.complete) {
      throw new HypervisorError('VmBusy', `the VM ${domain.uuid} was not made completely: create or destroy it first`)
    }
    if (metadata?.held) {
      throw new HypervisorError('VmBusy', `the VM ${domain.uuid} is being migrated: it is not started`)
    }
    return memoryMib
  }

  async function checkStart(domain: Domain): Promise<void> {
    await needMemory(domain.uuid, await checkStays(domain))
  }

  async function needMemory(uuid: string, mib: number): Promise<void> {
    const { memory_available_mib: available } = await hostMemory()
    if (mib <= available - reservedMib) return
    const free = Math.max(0, available - reservedMib)
    throw new HypervisorError('InsufficientMemory', `VM ${uuid} needs ${mib} MiB, the server has ${free} MiB free`)
  }

  /** While a stream is not read its connection answers nothing else. */
  const connectForBytes = () =>
    Libvirt.connect({ uri: options.uri, socketPath: options.socketPath, keepalive: false, reconnect: false })
  const { live, drop: dropLive } = libvirtLiveMigrations({
    act,
    connect: () =>
      Libvirt.connect({
        uri: options.uri,
        socketPath: options.socketPath,
        callDeadlineMs: deadlines.workDeadlineMs,
        reconnect: false,
      }),
    driver: () => need().connections.driver,
    needMemory,
    failure,
  })

  return {
    kind: 'libvirt',
    open,
    close: async () => {
      const closing = opened
      opened = undefined
      listeners.clear()
      await dropLive()
      await closing?.connections.close()
    },
    ping: () => call('ping', ({ connections }) => connections.look.ping({ deadlineMs: deadlines.pingDeadlineMs }), 0),
    onChange: listener => {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },

    inventory: () =>
      look('take the inventory', ({ connections }) =>
        hostInventory(connections.look, connections.driver, { ...options, hypervisor: options.domainType }),
      ),
    listVms: () => look('list the VMs', ({ vms }) => vms.list()),
    loadVm: uuid => look(`load VM ${uuid}`, ({ vms }) => vms.load(uuid)),
    storage: () =>
      look('read the storage figures', ({ connections }) => storageFigures(connections.look, options.pool)),

    defineVm: (spec, { taskId, incoming = false }) =>
      call(`define VM ${spec.uuid}`, async ({ connections, vms }) => {
        await connections.work(spec.uuid.toLowerCase(), libvirt =>
          defineVm(libvirt, spec, taskId, definition, { incoming }),
        )
        // libvirt tells of the definition, but not that its metadata was completed.
        vms.forget(spec.uuid)
      }),
    startVm: uuid => act('start', uuid, start),
    startInstaller: (uuid, installer) =>
      act('start the installer of', uuid, async (domain, libvirt) => {
        if (await domain.isActive()) return
        await checkStart(domain)
        // A domain that is defined keeps its definition beside the one it is started with here.
        await libvirt.createDomain(installerXml(await domain.getXml({ inactive: true, secure: true }), installer))
      }),
    pressPowerButton: uuid =>
      act('press the power button of', uuid, async domain => {
        if (await domain.isActive()) await domain.shutdown(acpi())
      }),
    powerOff: (uuid, how) => act('power off', uuid, domain => powerOff(domain, how), { urgent: true }),
    requestReboot: uuid =>
      act('reboot', uuid, async domain => {
        await running(domain)
        await domain.reboot(acpi())
      }),
    resetVm: uuid =>
      act('reset', uuid, async domain => {
        await running(domain)
        await domain.reset()
        tell({ uuid: domain.uuid, what: 'rebooted' })
      }),
    removeVm: uuid =>
      call(`remove VM ${uuid}`, async ({ connections }) => {
        await dropLive(uuid)
        // Stopping does not wait for calls that hang with the guest; the rest comes after them.
        const stop = async (libvirt: Libvirt) => {
          const domain = await lookup(libvirt, uuid)
          if (domain) await powerOff(domain, { graceful: false })
        }
        await connections.work(uuid.toLowerCase(), stop, { urgent: true })
        await connections.work(uuid.toLowerCase(), libvirt => removeVm(libvirt, uuid, options))
      }),

    ...libvirtMigrations({
      act,
      connect: connectForBytes,
      failure,
      pool: options.pool,
      forget: uuid => need().vms.forget(uuid),
    }),
    ...live,
    ...libvirtDevices({ act, options: definition, reservedMib, forget: uuid => need().vms.forget(uuid) }),
    ...libvirtFindings({
      look: (doing, action) => look(doing, ({ connections }) => action(connections.look)),
      changedAt: uuid => need().vms.changedAt(uuid),
      options: definition,
      switchPorts: options.portTags ?? portTags(),
    }),
    listThreads: uuid =>
      look(`list the threads of VM ${uuid}`, async ({ connections }) => {
        const domain = await lookup(connections.look, uuid)
        if (!domain) throw new HypervisorError('VmNotFound', `there is no VM ${uuid}`)
        return listThreads(domain, connections.look)
      }),
    vmStats: uuid => look(`read the statistics of VM ${uuid}`, ({ connections }) => vmStats(connections.look, uuid)),
    ...libvirtGuestPrograms({ act }),
    listSnapshots: uuid =>
      look(`list the snapshots of VM ${uuid}`, async ({ connections }) => {
        const domain = await lookup(connections.look, uuid)
        if (!domain) throw new HypervisorError('VmNotFound', `there is no VM ${uuid}`)
        return listSnapshots(domain)
      }),
    createSnapshot: (uuid, wanted) =>
      act('take a snapshot of', uuid, (domain, libvirt) => createSnapshot(domain, libvirt, wanted, options.pool)),
    rollbackSnapshot: async (uuid, name) => {
      await act('roll back', uuid, domain => rollbackSnapshot(domain, name, checkStart))
      // libvirt tells of the definition, but not that its metadata was completed.
      need().vms.forget(uuid)
    },
    deleteSnapshot: (uuid, name) => act('delete a snapshot of', uuid, domain => deleteSnapshot(domain, name)),

    captureImage: (uuid, image) =>
      act('make an image of', uuid, (domain, libvirt) => captureImage(domain, libvirt, options.pool, image)),
    readImage: name =>
      look(`read image ${name}`, ({ connections }) => readImage(connections.look, connectForBytes, options.pool, name)),
    hasGuestAgent: uuid => act('look for the guest agent of', uuid, hasGuestAgent),
    runInGuest: (uuid, script, { timeoutMs }) =>
      act('run a script in', uuid, domain => runInGuest(domain, script, timeoutMs)),

    listImages: () => look('list the images', ({ connections }) => listImages(connections.look, options.pool)),
    installImage: (name, file, how) =>
      call(`install image ${name}`, ({ connections }) =>
        connections.work(`image ${name}`, libvirt => installImage(libvirt, options.pool, name, file, how)),
      ),
    removeImage: name =>
      call(`remove image ${name}`, ({ connections }) =>
        connections.work(`image ${name}`, libvirt => removeImage(libvirt, options.pool, name)),
      ),

    makePool: () =>
      call('make the storage pool', ({ connections }) =>
        makePool(connections.look, { name: options.pool, path: options.poolPath }),
      ),
    removeLeftovers: () =>
      call('remove what VMs have left', ({ connections }) => removeLeftovers(connections.look, options.pool)),

    listNetworks: () => look('list the networks', ({ connections }) => listNetworks(connections.look)),
    createNetwork: network =>
      call(`create network ${network.name}`, async ({ connections }) =>
        createNetwork(connections.look, network, await options.openvswitch.bridges()),
      ),
    deleteNetwork: name => call(`delete network ${name}`, ({ connections }) => deleteNetwork(connections.look, name)),
  }
}
