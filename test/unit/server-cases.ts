/** Cases of the tasks about a node itself, for agent-tasks.test.ts. */
import { randomUUID } from 'node:crypto'
import * as assert from 'uvu/assert'
import type { TaskReport } from '../../actors/contract/messages.ts'
import type { Sysinfo } from '../../actors/contract/server.ts'
import type { NodeCheck } from '../../actors/contract/tasks/server.ts'
import { eventually } from '../eventually.ts'
import type { Node } from './agent-fixture.ts'
import type { Case, Scene } from './task-suite.ts'

const tags = ({ node }: Scene) => node.tools.nicTags.byTag
const inventory = ({ node }: Scene) => node.hypervisor.inventory()
const macOf = (node: Node, bridge: string) => node.portMac(bridge)
const sysinfoOf = (end: TaskReport) => (end.result as { sysinfo: Sysinfo }).sysinfo
const checksOf = (end: TaskReport) => (end.result as { checks: NodeCheck[] }).checks
const power = ({ node }: Scene) => node.hypervisor.world.power

/** A VM on the bridge of nic tag `external`, which is br1. */
const taggedVm = async ({ node, spec }: Scene) => {
  const nics = [{ mac: '52:54:00:aa:bb:01', nic_tag: 'external' }]
  await node.hypervisor.defineVm({ ...spec, nics }, { taskId: randomUUID() })
}
const nics =
  (bridge: string, ...nic_tags_provided: string[]) =>
  ({ node }: Scene) => [{ mac: macOf(node, bridge), nic_tags_provided }]
const update =
  (action: 'update' | 'replace' | 'delete', bridge: string, ...given: string[]) =>
  (scene: Scene) => ({
    action,
    nics: nics(bridge, ...given)(scene),
  })

export const SERVER_CASES: Case[] = [
  {
    task: 'server_check',
    name: 'says that a node has all it needs',
    params: () => ({}),
    check: async (_, end) => {
      assert.equal(
        checksOf(end).map(({ name, ok }) => [name, ok]),
        [
          ['hypervisor', true],
          ['storage', true],
          ['nic_tag admin', true],
          ['nic_tag external', true],
          ['reboot', true],
        ],
      )
    },
  },
  {
    task: 'server_check',
    name: 'names what is missing, and ends well',
    prepare: async scene => {
      scene.node.hypervisor.world.removePool()
      await scene.node.tools.nicTags.replace({ admin: 'br9' })
    },
    params: () => ({}),
    check: async (_, end) => {
      const missing = checksOf(end).filter(({ ok }) => !ok)
      assert.equal(
        missing.map(({ name }) => name),
        ['storage', 'nic_tag admin'],
      )
      assert.match(missing[1]?.message ?? '', /add-br br9/)
    },
  },
  {
    task: 'server_setup_storage',
    name: 'makes the pool that is missing, and the node is set up',
    prepare: async scene => {
      scene.node.hypervisor.world.removePool()
      await scene.node.tools.resetMark.set()
    },
    params: () => ({}),
    check: async scene => {
      assert.is((await inventory(scene)).pools.length, 1)
      assert.is(scene.node.tools.resetMark.isSet(), false)
    },
  },
  {
    task: 'server_update_nics',
    name: 'adds tags to the bridge of a NIC',
    params: update('update', 'br1', 'storage', 'external'),
    check: async (scene, end) => {
      assert.equal(tags(scene), { admin: 'br0', external: 'br1', storage: 'br1' })
      const shown = sysinfoOf(end)['Network Interfaces']?.['eth1']
      assert.equal(shown?.['NIC Names'], ['external', 'storage'])
    },
  },
  {
    task: 'server_update_nics',
    name: 'moves a tag that is on another NIC',
    params: update('update', 'br0', 'external'),
    check: async scene => assert.equal(tags(scene), { admin: 'br0', external: 'br0' }),
  },
  {
    task: 'server_update_nics',
    name: 'replaces the tags of one NIC and leaves the others',
    params: update('replace', 'br1', 'storage'),
    check: async scene => assert.equal(tags(scene), { admin: 'br0', storage: 'br1' }),
  },
  {
    task: 'server_update_nics',
    name: 'takes tags away from the NIC that has them, and from no other',
    params: update('delete', 'br1', 'external', 'admin', 'nowhere'),
    check: async scene => assert.equal(tags(scene), { admin: 'br0' }),
  },
  {
    task: 'server_update_nics',
    name: 'takes a tag away that nobody uses any more',
    prepare: async scene => {
      await taggedVm(scene)
      await scene.node.hypervisor.removeVm(scene.spec.uuid)
    },
    params: update('delete', 'br1', 'external'),
    check: async scene => assert.equal(tags(scene), { admin: 'br0' }),
  },
  {
    task: 'server_update_nics',
    name: 'does not take a tag away that a VM uses',
    prepare: taggedVm,
    params: update('delete', 'br1', 'external'),
    failure: 'NicTagInUse',
    check: async (scene, end) => {
      assert.equal(tags(scene), { admin: 'br0', external: 'br1' })
      assert.ok(end.error?.message.includes(scene.spec.name), end.error?.message)
    },
  },
  {
    task: 'server_update_nics',
    name: 'does not move a tag that a VM uses, and changes nothing else then',
    prepare: taggedVm,
    params: scene => ({
      action: 'update',
      nics: [...nics('br1', 'storage')(scene), ...nics('br0', 'external')(scene)],
    }),
    failure: 'NicTagInUse',
    check: async scene => assert.equal(tags(scene), { admin: 'br0', external: 'br1' }),
  },
  {
    task: 'server_update_nics',
    name: 'counts a VM of unknown tags for every tag of its bridge',
    prepare: async ({ node, spec }) =>
      node.hypervisor.defineVm(
        { ...spec, nics: [{ mac: '52:54:00:aa:bb:01', bridge: 'br1' }] },
        { taskId: randomUUID() },
      ),
    params: update('replace', 'br1'),
    failure: 'NicTagInUse',
    check: async scene => assert.equal(tags(scene), { admin: 'br0', external: 'br1' }),
  },
  {
    task: 'server_update_nics',
    name: 'refuses a NIC that is on no bridge',
    params: () => ({ action: 'update', nics: [{ mac: '52:54:00:00:00:01', nic_tags_provided: ['storage'] }] }),
    failure: 'NicNotFound',
    check: async scene => assert.equal(tags(scene), { admin: 'br0', external: 'br1' }),
  },
  {
    task: 'server_set_hostname',
    name: 'gives the host its name',
    params: () => ({ hostname: 'cn7.example.com' }),
    check: async scene => assert.is((await inventory(scene)).hostname, 'cn7.example.com'),
  },
  {
    task: 'server_run_script',
    name: 'runs a script; what it exits with is its own affair',
    params: () => ({ script: 'echo out; echo err >&2; exit 3' }),
    check: async (_, end) => assert.equal(end.result, { exit_code: 3, stdout: 'out\n', stderr: 'err\n' }),
  },
  {
    task: 'command_execute',
    name: 'gives the script its arguments and its environment, which is all of it',
    params: () => ({
      script: '#!/bin/bash\nprintf "%s|" "$1" "$2" "$FOO" "$HOME"; exit 1',
      args: ['a b', '$(id)'],
      env: { FOO: '`id`' },
    }),
    check: async (_, end) =>
      assert.equal(end.result, { err: null, exitCode: 1, signal: null, stdout: 'a b|$(id)|`id`||', stderr: '' }),
  },
  {
    task: 'server_reboot',
    name: 'takes the node away and brings it back in another boot, once',
    prepare: async ({ node, spec }) => {
      await node.hypervisor.defineVm({ ...spec, autoboot: true }, { taskId: randomUUID() })
      await node.hypervisor.startVm(spec.uuid)
    },
    params: () => ({}),
    check: async scene => {
      const guest = () => scene.node.hypervisor.world.guest(scene.spec.uuid)
      await eventually(() => power(scene).boots() === 2 && guest()?.state === 'running', { what: 'the second boot' })
      assert.is(guest()?.boots, 2)
      assert.ok((await inventory(scene)).boot_time_s > scene.node.bootedAtS)
    },
  },
  {
    task: 'server_factory_reset',
    name: 'takes back networks, nic tags and leftovers, and the node is not set up',
    prepare: async ({ node }) => {
      await node.hypervisor.createNetwork({ name: 'web', bridge: 'br0', vlan: 10 })
      await node.hypervisor.createNetwork({ name: 'db', bridge: 'br1', vlan: 11 })
      await node.tools.nicTags.replace({ storage: 'br1' })
    },
    params: () => ({}),
    check: async scene => {
      assert.equal(await scene.node.hypervisor.listNetworks(), [])
      assert.equal(tags(scene), { admin: 'br0', external: 'br1' })
      assert.is(scene.node.tools.resetMark.isSet(), true)
    },
  },
  {
    task: 'server_factory_reset',
    name: 'is refused while there is a VM, and touches nothing',
    prepare: async scene => {
      await taggedVm(scene)
      await scene.node.hypervisor.createNetwork({ name: 'web', bridge: 'br0', vlan: 10 })
    },
    params: () => ({}),
    failure: 'VmsExist',
    check: async scene => {
      assert.is((await scene.node.hypervisor.listNetworks()).length, 1)
      assert.is(scene.node.tools.resetMark.isSet(), false)
    },
  },
  {
    task: 'server_sysinfo',
    name: 'tells the inventory as it is now',
    params: () => ({}),
    check: async (scene, end) => {
      assert.is(sysinfoOf(end).Hostname, (await inventory(scene)).hostname)
      assert.is(sysinfoOf(end).Setup, true)
    },
  },
  {
    task: 'recovery_config',
    name: 'names what a Linux node lacks',
    params: () => ({ action: 'stage', recovery_uuid: randomUUID(), pivtoken: '{}', template: 't', token: 's' }),
    failure: 'TaskNotSupported',
    check: async (_, end) => assert.match(end.error?.message ?? '', /no encrypted pool/),
  },
]
