/**
 * Tasks of the agent about VMs, networks and its node, tried as `task-suite.ts` says; those that change, keep and copy VMs are in
 * agent-vm-tasks.test.ts and agent-image-tasks.test.ts. All cases together are checked against TASKS, so that a new task needs one.
 */
import { randomUUID } from 'node:crypto'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import * as assert from 'uvu/assert'
import type { TaskReport } from '../../actors/contract/messages.ts'
import { TASK_NAMES } from '../../actors/contract/task.ts'
import { suite } from '../suite.ts'
import { CHANGE_CASES } from './change-cases.ts'
import { DOCKER_CASES } from './docker-cases.ts'
import { fetchCases } from './fetch-cases.ts'
import { IMAGE_CASES } from './image-cases.ts'
import { MIGRATE_CASES } from './migrate-cases.ts'
import { SERVER_CASES } from './server-cases.ts'
import { SNAPSHOT_CASES } from './snapshot-cases.ts'
import { type Case, type Scene, tryCases } from './task-suite.ts'
import { ZFS_CASES } from './zfs-cases.ts'

const test = suite('agent tasks')

let web: Server
let origin = ''
test.before(async () => {
  web = createServer((request, response) => {
    const files: Record<string, string> = {
      '/installer-amd64/current/images/MANIFEST': 'netboot/debian-installer/amd64/linux -- kernel',
      '/installer-amd64/current/images/netboot/debian-installer/amd64/linux': 'kernel',
      '/installer-amd64/current/images/netboot/debian-installer/amd64/initrd.gz': 'initrd',
    }
    const body = files[request.url ?? '']
    response.writeHead(body ? 200 : 404).end(body)
  })
  await new Promise<void>(resolve => web.listen(0, '127.0.0.1', resolve))
  origin = `http://127.0.0.1:${(web.address() as AddressInfo).port}`
})
test.after(() => {
  web.close()
  web.closeAllConnections()
})

const defined = async ({ node, spec }: Scene) => node.hypervisor.defineVm(spec, { taskId: randomUUID() })
const running = async (scene: Scene) => {
  await defined(scene)
  await scene.node.hypervisor.startVm(scene.spec.uuid)
}
const guest = ({ node, spec }: Scene) => node.hypervisor.world.guest(spec.uuid)
const uuidOf = ({ spec }: Scene) => ({ uuid: spec.uuid })
const network = { name: 'web-vlan-10', bridge: 'br0', vlan: 10 }
const networks = ({ node }: Scene) => node.hypervisor.listNetworks()
const vmOf = (end: TaskReport) => (end.result as { vm: Record<string, unknown> | null }).vm

const cases: Case[] = [
  {
    task: 'machine_create',
    name: 'makes a VM and starts it from disk',
    params: ({ spec }) => ({ spec }),
    check: async (scene, end) => {
      assert.is(guest(scene)?.state, 'running')
      assert.is(guest(scene)?.boots, 1)
      assert.is(vmOf(end)?.['state'], 'running')
      assert.is(vmOf(end)?.['installing'], undefined)
    },
  },
  {
    task: 'machine_create',
    name: 'without autoboot leaves it stopped',
    params: ({ spec }) => ({ spec: { ...spec, autoboot: false } }),
    check: async scene => assert.is(guest(scene)?.state, 'stopped'),
  },
  {
    task: 'machine_create',
    name: 'with an install starts the installer once',
    params: ({ spec }) => ({ spec: { ...spec, install: { location: `${origin}/installer-amd64`, console: true } } }),
    check: async (scene, end) => {
      assert.is(guest(scene)?.boots, 1)
      assert.is(guest(scene)?.installer?.cmdline, 'console=ttyS0,115200n8 DEBIAN_FRONTEND=text')
      assert.is(vmOf(end)?.['installing'], true)
    },
  },
  {
    task: 'machine_create',
    name: 'that cannot be started leaves nothing behind',
    params: ({ spec }) => ({ spec: { ...spec, memory_mib: 60_000_000 } }),
    failure: 'InsufficientMemory',
    check: async (scene, end) => {
      assert.is(guest(scene), undefined)
      assert.is(vmOf(end), null)
    },
  },
  {
    task: 'machine_create',
    name: 'from a location that is no tree makes no disks',
    params: ({ spec }) => ({ spec: { ...spec, install: { location: `${origin}/nothing` } } }),
    failure: 'InstallSourceInvalid',
    check: async scene => assert.is(guest(scene), undefined),
  },
  {
    task: 'machine_create',
    name: 'of a VM that exists fails and leaves that VM alone',
    prepare: running,
    params: ({ spec }) => ({ spec }),
    failure: 'VmExists',
    check: async scene => assert.is(guest(scene)?.state, 'running'),
  },
  {
    task: 'machine_boot',
    name: 'starts a stopped VM',
    prepare: defined,
    params: uuidOf,
    check: async (scene, end) => {
      assert.is(guest(scene)?.boots, 1)
      assert.is(vmOf(end)?.['state'], 'running')
    },
  },
  {
    task: 'machine_boot',
    name: 'refuses a running VM',
    prepare: running,
    params: uuidOf,
    failure: 'VmNotStopped',
    check: async scene => assert.is(guest(scene)?.boots, 1),
  },
  {
    task: 'machine_boot',
    name: 'of a running VM is success when idempotent',
    prepare: running,
    params: scene => ({ ...uuidOf(scene), idempotent: true }),
    check: async scene => assert.is(guest(scene)?.boots, 1),
  },
  {
    task: 'machine_shutdown',
    name: 'stops a guest that listens by its power button',
    prepare: running,
    params: uuidOf,
    check: async (scene, end) => {
      assert.is(guest(scene)?.state, 'stopped')
      assert.is(vmOf(end)?.['state'], 'stopped')
    },
  },
  {
    task: 'machine_shutdown',
    name: 'switches a deaf guest off at its deadline',
    prepare: async scene => {
      await running(scene)
      scene.node.hypervisor.world.setAcpi(scene.spec.uuid, 'ignores')
    },
    params: scene => ({ ...uuidOf(scene), timeout: 0.15 }),
    check: async scene => assert.is(guest(scene)?.state, 'stopped'),
  },
  {
    task: 'machine_shutdown',
    name: 'with force does not ask',
    prepare: async scene => {
      await running(scene)
      scene.node.hypervisor.faults.add({ call: 'pressPowerButton', fail: 'HypervisorError' })
    },
    params: scene => ({ ...uuidOf(scene), force: true }),
    check: async scene => assert.is(guest(scene)?.state, 'stopped'),
  },
  {
    task: 'machine_shutdown',
    name: 'of a VM that is not there fails',
    params: uuidOf,
    failure: 'VmNotFound',
    check: async (_, end) => assert.is(vmOf(end), null),
  },
  {
    task: 'machine_shutdown',
    name: 'of a stopped VM fails unless idempotent',
    prepare: defined,
    params: uuidOf,
    failure: 'VmNotRunning',
    check: async (_, end) => assert.is(vmOf(end)?.['state'], 'stopped'),
  },
  {
    task: 'machine_reboot',
    name: 'has a guest that listens reboot',
    prepare: running,
    params: uuidOf,
    check: async scene => {
      assert.is(guest(scene)?.state, 'running')
      assert.ok((guest(scene)?.boots ?? 0) >= 2)
    },
  },
  {
    task: 'machine_reboot',
    name: 'resets a deaf guest at its deadline',
    prepare: async scene => {
      await running(scene)
      scene.node.hypervisor.world.setAcpi(scene.spec.uuid, 'ignores')
    },
    params: scene => ({ ...uuidOf(scene), timeout: 0.1 }),
    check: async scene => {
      assert.is(guest(scene)?.state, 'running')
      assert.ok((guest(scene)?.boots ?? 0) >= 2)
    },
  },
  {
    task: 'machine_kill',
    name: 'switches a guest off',
    prepare: running,
    params: scene => ({ ...uuidOf(scene), signal: 'sigterm' }),
    check: async scene => assert.is(guest(scene)?.state, 'stopped'),
  },
  {
    task: 'machine_kill',
    name: 'refuses a signal that a VM cannot be sent',
    prepare: running,
    params: scene => ({ ...uuidOf(scene), signal: 'SIGUSR1' }),
    failure: 'SignalNotSupported',
    check: async scene => assert.is(guest(scene)?.state, 'running'),
  },
  {
    task: 'machine_destroy',
    name: 'removes a running VM',
    prepare: running,
    params: uuidOf,
    check: async (scene, end) => {
      assert.is(guest(scene), undefined)
      assert.is(vmOf(end), null)
    },
  },
  {
    task: 'machine_destroy',
    name: 'of a VM that is not there is success',
    params: uuidOf,
    check: async (_, end) => assert.is(vmOf(end), null),
  },
  {
    task: 'network_create',
    name: 'makes a network',
    params: () => network,
    check: async scene => assert.is((await networks(scene))[0]?.vlan, 10),
  },
  {
    task: 'network_create',
    name: 'of a network that exists fails, even if it is the same',
    prepare: ({ node }) => node.hypervisor.createNetwork(network),
    params: () => network,
    failure: 'NetworkExists',
    check: async scene => assert.is((await networks(scene)).length, 1),
  },
  {
    task: 'network_delete',
    name: 'removes a network',
    prepare: ({ node }) => node.hypervisor.createNetwork(network),
    params: () => ({ name: network.name }),
    check: async scene => assert.equal(await networks(scene), []),
  },
  {
    task: 'network_delete',
    name: 'of a network that is not there fails',
    params: () => ({ name: network.name }),
    failure: 'NetworkNotFound',
    check: async scene => assert.equal(await networks(scene), []),
  },
  ...fetchCases(() => ({
    url: `${origin}/installer-amd64/current/images/netboot/debian-installer/amd64/linux`,
    content: 'kernel',
  })),
  { task: 'nop', name: 'sleeps and succeeds', params: () => ({ sleep: 0.02 }), check: async () => {} },
  {
    task: 'nop',
    name: 'fails with the words it was given',
    params: () => ({ error: 'on purpose' }),
    failure: 'TaskFailed',
    check: async (_, end) => assert.is(end.error?.message, 'on purpose'),
  },
]

test('every task has a case here', () => {
  const vmCases = [...CHANGE_CASES, ...SNAPSHOT_CASES, ...MIGRATE_CASES, ...IMAGE_CASES, ...DOCKER_CASES]
  const all = [...cases, ...SERVER_CASES, ...vmCases, ...ZFS_CASES]
  assert.equal([...new Set(all.map(({ task }) => task))].sort(), [...TASK_NAMES].sort())
})

tryCases(test, [...cases, ...SERVER_CASES, ...ZFS_CASES])

test.run()
