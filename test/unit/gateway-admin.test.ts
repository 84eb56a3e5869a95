/** The gateway about itself: log level, release, diagnostics. */
import * as assert from 'uvu/assert'
import { fakeBackend, fakeGateway, SERVER, TASK } from '../fake-backend.ts'
import { suite } from '../suite.ts'

const test = suite('gateway about itself')

function started() {
  const log = { level: 'info' }
  const backend = fakeBackend()
  const { ask: asked } = fakeGateway(backend, { version: '1.2.3', startedAt: new Date(1_700_000_000_000), log })
  const ask = async (method: string, path: string, body?: unknown) => {
    const { status, body: answer } = await asked(method, path, body ? { body } : {})
    return { status, body: answer }
  }
  return { log, backend, ask }
}

test('the log level is read as bunyan\u2019s number and set by name or number', async () => {
  const { log, ask } = started()
  assert.equal((await ask('GET', '/loglevel')).body, { level: 30, name: 'info' })
  for (const [level, name, number] of [
    ['debug', 'debug', 20],
    [50, 'error', 50],
    ['10', 'trace', 10],
    ['fatal', 'fatal', 60],
  ] as const) {
    assert.equal(await ask('POST', '/loglevel', { level }), { status: 200, body: undefined })
    assert.is(log.level, name)
    assert.is((await ask('GET', '/loglevel')).body.level, number)
  }
})

test('a level that is none is refused and changes nothing', async () => {
  const { log, ask } = started()
  for (const body of [{ level: 'loud' }, { level: 35 }, { level: null }, { level: ['info'] }, { level: '' }, {}]) {
    const { status, body: answer } = await ask('POST', '/loglevel', body)
    assert.is(status, 400, JSON.stringify(body))
    assert.equal([answer.code, answer.errors[0].field], ['InvalidParameters', 'level'])
  }
  assert.is(log.level, 'info')
})

test('the release and the diagnostics are those of this process, also after a 404', async () => {
  const { backend, ask } = started()
  assert.equal((await ask('GET', '/info')).body, { version: '1.2.3' })
  backend.waiters = {
    tasks: [{ id: TASK, waiters: 2 }],
    queues: [{ server_uuid: SERVER, scope: 'vm', id: 'x', waiters: 1 }],
  }
  const before = (await ask('GET', '/diagnostics')).body
  assert.is(before.start_timestamp, '2023-11-14T22:13:20.000Z')
  for (const name of ['rss', 'heapTotal', 'heapUsed', 'external']) assert.ok(before.memory[name] > 0, name)
  assert.equal(before.taskCallbacks, { [TASK]: [{ id: TASK }, { id: TASK }] })
  assert.equal(before.pendingActivationsByServer, { [SERVER]: [{ scope: 'vm', id: 'x' }] })
  assert.is((await ask('GET', '/no/such/path')).status, 404)
  assert.is((await ask('GET', '/diagnostics')).body.start_timestamp, before.start_timestamp)
})

test.run()
