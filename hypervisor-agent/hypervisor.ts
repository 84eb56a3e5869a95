/**
 * What the agent needs of a hypervisor: primitives without policy. Deadlines, repeats of the power button and the order of steps
 * belong to the tasks; `libvirt/` and `simulated/` implement this and are held by one conformance suite.
 *
 * Every call may be repeated: what is done already is success. Failures are `HypervisorError`s with a code of table ERRORS.
 * A call for one VM never waits for another VM; the listings never wait for a guest that hangs.
 */
import type { ErrorCode } from '../actors/contract/errors.ts'
import type { NetworkSummary, Platform } from '../actors/contract/server.ts'
import type { VmSpec, VmSummary } from '../actors/contract/vm.ts'
import type { Devices } from './devices.ts'
import type { Findings } from './findings.ts'
import type { GuestPrograms } from './guest-programs.ts'
import type { GuestScripts } from './guest-scripts.ts'
import type { ImageCapture } from './images/capture.ts'
import type { ImageVolumes } from './images/volumes.ts'
import type { LiveMigrations } from './live-migrations.ts'
import type { Migrations } from './migrations.ts'
import type { NodeStorage } from './node-storage.ts'
import type { Processes } from './processes.ts'
import type { Snapshots } from './snapshots.ts'
import type { VmStats } from './vm-stats.ts'

export interface Hypervisor
  extends Devices,
    Findings,
    Processes,
    ImageVolumes,
    NodeStorage,
    GuestScripts,
    ImageCapture,
    Migrations,
    LiveMigrations,
    GuestPrograms,
    VmStats,
    Snapshots {
  readonly kind: 'libvirt' | 'simulated'

  /** Connects and registers for events before it resolves; throws HypervisorUnavailable with a line an operator can act on. */
  open(): Promise<void>
  close(): Promise<void>
  /** Resolves if the hypervisor answers now; for the watchdog and the status. */
  ping(): Promise<void>
  /** Calls back on every lifecycle change; `uuid` is absent when anything may have changed (after a reconnect). Returns the way to stop. */
  onChange(listener: (change: HypervisorChange) => void): () => void

  /** Host CPU, memory, storage, bridges and versions. */
  inventory(): Promise<HostInventory>
  /** All VMs, stopped ones too, ordered or not. */
  listVms(): Promise<VmState[]>
  /** One VM with what a person wants to know of it; undefined if there is none. */
  loadVm(uuid: string): Promise<VmDetail | undefined>
  /** Pool figures for the status event, bytes. */
  storage(): Promise<StorageFigures>

  /**
   * Makes the volumes and the definition, not started. `taskId` is kept with the definition: the same again completes what is missing,
   * another one is VmExists (also for a name in use). ImageNotInstalled, InsufficientStorage, NetworkNotFound, NicTagNotFound, BridgeNotFound.
   * `incoming`: its disks come from elsewhere (migrations.ts), and it cannot be started before it is completed.
   */
  defineVm(spec: VmSpec, options: { taskId: string; incoming?: boolean }): Promise<void>
  /** Starts it from its disks. A running VM is success. VmNotFound, NetworkNotFound, InsufficientMemory. */
  startVm(uuid: string): Promise<void>
  /** Starts it once from this kernel, so that its reboot stops it; its definition boots from disk. */
  startInstaller(uuid: string, installer: Installer): Promise<void>
  /** Presses the ACPI power button. Returns at once, whether or not the guest listens. */
  pressPowerButton(uuid: string): Promise<void>
  /** Stops it now: `graceful` lets QEMU end by SIGTERM, else it is killed. A stopped VM is success. */
  powerOff(uuid: string, options: { graceful: boolean }): Promise<void>
  /** Asks the guest to reboot, by ACPI. */
  requestReboot(uuid: string): Promise<void>
  /** Resets it as the button does. */
  resetVm(uuid: string): Promise<void>
  /** Removes definition and the volumes made for this VM, stopping it first. An absent VM is success. */
  removeVm(uuid: string): Promise<void>

  listNetworks(): Promise<NetworkSummary[]>
  /** Defined, autostarted and active. NetworkExists, BridgeNotFound. */
  createNetwork(network: { name: string; bridge: string; vlan: number }): Promise<void>
  /** NetworkNotFound, NetworkInUse (naming the VMs). */
  deleteNetwork(name: string): Promise<void>
}

export interface HypervisorChange {
  uuid?: string
  /** e.g. started, stopped, rebooted, crashed, defined, undefined, network, reconnected */
  what: string
}

/** A VM as listed. `created_by`: the task that defined it, if Muster did. `boots`: times it was started, where known. */
export interface VmState extends VmSummary {
  state: 'running' | 'stopped' | 'failed'
  name: string
  created_by?: string
  /** The migration that holds it: it cannot be started. */
  held_by?: string
}

export interface VmDetail extends VmState {
  memory_mib: number
  vcpus: number
  autostart: boolean
  disks: { target: string; path: string; size_bytes: number; allocated_bytes?: number; image?: string }[]
  nics: {
    mac: string
    network?: string
    bridge?: string
    nic_tag?: string
    vlan?: number
    model?: string
    interface?: string
  }[]
  vnc?: { host: string; port: number }
  console_log?: string
  pid?: number
}

export interface Installer {
  kernelPath: string
  initrdPath: string
  cmdline: string
}

export interface HostInventory {
  hostname: string
  cpu_model: string
  cpu_cores: number
  cpu_online: number
  memory_mib: number
  memory_available_mib: number
  boot_time_s: number
  disks: { name: string; size_bytes: number }[]
  /** `bridge`: the Open vSwitch bridge that it is a port of. */
  nics: { name: string; mac: string; address?: string; link: 'up' | 'down' | 'unknown'; bridge?: string }[]
  /** Open vSwitch bridges and the nic tags that lead to them. */
  bridges: { name: string; nic_tags: string[] }[]
  pools: { name: string; path?: string; size_bytes: number; available_bytes: number }[]
  /** What is installed for it to boot. */
  platforms: Platform[]
  versions: { hypervisor?: string; libvirt?: string; qemu?: string; openvswitch?: string; kernel: string; os: string }
}

export interface StorageFigures {
  pool: string
  size_bytes: number
  available_bytes: number
  /** Sum of the capacities of VM volumes, and what they really take. */
  vm_capacity_bytes: number
  vm_allocated_bytes: number
  images_bytes: number
}

/** A refusal or fault of the hypervisor; `code` is stable, `message` says what was being done. */
export class HypervisorError extends Error {
  readonly code: ErrorCode
  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.name = 'HypervisorError'
    this.code = code
  }
}
