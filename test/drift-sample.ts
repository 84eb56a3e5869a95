/** A VM with drift on a fake backend: its record wants 256 MiB, its node has 512. */
import type { FoundVm } from '../actors/contract/found.ts'
import type { VmContext } from '../actors/contract/vm.ts'
import { newVm } from '../actors/vm/new-vm.ts'
import { type FakeBackend, SERVER, VM } from './fake-backend.ts'

const nic = { mac: '52:54:00:12:34:56', nic_tag: 'admin', vlan_id: 10 }

export const wantedVm: VmContext = {
  ...newVm(VM),
  server_uuid: SERVER,
  name: 'one',
  ram: 256,
  disks: [{ size_mib: 1024, image: 'debian-12' }, { size_mib: 512 }],
  nics: [{ ...nic, ip: '10.0.0.1', primary: true }],
  autoboot: true,
  tags: { role: 'web' },
  created_at: 1,
}

/** As it is wanted. */
export const foundVm: FoundVm = {
  uuid: VM,
  name: 'one',
  state: 'running',
  changed_at: 1_000,
  definition: {
    ...{ ram: 256, vcpus: 1, autoboot: true, alias: null, owner_uuid: null, cpu_cap: null, quota: null },
    tags: { role: 'web' },
    disks: [
      { slot: 0, size_mib: 1024, image: 'debian-12' },
      { slot: 1, size_mib: 512 },
    ],
    nics: [nic],
  },
  ports: [{ mac: nic.mac, interface: 'vnet0', as: { bridge: 'br0', vlan_id: 10 }, is: { bridge: 'br0', vlan_id: 10 } }],
  pending: [],
}

export function withDrift(backend: FakeBackend): void {
  const found = { ...foundVm, definition: { ...foundVm.definition, ram: 512 }, since: { ram: 2_000 } }
  backend.reads.set('machine_found', { value: { at: 10_000, vms: [found], unread: [] } })
  const record = (id: string) => (id === VM ? { state: 'running', snapshot: { context: wantedVm } } : null)
  backend.answers.set('vm.get', ({ id }) => ({ value: record(id) }))
}
