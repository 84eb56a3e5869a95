/** What a node tells of itself and does at once, the whole way: REST, the compute node's actor on a real nats-server, a simulated node. */
import * as assert from 'uvu/assert'
import { eventually } from '../eventually.ts'
import { type GatewayProcess, type MusterFixture, startMuster } from '../muster-fixture.ts'
import { suite } from '../suite.ts'

const test = suite('a node, whole way')
let muster: MusterFixture
let gateway: GatewayProcess
let one: string

test.before(async () => {
  muster = await startMuster()
  gateway = await muster.gateway()
  one = `/servers/${muster.servers[0]}`
})
test.after(() => muster?.stop())

const ask: GatewayProcess['ask'] = (...args) => gateway.ask(...args)
const power = () => muster.hypervisors[0]!.world.power
const server = async () => (await ask('GET', one)).body
const history = async () => (await ask('GET', `${one}/task-history`)).body as Record<string, unknown>[]

test('a refreshed sysinfo is in the server as soon as it is answered', async () => {
  power().setHostname('renamed.example.com')
  const { status, body } = await ask('POST', `${one}/sysinfo-refresh`)
  assert.equal([status, body], [200, undefined])
  const { sysinfo, hostname } = await server()
  assert.is(sysinfo.Hostname, 'renamed.example.com')
  assert.not.equal(hostname, 'renamed.example.com', 'the name in the record is given by setup alone')
})

test('a script runs on the node, and its answer has both forms', async () => {
  const script = '#!/bin/bash\necho hi $1 $FOO'
  const body = { script, args: ['hello'], env: { FOO: '1' } }
  assert.is((await ask('POST', `${one}/execute`, { body })).body, 'hi hello 1')
  const told = await ask('POST', `${one}/execute`, { body: { script: 'echo no >&2; exit 9', json: true } })
  assert.equal(told.body, { err: null, exitCode: 9, signal: null, stdout: '', stderr: 'no\n' })
  const failed = await ask('POST', `${one}/execute`, { body: { script: 'exit 9' } })
  assert.equal([failed.status, failed.body.message], [500, 'Error executing on remote system'])
})

test('the task history has what runs and what has ended, newest last, and no secrets', async () => {
  const failed = (await ask('POST', `${one}/nop`, { body: { error: 'on purpose' } })).body.id
  await ask('GET', `/tasks/${failed}/wait?timeout=10`)
  const running = (await ask('POST', `${one}/nop`, { body: { sleep: 30 } })).body.id
  const last = await eventually(async () => (await history()).find(({ id }) => id === running), { withinMs: 10_000 })
  assert.equal(
    [last['task'], last['status'], last['params'], 'finished_at' in last],
    ['nop', 'active', { sleep: 30 }, false],
  )
  const ended = (await history()).find(({ id }) => id === failed)
  assert.equal([ended?.['status'], ended?.['errorCount']], ['failed', 1])
  const messages = ended?.['messages'] as { name: string }[] | undefined
  const names = messages?.map(({ name }) => name)
  assert.equal(names, ['start', 'error', 'finish'])
  assert.not.match(JSON.stringify(await history()), /echo hi/)
  await ask('POST', `/tasks/${running}/cancel`)
})

test('an agent remembers at most 16 tasks', async () => {
  for (let n = 0; n < 18; n++) {
    const { id } = (await ask('POST', `${one}/nop`, { body: {} })).body
    await ask('GET', `/tasks/${id}/wait?timeout=10`)
  }
  await eventually(async () => (await history()).length === 16, { withinMs: 10_000 })
})

test('a reboot without a job is answered before the node goes, and the node is back in another boot, once', async () => {
  const before = await server()
  const { status } = await ask('POST', `${one}/reboot`, { body: { nojob: true } })
  assert.is(status, 204)
  await eventually(async () => (await server()).last_boot !== before.last_boot, {
    withinMs: 20_000,
    what: 'a new boot time',
  })
  assert.is(power().boots(), 2)
  const { body } = await ask('POST', `${one}/execute`, { body: { script: 'echo back' } })
  assert.is(body, 'back')
  assert.ok((await history()).some(({ task, status }) => task === 'server_reboot' && status === 'finished'))
})

test('a node without encryption has no recovery configuration', async () => {
  const body = { action: 'stage', recovery_uuid: muster.servers[0], pivtoken: '{}', template: 't', token: 's' }
  const { status, body: refused } = await ask('POST', `${one}/recovery-config`, { body })
  assert.equal([status, refused.code], [412, 'PreconditionFailed'])
  assert.match(refused.message, /no encrypted pool/)
})

test.run()
