/** What a VM's record takes over of what is found or made of the VM: the parts that are named, and never in the middle of an operation. */
import * as assert from 'uvu/assert'
import type { VmContext } from '../../actors/contract/vm.ts'
import { adopted } from '../../actors/vm/adopted.ts'
import { newVm } from '../../actors/vm/new-vm.ts'
import { suite } from '../suite.ts'
import { complete, type Fleet, makeFleet, registered, SERVER, taskId, VM, withRunningVm } from './fleet.ts'

const test = suite('adoption')
const mac = (n: number) => `52:54:00:00:00:0${n}`
const contextOf = (fleet: Fleet) => fleet.record('vm', VM).snapshot.context as unknown as VmContext
const fleetOfOne = () => {
  const fleet = makeFleet()
  registered(fleet)
  return fleet
}
const running = () => {
  const fleet = fleetOfOne()
  withRunningVm(fleet)
  return fleet
}

test('fields that are not named stay as they are wanted', () => {
  const context = { ...newVm(VM), ram: 128, alias: 'a', vcpus: 1 }
  assert.equal(adopted(context, { only: ['alias'], ram: 512, alias: 'b', vcpus: 4 }), { alias: 'b' })
  assert.equal(adopted(context, { ram: 512 }), { ram: 512 }, 'without names it is about all')
  assert.equal(adopted(context, undefined), {})
})

test('of disks and NICs the named ones are taken over, come or go', () => {
  const disks = [{ size_mib: 1 }, { size_mib: 2 }, { size_mib: 3 }]
  const nics = [
    { mac: mac(1), vlan_id: 1, primary: true },
    { mac: mac(2), vlan_id: 2 },
  ]
  const context = { ...newVm(VM), disks, nics }
  const found = { disks: [{ size_mib: 10 }, { size_mib: 30, slot: 2 }, { size_mib: 40, slot: 3 }] }
  assert.equal(adopted(context, { ...found, only: ['disks.sdb', 'disks.sdd'] }).disks, [
    { size_mib: 1 },
    { size_mib: 3, slot: 2 },
    { size_mib: 40, slot: 3 },
  ])
  const moved = [
    { mac: mac(1), vlan_id: 9 },
    { mac: mac(2), vlan_id: 22 },
    { mac: mac(3), primary: true },
  ]
  assert.equal(adopted(context, { nics: moved, only: [`nics.${mac(2)}`] }).nics, [nics[0], moved[1]])
  assert.equal(adopted(context, { nics: moved, only: [`nics.${mac(3)}`] }).nics, [
    { mac: mac(1), vlan_id: 1 },
    nics[1],
    moved[2],
  ])
  assert.equal(adopted(context, { nics: [], only: [`nics.${mac(1)}`] }).nics, [nics[1]])
})

test('an operator adopts into a record at rest, and not while an operation is in flight', () => {
  const fleet = running()
  const adopt = (ram: number) =>
    fleet.command('vm', VM, 'adopt', { server_uuid: SERVER, wanted: { only: ['ram'], ram, vcpus: 9 }, idle: true })
  assert.equal(adopt(512), { value: {} })
  assert.equal([contextOf(fleet).ram, contextOf(fleet).vcpus === 9], [512, false])
  assert.is(fleet.record('vm', VM).recent.at(-1)?.event, 'adopt', 'it is in the record who did what')
  fleet.command('vm', VM, 'update', { task_id: taskId(2), params: { changes: { vcpus: 2 } } })
  fleet.settle()
  assert.is((adopt(1024) as { error: { code: string } }).error.code, 'VmBusy')
  complete(fleet, taskId(2), { vm: { uuid: VM, state: 'running' }, wanted: { only: ['vcpus'], vcpus: 2, ram: 4096 } })
  assert.equal([contextOf(fleet).ram, contextOf(fleet).vcpus], [512, 2])
})

test('a VM that nobody ordered is Muster’s own once it is adopted as that', () => {
  const fleet = fleetOfOne()
  const vm = { uuid: VM, state: 'running', name: 'stranger' }
  fleet.command('vm', VM, 'reported', { server_uuid: SERVER, seen_at: 1, vm })
  assert.is(contextOf(fleet).discovered, true)
  const wanted = { ram: 64, disks: [{ size_mib: 8 }], nics: [] }
  fleet.command('vm', VM, 'adopt', { server_uuid: SERVER, wanted, ordered: true, idle: true })
  assert.equal([contextOf(fleet).discovered, contextOf(fleet).ram], [false, 64])
})

test.run()
