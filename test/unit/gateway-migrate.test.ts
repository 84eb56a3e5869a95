/** VmMigrate: CNAPI's migrationTask as Muster's one migration, its target by name or by placement, and the operator's exits. */
import * as assert from 'uvu/assert'
import { fakeGateway, OTHER_SERVER, SERVER, VM } from '../fake-backend.ts'
import { preparedBackend } from '../gateway-samples.ts'
import { suite } from '../suite.ts'

const test = suite('migration over REST')
const path = `/servers/${SERVER}/vms/${VM}/migrate`
const task = (action: string, record: Record<string, unknown> = {}) => ({ migrationTask: { action, record } })

function gateway() {
  const backend = preparedBackend()
  backend.put.server({ uuid: OTHER_SERVER })
  return fakeGateway(backend)
}

for (const action of ['migrate', 'begin']) {
  test(`${action} to a server that is named asks the VM\u2019s actor, with a token that nobody is shown`, async () => {
    const { ask, backend } = gateway()
    const body = { ...task(action, { target_server_uuid: OTHER_SERVER.toUpperCase() }), timeout: 30, force: 'false' }
    const { status, body: answered } = await ask('POST', path, { body })
    const [call] = backend.calls
    assert.equal([status, call?.kind, call?.id, call?.verb], [200, 'vm', VM, 'migrate'])
    const { task_id, params } = (call?.params ?? {}) as { task_id: string; params: Record<string, unknown> }
    const { token, ...rest } = params
    assert.is(task_id, answered.id)
    assert.match(String(token), /^[0-9a-f]{64}$/)
    assert.equal(rest, { target_server_uuid: OTHER_SERVER, timeout: 30, force: false })
    assert.not.ok(JSON.stringify(answered).includes(String(token)))
  })
}

for (const [where, body] of [
  ['beside the task', { ...task('migrate', { target_server_uuid: OTHER_SERVER }), live: 'true' }],
  ['in its record', task('migrate', { target_server_uuid: OTHER_SERVER, live: true })],
] as const) {
  test(`live ${where} is told to the VM\u2019s actor, and nothing about a stop`, async () => {
    const { ask, backend } = gateway()
    assert.is((await ask('POST', path, { body })).status, 200)
    const { params } = (backend.calls[0]?.params ?? {}) as { params: Record<string, unknown> }
    assert.equal({ ...params, token: '' }, { target_server_uuid: OTHER_SERVER, token: '', live: true })
  })
}

test('without a target placement chooses among the other servers and holds the room', async () => {
  const { ask, backend } = gateway()
  const { status } = await ask('POST', path, { body: task('migrate') })
  const [question] = backend.questions
  assert.equal([status, question?.servers, question?.claim_ms !== undefined], [200, [OTHER_SERVER], true])
  assert.equal(question?.vm['vm_uuid'], VM)
  assert.is(backend.calls[0]?.verb, 'migrate')
})

test('abort and finish go to the VM\u2019s actor also when the server does not run', async () => {
  const { ask, backend } = gateway()
  backend.put.server({ uuid: SERVER, status: 'unknown' })
  await ask('POST', path, { body: { ...task('abort'), force: true } })
  await ask('POST', path, { body: task('finish') })
  assert.equal(
    backend.calls.map(({ verb, params }) => [verb, params]),
    [
      ['migrate_abort', { force: true }],
      ['migrate_finish', {}],
    ],
  )
})

test('what is not supported is refused and says what is', async () => {
  const { ask, backend } = gateway()
  const refused = async (body: Record<string, unknown>) => {
    const answer = await ask('POST', path, { body })
    return [answer.status, answer.body.code]
  }
  const target = { target_server_uuid: OTHER_SERVER }
  assert.equal(await refused(task('sync', target)), [409, 'InvalidArgument'])
  assert.match((await ask('POST', path, { body: task('sync') })).body.message, /migrate or begin .* abort .* finish/)
  assert.equal(await refused({ ...task('migrate', target), live: true, timeout: 20 }), [409, 'InvalidArgument'])
  assert.equal(await refused(task('migrate', { ...target, live: 'perhaps' })), [409, 'InvalidArgument'])
  assert.equal(await refused(task('migrate', { target_server_uuid: SERVER })), [409, 'InvalidArgument'])
  assert.equal(await refused(task('migrate', { target_server_uuid: VM })), [404, 'ResourceNotFound'])
  backend.put.server({ uuid: OTHER_SERVER, status: 'unknown' })
  assert.equal(await refused(task('migrate', target)), [409, 'ServerNotRunning'])
  assert.equal(backend.calls, [])
})

test('what is missing is named with dots, as CNAPI names it', async () => {
  const { ask } = gateway()
  const fields = async (body: Record<string, unknown>) => {
    const answer = await ask('POST', path, { body })
    return [answer.status, answer.body.code, answer.body.errors.map(({ field }: { field: string }) => field)]
  }
  assert.equal(await fields({}), [400, 'InvalidParameters', ['migrationTask']])
  const both = ['migrationTask.action', 'migrationTask.record']
  assert.equal(await fields({ migrationTask: {} }), [400, 'InvalidParameters', both])
  const record = { migrationTask: { action: 'migrate', record: 'all' } }
  assert.equal(await fields(record), [400, 'InvalidParameters', ['migrationTask.record']])
})

test.run()
