/** What a node tells of itself and does at once, as CNAPI's clients ask for it (cnapi-behaviour §5.7, §8.3, §8.5). */
import * as assert from 'uvu/assert'
import { fakeGateway, OTHER_SERVER, SERVER, VM } from '../fake-backend.ts'
import { preparedBackend } from '../gateway-samples.ts'
import { suite } from '../suite.ts'

const test = suite('a node through its server')
const one = `/servers/${SERVER}`
const gateway = () => fakeGateway(preparedBackend())
const ended = (stdout: string, exitCode: number | null = 0) => ({
  err: exitCode === null ? 'it was killed after 5 ms' : null,
  exitCode,
  signal: exitCode === null ? 'SIGTERM' : null,
  stdout,
  stderr: 'noise\n',
})

test('a refreshed sysinfo is registered before the answer, which has no body', async () => {
  const { ask, backend } = gateway()
  const sysinfo = { UUID: SERVER.toUpperCase(), 'Boot Time': 1_790_000_000 }
  backend.results.set('server_sysinfo', { sysinfo })
  const { status, text } = await ask('POST', `${one}/sysinfo-refresh`)
  assert.equal([status, text], [200, ''])
  assert.equal(
    backend.calls.map(({ verb }) => verb),
    ['task_add', 'register'],
  )
  assert.equal(backend.calls[1]?.params, { sysinfo })
})

test('a sysinfo of another node, or none, is not registered', async () => {
  for (const result of [{ sysinfo: { UUID: VM } }, {}]) {
    const { ask, backend } = gateway()
    backend.results.set('server_sysinfo', result)
    const { status, body } = await ask('POST', `${one}/sysinfo-refresh`)
    assert.equal([status, body.code], [500, 'TaskFailed'])
    assert.not.ok(backend.calls.some(({ verb }) => verb === 'register'))
  }
})

test('the task history is the agent\u2019s own, also of a server that does not run; `default` has no agent', async () => {
  const { ask, backend } = gateway()
  const history = [{ task: 'nop', status: 'finished', started_at: '2026-01-01T00:00:00Z', messages: [], errorCount: 0 }]
  backend.reads.set('task_history', { value: history })
  backend.put.server({ status: 'unknown' })
  assert.equal((await ask('GET', `${one}/task-history`)).body, history)
  const none = await ask('GET', '/servers/default/task-history')
  assert.equal([none.status, none.body.code], [404, 'ResourceNotFound'])
  backend.reads.delete('task_history')
  const silent = await ask('GET', `${one}/task-history`)
  assert.equal([silent.status, silent.body.code], [503, 'AgentNotConnected'])
})

test('a script\u2019s output comes back trimmed as a JSON string; one that fails is 500', async () => {
  const { ask, backend } = gateway()
  backend.results.set('command_execute', ended('  hello \n'))
  for (const json of [undefined, false, 'false', 'FALSE']) {
    const { status, body } = await ask('POST', `${one}/execute`, { body: { script: '#!/bin/bash', json } })
    assert.equal([status, body], [200, 'hello'], String(json))
  }
  backend.results.set('command_execute', ended('', 2))
  const failed = await ask('POST', `${one}/execute`, { body: { script: 'exit 2' } })
  assert.equal([failed.status, failed.body.message], [500, 'Error executing on remote system'])
})

test('with json the answer tells how the script ended, whatever it exits with', async () => {
  const { ask, backend } = gateway()
  for (const json of [true, 'true', 'TRUE']) {
    for (const end of [ended('a'), ended('b', 3), ended('', null)]) {
      backend.results.set('command_execute', end)
      const { status, body } = await ask('POST', `${one}/execute`, { body: { script: 'x', json } })
      assert.equal([status, body], [200, end])
    }
  }
})

test('a script goes to the agent with its arguments, environment and limit; wrong ones are refused', async () => {
  const { ask, backend } = gateway()
  const given = { script: '#!/bin/bash\necho hi $1 $FOO', args: ['hello; id'], env: { FOO: '1' }, timeout: 500 }
  await ask('POST', `${one}/execute`, { body: { ...given, other: 1 } })
  assert.equal(backend.calls[0]?.params['params'], given)
  const wrong: Record<string, unknown>[] = [
    {},
    { script: '' },
    { script: null },
    { script: 1 },
    { script: 'x', args: 'a' },
    { script: 'x', args: [1] },
    { script: 'x', args: ['a\0b'] },
    { script: 'x', env: [] },
    { script: 'x', env: { 'A=B': 'c' } },
    { script: 'x', env: { A: 1 } },
    { script: 'x', timeout: 'soon' },
    { script: 'x', timeout: 0 },
    { script: 'x', timeout: 3_600_001 },
    { script: 'x', json: 1 },
    { script: 'x'.repeat(262_145) },
  ]
  for (const body of wrong) {
    const answer = await ask('POST', `${one}/execute`, { body })
    assert.equal([answer.status, answer.body.code], [400, 'InvalidParameters'], JSON.stringify(body).slice(0, 80))
  }
  assert.is(backend.calls.length, 1)
})

test('an agent that runs no scripts says so', async () => {
  const { ask, backend } = gateway()
  backend.outcome = { status: 'failure', error: { code: 'ExecuteNotAllowed', message: 'EXECUTE=on allows it' } }
  const { status, body } = await ask('POST', `${one}/execute`, { body: { script: 'id' } })
  assert.equal([status, body.code], [409, 'ExecuteNotAllowed'])
})

test('execute and sysinfo-refresh are deprecated in the document', async () => {
  const { body } = await gateway().ask('GET', '/openapi.json')
  for (const path of ['execute', 'sysinfo-refresh'])
    assert.is(body.paths[`/servers/{server_uuid}/${path}`].post.deprecated, true)
  assert.is(body.paths['/servers/{server_uuid}/nop'].post.deprecated, undefined)
})

const staged = { action: 'stage', recovery_uuid: VM, pivtoken: '{}', template: 't', token: 's' }
const activated = { action: 'activate', recovery_uuid: VM, pivtoken: '{}' }
const hash = `${VM.replaceAll('-', '')}${'0'.repeat(96)}`

test('the preconditions of a recovery configuration are looked at in CNAPI\u2019s order', async () => {
  const { ask, backend } = gateway()
  const refused = async (body: object, why: RegExp) => {
    const answer = await ask('POST', `${one}/recovery-config`, { body })
    assert.equal([answer.status, answer.body.code], [412, 'PreconditionFailed'], answer.text)
    assert.match(answer.body.message, why)
  }
  backend.put.server({ agents: [] })
  backend.put.sysinfo(SERVER, {})
  await refused({}, /^action is required/)
  await refused({ action: 'x' }, /^recovery_uuid is required/)
  await refused({ action: 'x', recovery_uuid: VM }, /^pivtoken is required/)
  await refused({ ...staged, action: 'x' }, /stage or activate/)
  await refused({ ...staged, token: '' }, /template and token/)
  await refused(staged, /cn-agent \(vunknown\).*at least cn-agent v2\.13\.0/)
  for (const version of ['2.12.9', 'latest', '2.13.0-rc1']) {
    backend.put.server({ agents: [{ name: 'cn-agent', version }] })
    await refused(staged, /does not support "recovery_config"/)
  }
  backend.put.server({ agents: [{ name: 'cn-agent', version: '2.13.0' }] })
  await refused(staged, /no encrypted pool/)
  backend.put.sysinfo(SERVER, { 'Zpool Encrypted': true, 'Zpool Recovery': { active: hash } })
  await refused(activated, /active already/)
  backend.put.sysinfo(SERVER, { 'Zpool Encrypted': true, 'Zpool Recovery': { staged: 'f'.repeat(128) } })
  await refused(activated, /not the staged one/)
  assert.equal(backend.calls, [])
})

test('a recovery configuration that may be staged or activated becomes a task', async () => {
  const { ask, backend } = gateway()
  backend.put.sysinfo(SERVER, { 'Zpool Encrypted': 'true', 'Zpool Recovery': { staged: hash } })
  for (const body of [staged, activated]) {
    const answer = await ask('POST', `${one}/recovery-config`, { body })
    assert.is(answer.status, 200)
    assert.type(answer.body.id, 'string')
    assert.equal(backend.calls.at(-1)?.params['task'], 'recovery_config')
    assert.equal(backend.calls.at(-1)?.params['params'], body)
  }
})

test('a server that does not run, or is not there, is refused before anything is looked at', async () => {
  const { ask, backend } = gateway()
  backend.put.server({ status: 'unknown' })
  for (const path of ['sysinfo-refresh', 'execute', 'recovery-config']) {
    const still = await ask('POST', `${one}/${path}`, { body: {} })
    assert.equal([still.status, still.body.code], [409, 'ServerNotRunning'], path)
    const none = await ask('POST', `/servers/${OTHER_SERVER}/${path}`, { body: {} })
    assert.equal([none.status, none.body.code], [404, 'ResourceNotFound'], path)
  }
})

test.run()
