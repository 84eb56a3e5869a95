/**
 * Every task of the agent: it works, it survives a crash at each of its calls to the hypervisor (before and after the effect),
 * and twice equals once. The table below is checked against TASKS, so that a new task needs a row here.
 */
import { randomUUID } from 'node:crypto'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import * as assert from 'uvu/assert'
import type { TaskOffer, TaskReport } from '../../actors/contract/messages.ts'
import { TASK_NAMES, type TaskName } from '../../actors/contract/task.ts'
import type { VmSpec } from '../../actors/contract/vm.ts'
import { eventually } from '../eventually.ts'
import { suite } from '../suite.ts'
import { type Node, offer, simulatedNode, vmSpec } from './agent-fixture.ts'
import { CHANGE_CASES } from './change-cases.ts'
import { SERVER_CASES } from './server-cases.ts'
import { fetchCases } from './fetch-cases.ts'
import { IMAGE_CASES } from './image-cases.ts'
import { SNAPSHOT_CASES } from './snapshot-cases.ts'

const test = suite('agent tasks')

/** What a case leaves for its checks. */
export interface Scene {
  node: Node
  spec: VmSpec
}

export interface Case {
  task: TaskName
  name: string
  prepare?: (scene: Scene) => Promise<void>
  params: (scene: Scene) => Record<string, unknown>
  /** Holds after the task, however often it was interrupted. */
  check: (scene: Scene, end: TaskReport) => Promise<void>
  /** The end; default complete. */
  failure?: string
}

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
  ...CHANGE_CASES,
  ...SNAPSHOT_CASES,
  ...IMAGE_CASES,
  ...SERVER_CASES,
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
  assert.equal([...new Set(cases.map(({ task }) => task))].sort(), [...TASK_NAMES].sort())
})

for (const one of cases) {
  test(`${one.task} ${one.name}`, () => scene(one, async (made, wanted) => finish(one, made, wanted)))

  test(`${one.task} ${one.name}: given twice it is done once`, () =>
    scene(one, async (made, wanted) => {
      const agent = await made.node.agent()
      const answers = await Promise.all([agent.executor.accept(wanted), agent.executor.accept(wanted)])
      for (const answer of answers) assert.equal(answer, { value: { accepted: true } })
      const end = await made.node.owner.end(wanted.id)
      await eventually(() => agent.journal.open().length === 0, { what: 'the journal being empty' })
      assert.equal(await agent.executor.accept(wanted), { value: { accepted: true } })
      // A task offered again after its end has its end told again, the same one.
      await eventually(() => made.node.owner.ends(wanted.id).length === 2, { what: 'the end being told again' })
      assert.equal(made.node.owner.ends(wanted.id)[1], end)
      holds(one, end)
      await one.check(made, end)
      await agent.kill()
    }))

  test(
    `${one.task} ${one.name}: it survives a crash at each call`,
    async () => {
      let interrupted = 0
      for (const when of ['before', 'after'] as const) {
        for (let call = 1; ; call++) {
          const reached = await scene(one, (made, wanted) => crashAt(one, made, wanted, when, call))
          if (!reached) break
          interrupted += 1
        }
      }
      // A task that makes no call has nothing to be interrupted in.
      if (!callsNothing.has(one.task) && one.failure !== 'SignalNotSupported') assert.ok(interrupted > 0, 'it was interrupted')
    },
    { limitMs: 60_000 },
  )
}

/** Scripts are held by scripts.test.ts: one that was interrupted is not run again. */
const callsNothing = new Set<TaskName>(['nop', 'recovery_config', 'agent_install', 'agents_uninstall', 'server_run_script', 'command_execute'])

/** Gives the body a fresh node, prepared, and the task to run. */
async function scene<T>(one: Case, body: (made: Scene, wanted: TaskOffer) => Promise<T>): Promise<T> {
  const node = await simulatedNode({ memoryMib: 8192, delays: { install: Number.POSITIVE_INFINITY, acpi: 2 }, execute: {} })
  const made = { node, spec: vmSpec() }
  try {
    await one.prepare?.(made)
    return await body(made, offer(one.task, one.params(made)))
  } finally {
    await node.remove()
  }
}

async function finish(one: Case, made: Scene, wanted: TaskOffer): Promise<void> {
  const agent = await made.node.agent()
  await agent.executor.accept(wanted)
  const end = await made.node.owner.end(wanted.id)
  holds(one, end)
  await one.check(made, end)
  await agent.kill()
}

/** Dies at the n-th call, comes back over the same folder, and must end as if nothing had happened. False if there is no n-th call. */
async function crashAt(
  one: Case,
  made: Scene,
  wanted: TaskOffer,
  when: 'before' | 'after',
  nth: number,
): Promise<boolean> {
  let isReached = false
  const hanging = hangingAt(when, nth, () => {
    isReached = true
  })
  const first = await made.node.agent({
    through: hanging,
    throughTools: ({ host, nicTags, resetMark, ...rest }) => ({
      ...rest,
      host: hanging(host),
      nicTags: hanging(nicTags),
      resetMark: hanging(resetMark),
    }),
  })
  await first.executor.accept(wanted)
  await eventually(() => isReached || made.node.owner.ends(wanted.id).length > 0, {
    what: 'the crash or the end',
    everyMs: 2,
  })
  await first.kill()
  if (isReached) {
    assert.equal(made.node.owner.ends(wanted.id), [], 'no end before the crash')
    const second = await made.node.agent()
    second.executor.resume()
    const end = await made.node.owner.end(wanted.id)
    holds(one, end)
    await one.check(made, end)
    await eventually(() => second.journal.open().length === 0, { what: 'the journal being empty' })
    assert.is(made.node.owner.ends(wanted.id).length, 1)
    await second.kill()
  }
  return isReached
}

/** Makes parts of an agent whose n-th call, counted over all of them, never answers: the agent dies while it waits. */
function hangingAt(when: 'before' | 'after', nth: number, reached: () => void): <T extends object>(part: T) => T {
  let calls = 0
  const isCall = (member: unknown, name: string | symbol): member is (...args: unknown[]) => unknown =>
    typeof member === 'function' && name !== 'onChange' && name !== 'onPower' && name !== 'isSet'
  return part =>
    new Proxy(part, {
      get: (target, name, receiver) => {
        const member: unknown = Reflect.get(target, name, receiver)
        if (!isCall(member, name)) return member
        return async (...args: unknown[]) => {
          calls += 1
          if (calls !== nth) return Reflect.apply(member, target, args)
          if (when === 'after') await Promise.resolve(Reflect.apply(member, target, args)).catch(() => {})
          reached()
          return new Promise<never>(() => {})
        }
      },
    })
}

function holds(one: Case, end: TaskReport): void {
  assert.is(end.status, one.failure ? 'failure' : 'complete', JSON.stringify(end))
  assert.is(end.error?.code, one.failure)
}

test.run()
