/** CNAPI's docker endpoints through Muster on a real nats-server: from the request over the gateway to bytes from the node of a simulated VM. */
import { randomUUID } from 'node:crypto'
import * as assert from 'uvu/assert'
import { tarEnd, tarHeader, tarPadding } from '../../hypervisor-agent/guest-streams/tar.ts'
import { eventually } from '../eventually.ts'
import { type GatewayProcess, type MusterFixture, startMuster } from '../muster-fixture.ts'
import { openStream, type StreamAddress } from '../stream-client.ts'
import { suite } from '../suite.ts'

const test = suite('docker endpoints through Muster')
let muster: MusterFixture
let gateway: GatewayProcess
let uuid = ''

test.before(async () => {
  muster = await startMuster()
  gateway = await muster.gateway()
  const made = await gateway.ask('POST', `/servers/${muster.servers[0]}/vms`, {
    body: { ram: 128, vcpus: 1, disks: [{ size: 64 }] },
  })
  uuid = made.body.vm_uuid
  const ended = await gateway.ask('GET', `/tasks/${made.body.id}/wait?timeout=20`)
  assert.is(ended.body.status, 'complete')
  muster.hypervisors[0]?.world.setGuestAgent(uuid, true)
})
test.after(() => muster?.stop())

const post = (what: string, body: object, headers: Record<string, string> = {}) =>
  gateway.ask('POST', `/servers/${muster.servers[0]}/vms/${uuid}/docker-${what}`, { body, headers })

async function stream(what: string, body: object) {
  const answer = await post(what, body)
  assert.is(answer.status, 200, JSON.stringify(answer.body))
  return openStream(answer.body as StreamAddress)
}

function archiveOf(name: string, content: string): Buffer {
  const data = Buffer.from(content)
  const head = tarHeader({ name, type: 'file', mode: 0o600, size: data.length, mtime: 0 })
  return Buffer.concat([head, data, tarPadding(data.length), tarEnd])
}

test('a program answers over its stream, and the task’s record tells no more than the answer', async () => {
  const answer = await post('exec', { command: { Cmd: ['cat'], AttachStdin: true } })
  const client = openStream(answer.body as StreamAddress)
  client.send({ type: 'stdin', data: 'secret' })
  client.send({ type: 'end' })
  assert.equal(await client.ended(), { type: 'end', code: 0 })
  assert.is(client.text('stdout').toString(), 'secret')
  const task = await gateway.ask('GET', `/tasks/${answer.headers.get('x-task-id')}`)
  assert.equal([task.body.status, task.body.params], ['complete', undefined])
  assert.not.ok(JSON.stringify(task.body).includes('secret'))
})

test('the same request with the same Idempotency-Key is one stream, and one detached program', async () => {
  const key = { 'idempotency-key': randomUUID() }
  const ask = () => post('exec', { command: { Cmd: ['true'] } }, key)
  const [one, two] = [await ask(), await ask()]
  assert.equal(two.body, one.body)
  const before = muster.hypervisors[0]?.world.guest(uuid)?.programs_started ?? 0
  const other = { 'idempotency-key': randomUUID() }
  for (let n = 0; n < 2; n++) {
    const detached = await post('exec', { command: { Cmd: ['true'], Detach: true } }, other)
    assert.equal([detached.status, detached.body], [200, {}])
  }
  assert.is(muster.hypervisors[0]?.world.guest(uuid)?.programs_started, before + 1)
})

test('a file goes into the VM and comes out of it', async () => {
  const writing = await stream('copy', { path: '/root', mode: 'write' })
  writing.send({ type: 'data', data: archiveOf('note', 'kept') })
  writing.send({ type: 'end' })
  assert.equal(await writing.ended(), { type: 'end', code: 0 })
  const answer = await post('copy', { path: '/root/note' })
  assert.is(answer.body.containerPathStat.size, 4)
  const reading = openStream(answer.body as StreamAddress)
  await reading.ended()
  assert.is(reading.text('data').toString('latin1', 512, 516), 'kept')
})

test('statistics and a build come over their streams', async () => {
  const stats = await stream('stats', { payload: { stream: false } })
  assert.equal(await stats.ended(), { type: 'end' })
  assert.is(stats.others()[0]?.id, uuid)
  const build = await stream('build', { payload: { t: 'web:1' } })
  build.send({ type: 'data', data: archiveOf('Dockerfile', 'FROM scratch\n') })
  build.send({ type: 'end' })
  const end = await build.ended()
  assert.is(end?.code, 0)
  assert.match(end?.image ?? '', /^sha256:/)
})

test('what is missing is said in CNAPI’s words, and a guest that hangs holds nobody up', async () => {
  const hypervisor = muster.hypervisors[0]
  assert.ok(hypervisor)
  const missing = await post('copy', { path: '/no' })
  assert.equal([missing.status, missing.body.code], [404, 'FileNotFound'])
  hypervisor.world.setGuestAgent(uuid, false)
  const deaf = await post('exec', { command: { Cmd: ['true'] } })
  assert.equal([deaf.status, deaf.body.code], [409, 'GuestAgentNotConnected'])

  const release = hypervisor.faults.add({ call: 'hasGuestAgent', uuid, hang: true })
  const hanging = post('exec', { command: { Cmd: ['true'] } })
  const stats = await stream('stats', { payload: { stream: false } })
  assert.equal(await stats.ended(), { type: 'end' })
  const stopped = await gateway.ask('POST', `/servers/${muster.servers[0]}/vms/${uuid}/stop`, { body: { force: true } })
  const ended = await gateway.ask('GET', `/tasks/${stopped.body.id}/wait?timeout=20`)
  assert.is(ended.body.status, 'complete')
  release()
  assert.is((await hanging).status, 409)
  await eventually(async () => (await post('copy', { path: '/' })).body.code, { what: 'an answer' })
  const copy = await post('copy', { path: '/' })
  assert.equal([copy.status, copy.body.code], [409, 'DockerCopyStoppedContainerNoPlatformSupport'])
})

test.run()
