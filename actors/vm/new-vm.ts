/** A VM of which nothing is known yet. */
import type { VmContext } from '../contract/vm.ts'

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
