/** Cases of the docker endpoints' tasks, for the suite of all tasks: each ends with a stream that can be opened, or with what the node lacks. */
import { randomUUID } from 'node:crypto'
import * as assert from 'uvu/assert'
import type { TaskReport } from '../../actors/contract/messages.ts'
import type { Case, Scene } from './task-suite.ts'

const guestOf = ({ node, spec }: Scene) => node.hypervisor.world.guest(spec.uuid)

async function stopped({ node, spec }: Scene): Promise<void> {
  await node.hypervisor.defineVm(spec, { taskId: randomUUID() })
}
async function deaf(scene: Scene): Promise<void> {
  await stopped(scene)
  await scene.node.hypervisor.startVm(scene.spec.uuid)
}
async function running(scene: Scene): Promise<void> {
  await deaf(scene)
  scene.node.hypervisor.world.setGuestAgent(scene.spec.uuid, true)
}

const order =
  (more: object) =>
  ({ spec }: Scene) => ({ uuid: spec.uuid, ...more })
const command = (more: object = {}) => order({ command: { Cmd: ['echo', 'hello'], ...more } })

async function hasStream(_: Scene, { result }: TaskReport): Promise<void> {
  const { host, port, token } = result as { host: string; port: number; token: string }
  assert.is(host, '127.0.0.1')
  assert.ok(port > 0)
  assert.match(token, /^[0-9a-f]{64}$/)
}
const begun = (count: number) => async (scene: Scene) => {
  assert.is(guestOf(scene)?.programs_started ?? 0, count)
}
const fails = (
  task: Case['task'],
  name: string,
  code: string,
  params: Case['params'],
  prepare?: Case['prepare'],
): Case => ({
  task,
  name,
  params,
  failure: code,
  check: begun(0),
  ...(prepare ? { prepare } : {}),
})

export const DOCKER_CASES: Case[] = [
  {
    task: 'docker_exec',
    name: 'waits with a stream and begins nothing before it is opened',
    prepare: running,
    params: command(),
    check: async (scene, end) => {
      await hasStream(scene, end)
      await begun(0)(scene)
    },
  },
  {
    task: 'docker_exec',
    name: 'detached is begun once, and answers with nothing',
    prepare: running,
    params: command({ Detach: true }),
    check: async (scene, end) => {
      assert.equal(end.result, {})
      await begun(1)(scene)
    },
  },
  fails('docker_exec', 'of a VM without guest agent says so', 'GuestAgentNotConnected', command(), deaf),
  fails('docker_exec', 'of a stopped VM says so', 'VmNotRunning', command({ Detach: true }), stopped),
  fails('docker_exec', 'of no VM says so', 'VmNotFound', command()),
  {
    task: 'docker_copy',
    name: 'says what the path is, and waits with a stream',
    prepare: running,
    params: order({ path: '/etc/hostname', mode: 'read' }),
    check: async (scene, end) => {
      await hasStream(scene, end)
      const { mtime, ...stat } = (end.result as { containerPathStat: { mtime: string } }).containerPathStat
      const size = scene.spec.name.length + 1
      assert.equal(stat, { name: 'hostname', size, mode: 0o644, linkTarget: '' })
      assert.ok(Math.abs(Date.parse(mtime) - Date.now()) < 60_000)
    },
  },
  fails(
    'docker_copy',
    'of a file that is not there says so',
    'FileNotFound',
    order({ path: '/x', mode: 'stat' }),
    running,
  ),
  fails(
    'docker_copy',
    'into a file says that it is no directory',
    'PathNotDirectory',
    order({ path: '/etc/hostname', mode: 'write' }),
    running,
  ),
  fails(
    'docker_copy',
    'of a stopped VM says that it must run',
    'DockerCopyStoppedContainerNoPlatformSupport',
    order({ path: '/etc', mode: 'read' }),
    stopped,
  ),
  fails(
    'docker_copy',
    'of a VM without agent says so',
    'GuestAgentNotConnected',
    order({ path: '/', mode: 'read' }),
    deaf,
  ),
  { task: 'docker_stats', name: 'needs no guest agent', prepare: deaf, params: order({}), check: hasStream },
  fails('docker_stats', 'of a stopped VM says so', 'VmNotRunning', order({}), stopped),
  fails('docker_stats', 'of no VM says so', 'VmNotFound', order({})),
  { task: 'docker_build', name: 'waits for its context', prepare: stopped, params: order({}), check: hasStream },
  fails('docker_build', 'beside no VM says so', 'VmNotFound', order({})),
]
