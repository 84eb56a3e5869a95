/** Setup, reboot, factory reset and NICs the whole way: REST, the compute node's actor on a real nats-server, and a simulated node. */
import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { Kvm } from '@nats-io/kv'
import * as assert from 'uvu/assert'
import { projectDir } from '../../scripts/config.ts'
import { actorHost } from '../../scripts/processes.ts'
import { partitionOf } from '../../services/nats/subjects.ts'
import { ownerOf } from '../../services/runtime/rendezvous.ts'
import { eventually } from '../eventually.ts'
import { type GatewayProcess, type MusterFixture, startMuster } from '../muster-fixture.ts'
import { suite } from '../suite.ts'

const test = suite('jobs, whole way')
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
const world = () => muster.hypervisors[0]!.world
const server = async () => (await ask('GET', one)).body

/** Actor hosts with a lease. */
async function hosts(): Promise<string[]> {
  const found: string[] = []
  for await (const key of await (await new Kvm(muster.nc).open('lease')).keys()) found.push(key)
  return found
}

/** Starts a job. */
async function start(method: string, path: string, body?: unknown): Promise<string> {
  const { status, body: started } = await ask(method, `${one}/${path}`, body === undefined ? {} : { body })
  assert.is(status, 202, JSON.stringify(started))
  return started.job_uuid
}

/** Starts a job, waits for its end, and tells its record. */
async function job(method: string, path: string, body?: unknown) {
  return (await ask('GET', `/jobs/${await start(method, path, body)}/wait?timeout=30`)).body
}

/** Sends a request that becomes a task and returns the task at its end. */
async function task(method: string, path: string, body?: unknown) {
  const { status, body: started } = await ask(method, path, body === undefined ? {} : { body })
  assert.is(status, 200, JSON.stringify(started))
  return (await ask('GET', `/tasks/${started.id}/wait?timeout=20`)).body
}

const names = ({ chain_results }: { chain_results: { name: string }[] }) => chain_results.map(({ name }) => name)
const macOf = async () => {
  const interfaces = Object.values((await server()).sysinfo['Network Interfaces']) as Record<string, unknown>[]
  return String(interfaces.find(nic => nic['MAC Address'] && nic['Bridge'])?.['MAC Address'])
}
const tagsOf = async () => {
  const interfaces = Object.values((await server()).sysinfo['Network Interfaces']) as { 'NIC Names': string[] }[]
  return new Set(interfaces.flatMap(nic => nic['NIC Names']))
}

test('a setup makes the pool, gives tags and name, runs its script, and is not done twice', async () => {
  world().removePool()
  assert.is((await ask('POST', `${one}/sysinfo-refresh`)).status, 200)
  assert.is((await server()).setup, false)
  const nics = [{ mac: await macOf(), nic_tags_provided: ['storage'] }]
  const body = { hostname: 'node7.example.com', nics, postsetup_script: 'exit 0' }
  const done = await job('PUT', 'setup', body)
  assert.equal([done.execution, done.error], ['succeeded', undefined])
  assert.equal(names(done), ['check', 'storage', 'nics', 'hostname', 'script', 'sysinfo', 'record'])
  const { setup, setting_up, hostname, sysinfo } = await server()
  assert.equal([setup, setting_up, hostname, sysinfo.Hostname], [true, false, body.hostname, body.hostname])
  assert.ok((await tagsOf()).has('storage'))
  assert.is((await ask('PUT', `${one}/setup`, { body })).status, 204)
})

test('a setup whose script fails says so and can be asked for again', async () => {
  world().removePool()
  await ask('POST', `${one}/sysinfo-refresh`)
  const failed = await job('PUT', 'setup', { postsetup_script: 'exit 3' })
  assert.equal([failed.execution, failed.error.code, names(failed).at(-1)], ['failed', 'ScriptFailed', 'script'])
  await ask('POST', `${one}/sysinfo-refresh`)
  assert.equal([(await server()).setup, (await server()).setting_up], [false, false])
  assert.is((await job('PUT', 'setup')).execution, 'succeeded')
})

test('a drained reboot waits, lets nothing in, and the node is back with a new boot time and its guests', async () => {
  const made = await task('POST', `${one}/vms`, { ram: 128, quota: 1, autoboot: true })
  assert.is(made.status, 'complete', JSON.stringify(made.error))
  const { last_boot } = await server()
  const { body: busy } = await ask('POST', `${one}/nop`, { body: { sleep: 1 } })
  const uuid = await start('POST', 'reboot', { drain: true })
  assert.is(await start('POST', 'reboot', { drain: true }), uuid, 'the same again is the one that runs')
  assert.equal((await ask('PUT', `${one}/factory-reset`)).status, 409)
  const refused = await task('POST', `${one}/nop`, {})
  assert.equal([refused.status, refused.error?.code], ['failure', 'AgentPaused'])
  const done = (await ask('GET', `/jobs/${uuid}/wait?timeout=30`)).body
  assert.equal([done.execution, names(done)], ['succeeded', ['drain', 'reboot', 'boot', 'resume']])
  assert.is((await ask('GET', `/tasks/${busy.id}`)).body.status, 'complete')
  const after = await server()
  assert.ok(Date.parse(after.last_boot) > Date.parse(last_boot))
  assert.equal([after.status, after.transitional_status], ['running', undefined])
  assert.is(world().power.boots(), 2, 'once')
  await eventually(() => world().guest(made.vm_uuid)?.state === 'running')
  assert.is((await task('POST', `${one}/nop`, {})).status, 'complete')
  assert.is((await task('DELETE', `${one}/vms/${made.vm_uuid}`)).status, 'complete')
})

test('a job is waited for through another gateway after the death of the one that started it', async () => {
  const dying = await muster.gateway()
  const { body } = await dying.ask('POST', `${one}/reboot`)
  await dying.end('SIGKILL')
  const done = (await ask('GET', `/jobs/${body.job_uuid}/wait?timeout=30`)).body
  assert.equal([done.execution, names(done)], ['succeeded', ['reboot', 'boot']])
})

test('a canceled drain lets tasks in again and reboots nothing', async () => {
  const boots = world().power.boots()
  const { body: busy } = await ask('POST', `${one}/nop`, { body: { sleep: 60 } })
  const uuid = await start('POST', 'reboot', { drain: true })
  const canceled = await ask('POST', `/jobs/${uuid}/cancel`)
  assert.equal([canceled.status, canceled.body.execution], [200, 'canceled'])
  assert.is((await task('POST', `${one}/nop`, {})).status, 'complete')
  await ask('POST', `/tasks/${busy.id}/cancel`)
  assert.is(world().power.boots(), boots)
})

test('a paused server takes no task and no VM until it is resumed, and twice is once', async () => {
  const place = () => ask('POST', '/vms', { body: { ram: 128, quota: 1 } })
  for (const _ of [1, 2]) assert.is((await ask('POST', `${one}/cn-agent/pause`)).status, 204)
  assert.is((await task('POST', `${one}/nop`, {})).error.code, 'AgentPaused')
  assert.equal([(await place()).status, (await place()).body.code], [409, 'NoAllocatableServersError'])
  for (const _ of [1, 2]) assert.is((await ask('POST', `${one}/cn-agent/resume`)).status, 204)
  const placed = await place()
  assert.is(placed.status, 200, JSON.stringify(placed.body))
  await ask('GET', `/tasks/${placed.body.id}/wait`)
  assert.is((await task('DELETE', `${one}/vms/${placed.body.vm_uuid}`)).status, 'complete')
})

test('an agent stops a canceled task at once, though it has no progress to report', async () => {
  const made = await task('POST', `${one}/vms`, { ram: 128, quota: 1 })
  const vm = `${one}/vms/${made.vm_uuid}`
  world().setAcpi(made.vm_uuid, 'ignores')
  const { body: stop } = await ask('POST', `${vm}/stop`, { body: { timeout: 600 } })
  // The agent works on it: a second verb would wait for its end.
  await eventually(async () => (await ask('GET', `/tasks/${stop.id}`)).body.progress !== undefined)
  assert.is((await ask('POST', `/tasks/${stop.id}/cancel`)).body.error.code, 'TaskCancelled')
  assert.is((await task('POST', `${vm}/kill`, {})).status, 'complete')
  assert.is((await task('DELETE', vm)).status, 'complete')
})

test('nic tags are given and taken, but not one that a VM uses', async () => {
  const mac = await macOf()
  const change = (action: string, tags: string[]) => ({ action, nics: [{ mac, nic_tags_provided: tags }] })
  const given = await job('PUT', 'nics', change('update', ['customer']))
  assert.equal([given.execution, names(given)], ['succeeded', ['nics', 'sysinfo']])
  assert.ok((await tagsOf()).has('customer'))
  const nics = [{ nic_tag: 'customer', vlan_id: 10 }]
  const made = await task('POST', `${one}/vms`, { ram: 128, quota: 1, nics })
  assert.is(made.status, 'complete', JSON.stringify(made.error))
  const refused = await ask('PUT', `${one}/nics`, { body: change('delete', ['customer']) })
  assert.equal([refused.status, refused.body.code], [409, 'NicTagInUse'])
  await task('DELETE', `${one}/vms/${made.vm_uuid}`)
  assert.is((await job('PUT', 'nics', change('delete', ['customer']))).execution, 'succeeded')
  assert.not.ok((await tagsOf()).has('customer'))
  const unknown = await job('PUT', 'nics', {
    action: 'update',
    nics: [{ mac: '52:54:00:00:00:01', nic_tags_provided: ['x'] }],
  })
  assert.equal([unknown.execution, unknown.error.code], ['failed', 'NicNotFound'])
})

test('a factory reset waits for no VM, and leaves a server that is not set up and can be set up again', async () => {
  const made = await task('POST', `${one}/vms`, { ram: 128, quota: 1 })
  const refused = await ask('PUT', `${one}/factory-reset`)
  assert.equal([refused.status, refused.body], [409, 'Server may not be reset because it has 1 vms'])
  await task('DELETE', `${one}/vms/${made.vm_uuid}`)
  const done = await job('PUT', 'factory-reset')
  assert.equal([done.execution, done.error], ['succeeded', undefined])
  assert.equal(names(done), ['drain', 'reset', 'reboot', 'boot', 'record'])
  assert.is((await server()).setup, false)
  assert.equal([(await job('PUT', 'setup')).execution, (await server()).setup], ['succeeded', true])
})

test('every job is found again, by its uuid and in the list', async () => {
  const { body: jobs } = await ask('GET', `/jobs?server_uuid=${muster.servers[0]}`)
  const { body: reboots } = await ask('GET', '/jobs?name=server-reboot&execution=succeeded')
  assert.is(reboots.length, 2)
  assert.is(new Set(jobs.map(({ uuid }: { uuid: string }) => uuid)).size, jobs.length)
  for (const listed of jobs) assert.equal((await ask('GET', `/jobs/${listed.uuid}`)).body, listed)
  assert.is((await ask('GET', `/jobs/${randomUUID()}`)).status, 404)
})

test('a job goes on where it was when the host that ran it is killed', async () => {
  const env = { PATH: process.env['PATH'], LOG_LEVEL: 'error' }
  const { command, args, ...program } = actorHost({ nats: { url: muster.nats.url, seedFile: () => undefined }, env })
  const before = await hosts()
  const doomed = spawn(command, args, { cwd: projectDir, env: program.env, stdio: 'ignore' })
  try {
    const joined = async () => (await hosts()).find(id => !before.includes(id))
    const id = await eventually(joined, { withinMs: 20_000, what: 'a second host' })
    const isItsOwn = (uuid: string) => ownerOf(partitionOf(uuid), [...before, id ?? '']) === id
    let uuid = await muster.node()
    while (!isItsOwn(uuid)) uuid = await muster.node()
    const at = muster.servers.indexOf(uuid)
    await ask('POST', `/servers/${uuid}/nop`, { body: { sleep: 2 } })
    const { body: started } = await ask('POST', `/servers/${uuid}/reboot`, { body: { drain: true } })
    doomed.kill('SIGKILL')
    const done = (await ask('GET', `/jobs/${started.job_uuid}/wait?timeout=25`)).body
    assert.equal([done.execution, names(done)], ['succeeded', ['drain', 'reboot', 'boot', 'resume']])
    assert.is(muster.hypervisors[at]?.world.power.boots(), 2, 'once')
  } finally {
    doomed.kill('SIGKILL')
  }
})

test('two reboots one right after the other are told apart', async () => {
  const boots = world().power.boots()
  const before = (await server()).sysinfo['Boot Id']
  for (const n of [1, 2]) {
    const done = await job('POST', 'reboot', {})
    assert.is(done.execution, 'succeeded', JSON.stringify(done))
    assert.is(world().power.boots(), boots + n)
  }
  const after = await server()
  assert.type(after.sysinfo['Boot Id'], 'string')
  assert.is.not(after.sysinfo['Boot Id'], before)
  assert.is(after.boot_id, undefined, 'only the sysinfo shows it')
})

test.run()
