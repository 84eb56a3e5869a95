/** Ports of Open vSwitch as ovs-vsctl lists them, and the command that gives one its VLAN. */
import * as assert from 'uvu/assert'
import { portTags } from '../../hypervisor-agent/openvswitch/tags.ts'
import { suite } from '../suite.ts'

const test = suite('Open vSwitch ports')

const answer = [
  '{"data":[["br0",["set",[["uuid","a"],["uuid","b"]]]],["br1",["uuid","c"]],["br2",["set",[]]]],"headings":["name","ports"]}',
  '{"data":[[["uuid","a"],"vnet0",10],[["uuid","b"],"vnet1",["set",[]]],[["uuid","c"],"br1",["set",[]]]],"headings":["_uuid","name","tag"]}',
].join('\n')

test('each port has its bridge and its VLAN, or none', async () => {
  assert.equal(await portTags(async () => `${answer}\n`).places(), {
    vnet0: { bridge: 'br0', vlan_id: 10 },
    vnet1: { bridge: 'br0', vlan_id: null },
    br1: { bridge: 'br1', vlan_id: null },
  })
})

test('where Open vSwitch does not answer, or says something else, nothing is said', async () => {
  assert.is(await portTags(() => Promise.reject(new Error('ENOENT'))).places(), undefined)
  assert.is(await portTags(async () => 'what?').places(), undefined)
})

test('a VLAN is set, or taken away', async () => {
  const asked: string[][] = []
  const ports = portTags(async args => {
    asked.push(args)
    return ''
  })
  await ports.setTag('vnet0', 20)
  await ports.setTag('vnet0', null)
  assert.equal(asked, [
    ['set', 'Port', 'vnet0', 'tag=20'],
    ['clear', 'Port', 'vnet0', 'tag'],
  ])
})

test.run()
