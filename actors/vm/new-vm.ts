/** A VM of which nothing is known yet, and what a record takes over of it later. */
import type { VmContext } from '../contract/vm.ts'
import type { Wanted } from '../contract/vm-changes.ts'

export function newVm(uuid: string): VmContext {
  return {
    uuid,
    server_uuid: '',
    name: uuid,
    alias: null,
    owner_uuid: null,
    brand: 'kvm',
    ram: 0,
    vcpus: 1,
    cpu_cap: null,
    quota: null,
    image_uuid: null,
    disks: [],
    nics: [],
    host_key: null,
    discovered: false,
    created_at: 0,
    modified_at: 0,
    observed: null,
    operation: null,
    before: null,
    waiting: [],
    failure: null,
    settled_at: 0,
  }
}

/** What an operation has made of a VM, as changes of its record. */
export function adopted(wanted: Wanted | undefined): Partial<VmContext> {
  return Object.fromEntries(Object.entries(wanted ?? {}).filter(([, value]) => value !== undefined))
}
