/** A VM as listings show it: CNAPI's nine fields (cnapi-behaviour §9.1), its alias, and virsh's words for the compute agent's API. */
import type { Vm } from './backend.ts'

const nobody = '00000000-0000-0000-0000-000000000000'

/** quota in GiB, max_physical_memory in MiB, cpu_cap in percent of a core. A VM without an owner has the nil UUID. */
export function shownVm(vm: Vm) {
  return {
    uuid: vm.uuid,
    owner_uuid: vm.owner_uuid ?? nobody,
    ...(vm.alias === null ? {} : { alias: vm.alias }),
    brand: vm.brand,
    cpu_cap: vm.cpu_cap,
    max_physical_memory: vm.ram,
    quota: vm.quota ?? 0,
    state: vm.state,
    zone_state: zoneStates[vm.state] ?? vm.state,
    last_modified: new Date(vm.modified_at).toISOString(),
  }
}

/** A zone that does not run is `installed`. */
const zoneStates: Record<string, string> = { stopped: 'installed', failed: 'installed', provisioning: 'incomplete' }

/** As `virsh list` shows a domain: its number while it runs, else `-`, and virsh's word for its state. */
export function shownHost(vm: Vm) {
  return {
    id: vm.domain_id === null ? '-' : String(vm.domain_id),
    name: vm.name,
    state: vm.domain_state ?? virshStates[vm.state] ?? 'no state',
  }
}

/** Before the node has said its own word. */
const virshStates: Record<string, string> = { running: 'running', stopped: 'shut off', failed: 'crashed' }
