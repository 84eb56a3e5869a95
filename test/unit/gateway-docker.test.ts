/** CNAPI's docker endpoints over REST: what is sent on to the node, what is refused at the door, and in which words. */
import * as assert from 'uvu/assert'
import { fakeGateway, SERVER, VM } from '../fake-backend.ts'
import { preparedBackend } from '../gateway-samples.ts'
import { suite } from '../suite.ts'

const test = suite('gateway: docker endpoints')
const path = `/servers/${SERVER}/vms/${VM}/docker-`
const address = { host: '10.0.0.5', port: 4711, token: 'a'.repeat(64) }

function made(event: object = address) {
  const backend = preparedBackend()
  const { ask } = fakeGateway(backend)
  backend.outcome = { status: 'complete', history: [{ name: 'finish', timestamp: '', event }] } as never
  const sent = () =>
    backend.calls.find(({ verb }) => verb === 'task_add')?.params as Record<string, unknown> | undefined
  return { ask, backend, sent }
}

const forwarded: [string, object, string, object][] = [
  [
    'exec',
    { command: { Cmd: ['id'], Container: 'x' }, jobid: 'j' },
    'docker_exec',
    { command: { Cmd: ['id'], Container: 'x' } },
  ],
  ['copy', { path: '/etc' }, 'docker_copy', { path: '/etc', mode: 'read', no_overwrite_dir: false }],
  [
    'copy',
    { payload: { path: '/a', mode: 'stat' } },
    'docker_copy',
    { path: '/a', mode: 'stat', no_overwrite_dir: false },
  ],
  [
    'copy',
    { path: '/b', mode: 'write', no_overwrite_dir: 'true', payload: { path: '/a', mode: 'stat' } },
    'docker_copy',
    { path: '/b', mode: 'write', no_overwrite_dir: true },
  ],
  ['stats', {}, 'docker_stats', { payload: {} }],
  ['stats', { payload: { stream: false } }, 'docker_stats', { payload: { stream: false } }],
  ['build', {}, 'docker_build', { payload: { dockerfile: 'Dockerfile' } }],
]
for (const [what, body, task, params] of forwarded) {
  test(`docker-${what} ${JSON.stringify(body)} becomes its task, and the address is the answer`, async () => {
    const { ask, sent } = made()
    const { status, body: answer } = await ask('POST', `${path}${what}`, { body })
    assert.equal([status, answer], [200, address])
    assert.is(sent()?.['task'], task)
    assert.equal(sent()?.['params'], { uuid: VM, ...params })
  })
}

const refused: [string, string, object, string][] = [
  ['exec', 'no command', {}, 'command'],
  ['exec', 'a command without a program', { command: { Cmd: [] } }, 'command.Cmd'],
  ['exec', 'a program that is an option', { command: { Cmd: ['-c'] } }, 'command.Cmd'],
  ['exec', 'a variable without a name', { command: { Cmd: ['a'], Env: ['=x'] } }, 'command.Env.0'],
  ['exec', 'a folder that is relative', { command: { Cmd: ['a'], WorkingDir: 'tmp' } }, 'command.WorkingDir'],
  ['exec', 'a user that is an option', { command: { Cmd: ['a'], User: '-x' } }, 'command.User'],
  ['exec', 'an argument with NUL', { command: { Cmd: ['a\0b'] } }, 'command.Cmd.0'],
  ['copy', 'no path', {}, 'path'],
  ['copy', 'a relative path', { path: 'etc' }, 'path'],
  ['copy', 'an unknown mode', { path: '/', mode: 'move' }, 'mode'],
  ['build', 'a Dockerfile outside of the context', { payload: { dockerfile: 'a/../../b' } }, 'payload.dockerfile'],
  ['build', 'a tag that is an option', { payload: { t: '--rm' } }, 'payload.t'],
  [
    'build',
    'an argument whose name holds more',
    { payload: { buildargs: { 'A=B --x': '' } } },
    'payload.buildargs.A=B --x',
  ],
]
for (const [what, how, body, field] of refused) {
  test(`docker-${what} refuses ${how}, and nothing is sent`, async () => {
    const { ask, sent } = made()
    const answer = await ask('POST', `${path}${what}`, { body })
    assert.is(answer.status, 400, answer.text)
    assert.equal([answer.body.code, answer.body.errors[0].field], ['InvalidParameters', field])
    assert.is(sent(), undefined)
  })
}

test('a detached program is answered with an empty object', async () => {
  const { ask } = made({})
  const { status, body } = await ask('POST', `${path}exec`, { body: { command: { Cmd: ['a'], Detach: true } } })
  assert.equal([status, body], [200, {}])
})

test('what a node refuses keeps its status; statistics of a VM that it does not have are CNAPI’s 404', async () => {
  for (const [what, code, status, said] of [
    ['copy', 'FileNotFound', 404, 'FileNotFound'],
    ['copy', 'PathNotDirectory', 400, 'PathNotDirectory'],
    ['copy', 'VmNotRunning', 409, 'VmNotRunning'],
    ['copy', 'DockerCopyStoppedContainerNoPlatformSupport', 409, 'DockerCopyStoppedContainerNoPlatformSupport'],
    ['exec', 'GuestAgentNotConnected', 409, 'GuestAgentNotConnected'],
    ['build', 'BuildahNotInstalled', 409, 'BuildahNotInstalled'],
    ['stats', 'VmNotFound', 404, 'ResourceNotFound'],
  ] as const) {
    const { ask, backend } = made()
    backend.outcome = { status: 'failure', error: { code, message: 'no' } }
    const body = { path: '/', command: { Cmd: ['a'] } }
    const answer = await ask('POST', `${path}${what}`, { body })
    assert.equal([answer.status, answer.body.code], [status, said])
  }
})

test.run()
