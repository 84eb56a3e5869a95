/**
 * The whole VM object, with the field names clients of CNAPI know from vmadm: sizes in MiB but `quota` (GiB) and `cpu_cap` (percent of
 * a core), then what a libvirt host has beyond that.
 */
import { HypervisorError, type VmDetail } from '../hypervisor.ts'
import type { ReadHandlers } from './read.ts'

export const machine_load: ReadHandlers['machine_load'] = async ({ hypervisor, installs, serverUuid }, { uuid }) => {
  const found = await hypervisor.loadVm(uuid)
  if (!found) throw new HypervisorError('VmNotFound', `there is no VM ${uuid} on this server`)
  const vm = installs.annotate(found)
  return {
    ...vm,
    alias: vm.alias ?? vm.name,
    zonename: vm.uuid,
    zoneid: vm.domain_id ?? null,
    zone_state: vm.zone_state ?? vm.state,
    server_uuid: serverUuid,
    hvm: true,
    autoboot: vm.autostart,
    ram: vm.memory_mib,
    max_physical_memory: vm.max_physical_memory ?? vm.memory_mib,
    cpu_cap: vm.cpu_cap ?? null,
    owner_uuid: vm.owner_uuid ?? null,
    brand: vm.brand ?? 'kvm',
    disks: vm.disks.map(diskOf),
    nics: vm.nics.map(nicOf),
    customer_metadata: vm['customer_metadata'] ?? {},
    internal_metadata: vm['internal_metadata'] ?? {},
    tags: vm['tags'] ?? {},
  }
}

function diskOf({ target, path, size_bytes, allocated_bytes, image }: VmDetail['disks'][number], n: number) {
  return {
    path,
    target,
    boot: n === 0,
    media: 'disk',
    model: 'virtio-scsi',
    size: Math.floor(size_bytes / 1024 ** 2),
    ...(allocated_bytes === undefined ? {} : { allocated_bytes }),
    ...(image === undefined ? {} : { image_name: image }),
  }
}

function nicOf({ vlan, ...nic }: VmDetail['nics'][number], n: number) {
  return { ...nic, primary: n === 0, ...(vlan === undefined ? {} : { vlan_id: vlan }) }
}
