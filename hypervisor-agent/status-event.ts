/** One status event: the VMs of the node as they are now, memory and pool, with CNAPI's field names (cnapi-behaviour §3.2). */
import type { StatusEvent } from '../actors/contract/server.ts'
import type { VmSummary } from '../actors/contract/vm.ts'
import { healthOf } from './health.ts'
import type { HostInventory, Hypervisor, StorageFigures } from './hypervisor.ts'
import type { Installs } from './install/installs.ts'

export interface StatusContext {
  hypervisor: Hypervisor
  installs: Installs
  /** VMs that are being made now, and the task that makes each: not stopped, but on their way. */
  creating(): Map<string, string>
  /** ms since the epoch. */
  now(): number
}

const mib = 1024 * 1024

/** Takes the sample. Its time is that of its beginning, so that what a task did meanwhile counts as newer. */
export async function takeStatus({ hypervisor, installs, creating, now }: StatusContext): Promise<StatusEvent> {
  const timestamp = new Date(now()).toISOString()
  const underWay = creating()
  const [listed, host, pool] = await Promise.all([hypervisor.listVms(), hypervisor.inventory(), hypervisor.storage()])
  const vms: Record<string, VmSummary> = {}
  for (const vm of listed) {
    const maker = underWay.get(vm.uuid.toLowerCase())
    const isBeingMade = vm.state !== 'running' && maker !== undefined && maker === vm.created_by
    vms[vm.uuid] = isBeingMade ? { ...vm, state: 'provisioning' } : installs.annotate(vm)
  }
  return {
    vms,
    meminfo: memoryOf(host),
    diskinfo: diskOf(pool),
    zpoolStatus: {
      [pool.pool]: { bytes_available: pool.available_bytes, bytes_used: pool.size_bytes - pool.available_bytes },
    },
    health: healthOf(host, timestamp),
    boot_time: new Date(host.boot_time_s * 1000).toISOString(),
    timestamp,
  }
}

function memoryOf(host: HostInventory) {
  return {
    availrmem_bytes: host.memory_available_mib * mib,
    arcsize_bytes: 0,
    total_bytes: host.memory_mib * mib,
  }
}

/** Volumes of VMs stand where CNAPI has zvols; what a Linux host has none of is zero. */
function diskOf(pool: StorageFigures) {
  const allocated = pool.size_bytes - pool.available_bytes
  return {
    kvm_zvol_used_bytes: pool.vm_allocated_bytes,
    kvm_zvol_volsize_bytes: pool.vm_capacity_bytes,
    kvm_quota_bytes: 0,
    kvm_quota_used_bytes: 0,
    zone_quota_bytes: 0,
    zone_quota_used_bytes: 0,
    cores_quota_bytes: 0,
    cores_quota_used_bytes: 0,
    installed_images_used_bytes: pool.images_bytes,
    pool_size_bytes: pool.size_bytes,
    pool_alloc_bytes: allocated,
    system_used_bytes: Math.max(0, allocated - pool.vm_allocated_bytes - pool.images_bytes),
  }
}
