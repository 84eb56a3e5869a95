/**
 * The record of a server on a real NATS server: boot defaults that new nodes take over, deletion with everything that hangs on it, in the
 * middle of a crash too, nodes that come back, and a record that somebody removed by hand. The gateway runs in this process.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import * as assert from 'uvu/assert'
import type { ActorRecord } from '../../actors/contract/record.ts'
import { createApp } from '../../gateway/app.ts'
import { type NatsBackend, openNatsBackend } from '../../gateway/nats-backend.ts'
import { routes } from '../../gateway/routes.ts'
import { openLink } from '../../hypervisor-agent/link.ts'
import { startNode } from '../../hypervisor-agent/node.ts'
import { projectDir } from '../../scripts/config.ts'
import { key } from '../../services/nats/buckets.ts'
import { connectNats, type NatsConnection } from '../../services/nats/connect.ts'
import { provision } from '../../services/nats/provision.ts'
import { openRecords, publish, type Records } from '../../services/nats/records.ts'
import { eventually } from '../eventually.ts'
import { startNats, type TestNats } from '../nats.ts'
import { openSimulatedNode } from '../simulated-node.ts'
import { suite } from '../suite.ts'

const test = suite('server record')
const silent = pino({ level: 'silent' })
const undo: (() => unknown)[] = []
let nats: TestNats
let records: Records
let app: ReturnType<typeof createApp>
let host: ChildProcess
let gatewayNc: NatsConnection
let backend: NatsBackend
/** What the gateway in this process has warned of. */
const warnings: string[] = []

const connection = (inboxOwner: string) => connectNats({ servers: nats.urls, name: inboxOwner, inboxOwner })

/** An actor host as a process of its own, so that it can really be killed. */
function startHost(): ChildProcess {
  const child = spawn(process.execPath, ['--import', 'tsx', join(projectDir, 'services/actor-host/main.ts')], {
    cwd: projectDir,
    env: { PATH: process.env['PATH'], LOG_LEVEL: 'silent', NATS_URL: nats.url },
    stdio: 'ignore',
  })
  undo.push(() => child.kill('SIGKILL'))
  return child
}

test.before(async () => {
  nats = await startNats()
  undo.push(() => nats.stop())
  const nc = await connection('gateway')
  undo.push(() => nc.close())
  await provision(nc)
  records = openRecords(nc)
  host = startHost()
  gatewayNc = nc
  const warn = (problem: string) => void warnings.push(problem)
  backend = await openNatsBackend({ nc, sender: `test-${randomUUID()}`, warn })
  undo.push(() => backend.close())
  app = createApp({ rows: routes('1.2.3'), backend, log: silent, version: '1.2.3', serverName: 'here' })
})
test.after(async () => {
  for (const step of undo.splice(0).reverse()) await step()
})

async function ask(method: string, path: string, body?: unknown, headers: Record<string, string> = {}) {
  const text = body === undefined ? undefined : JSON.stringify(body)
  const json = { 'content-type': 'application/json', 'content-length': String(Buffer.byteLength(text ?? '')) }
  const response = await app.request(path, {
    method,
    headers: { ...(text === undefined ? {} : json), ...headers },
    ...(text === undefined ? {} : { body: text }),
  })
  const received = await response.text()
  // biome-ignore lint/suspicious/noExplicitAny: what a test expects of a body says its type
  return { status: response.status, body: (received === '' ? undefined : JSON.parse(received)) as any }
}

/** A node of the old sort: it speaks HTTP, and nobody answers its offers. */
async function silentNode(sysinfo: Record<string, unknown> = {}): Promise<string> {
  const uuid = randomUUID()
  await register(uuid, sysinfo)
  return uuid
}

async function register(uuid: string, more: Record<string, unknown> = {}): Promise<void> {
  const sysinfo = { UUID: uuid, Hostname: 'node', 'MiB of Memory': '8192', Setup: 'true', ...more }
  assert.is((await ask('POST', `/servers/${uuid}/sysinfo`, { sysinfo })).status, 200)
}

async function agentNode(delayMs = 1) {
  const uuid = randomUUID()
  const stateDir = mkdtempSync(join(tmpdir(), 'muster-record-'))
  const delays = { call: delayMs, boot: delayMs, acpi: delayMs }
  const { hypervisor, tools } = await openSimulatedNode({ seed: uuid, stateDir, delays, execute: {} })
  const nc = await connection(uuid)
  const timings = { settleMs: 20, apartMs: 60, heartbeatMs: 500, pressEveryMs: 40, lookEveryMs: 20 }
  const open = { openLink: () => openLink(nc, uuid), stateDir, log: silent, timings }
  const node = await startNode({ serverUuid: uuid, hypervisor, tools, ...open })
  undo.push(
    () => rmSync(stateDir, { recursive: true, force: true }),
    () => nc.close(),
    () => hypervisor.close(),
    () => node.stop(),
  )
  await isRunning(uuid)
  return { uuid, hypervisor }
}

const isRunning = (uuid: string) =>
  eventually(async () => (await ask('GET', `/servers/${uuid}`)).body.status === 'running', {
    withinMs: 15_000,
    what: 'the server to run',
  })

const ended = async (id: string) => (await ask('GET', `/tasks/${id}/wait?timeout=15`)).body
const vmSpec = { ram: 128, vcpus: 1, alias: 'web', disks: [{ size: 64 }], nics: [] }

/** A server with a VM being made, a start that waits for it, a task of its own, tickets, and a hostname with a network. */
async function busyNode(uuid: string) {
  const created = await ask('POST', `/servers/${uuid}/vms`, vmSpec)
  assert.is(created.status, 200, JSON.stringify(created.body))
  const vm = await eventually(async () => (await ask('GET', `/servers/${uuid}/vms`)).body[0]?.uuid as string)
  const start = await ask('POST', `/servers/${uuid}/vms/${vm}/start`, {})
  const nop = await ask('POST', `/servers/${uuid}/nop`, { sleep: 60 })
  const expires_at = new Date(Date.now() + 600_000).toISOString()
  const ticket = await ask('POST', `/servers/${uuid}/tickets`, { scope: 'vm', id: vm, expires_at })
  assert.equal([start.status, nop.status, ticket.status], [200, 200, 202])
  return { vm, tasks: [created.body.id, start.body.id, nop.body.id] as string[], ticket: ticket.body.uuid as string }
}

async function assertGone(uuid: string, { vm, tasks, ticket }: Awaited<ReturnType<typeof busyNode>>): Promise<void> {
  for (const id of tasks) {
    const task = await ended(id)
    assert.equal([task.status, task.error?.code], ['failure', 'ServerDeleted'])
  }
  assert.equal((await ask('GET', `/servers/${uuid}`)).body, {
    code: 'ResourceNotFound',
    message: `Server ${uuid} not found`,
  })
  assert.is((await ask('GET', `/tickets/${ticket}`)).status, 404)
  // A forgotten VM's record goes when its last effects are acknowledged.
  await eventually(async () => (await records.get('vm', vm)) === undefined, {
    withinMs: 20_000,
    what: 'the VM to be gone',
  })
  for (const part of [key.sysinfo(uuid), key.status(uuid)]) assert.is(await records.get('inventory', part), undefined)
  const list = await ask('GET', `/servers?uuids=${uuid}`)
  assert.equal(list.body, [])
}

test('a server is deleted with its operations in flight, its VMs, tickets and inventory, and stays away', async () => {
  const uuid = await silentNode()
  const status = { vms: {}, meminfo: { total_bytes: 1 } }
  assert.is((await ask('POST', `/servers/${uuid}/events/status`, status)).status, 204)
  const busy = await busyNode(uuid)
  assert.is((await ask('DELETE', `/servers/${uuid}`)).status, 204)
  await assertGone(uuid, busy)
  assert.is((await ask('DELETE', `/servers/${uuid}`)).status, 404)
  // Beats of a node that nobody knows are lost, and its reports are refused.
  assert.is((await ask('POST', `/servers/${uuid}/events/heartbeat`, {})).status, 204)
  assert.is((await ask('POST', `/servers/${uuid}/events/status`, status)).status, 404)
  assert.is((await ask('GET', `/servers/${uuid}`)).status, 404)
})

test('reports and beats that meet a deletion leave nothing of the server behind', async () => {
  const uuids = await Promise.all(Array.from({ length: 30 }, () => silentNode()))
  const post = (uuid: string, event: string, body: unknown) => ask('POST', `/servers/${uuid}/events/${event}`, body)
  const beat = (uuid: string, n: number) =>
    Promise.all([
      post(uuid, 'heartbeat', {}),
      post(uuid, 'status', { vms: {}, meminfo: { total_bytes: n }, boot_time: `${n}` }),
    ])
  await Promise.all(
    uuids.map(async (uuid, n) => {
      const beats = Array.from({ length: 12 }, async (_, at) => {
        await new Promise(resolve => setTimeout(resolve, at * 10))
        return beat(uuid, at)
      })
      await new Promise(resolve => setTimeout(resolve, n * 3))
      assert.is((await ask('DELETE', `/servers/${uuid}`)).status, 204)
      await Promise.all(beats)
    }),
  )
  for (const uuid of uuids) {
    // What it has reported goes with a deadline after the deletion, the sysinfo with the rest.
    await eventually(async () => (await records.get('inventory', key.sysinfo(uuid))) === undefined)
    const [, late] = await beat(uuid, 99)
    assert.equal([late.status, await records.get('inventory', key.status(uuid))], [404, undefined], uuid)
    const record = (await records.get('cn', uuid))?.value as ActorRecord
    assert.is(record.state, 'deleted')
  }
})

test('a sysinfo brings a deleted server back as a new one', async () => {
  const uuid = await silentNode()
  await ask('POST', `/servers/${uuid}`, { comments: 'old', traits: { a: 1 }, next_reboot: '2030-01-01T00:00:00.000Z' })
  const heard = async () => (await ask('GET', `/servers/${uuid}`)).body.last_heartbeat
  await ask('POST', `/servers/${uuid}/events/heartbeat`, {})
  await eventually(heard, { what: 'the beat to be shown' })
  assert.is((await ask('DELETE', `/servers/${uuid}`)).status, 204)
  await register(uuid, { Setup: undefined, Hostname: 'other' })
  assert.is(await heard(), null, 'beats of its earlier life do not count')
  const { body } = await ask('GET', `/servers/${uuid}`)
  assert.equal(
    [body.status, body.hostname, body.comments, body.traits, body.setup, body.next_reboot],
    ['running', 'other', '', {}, false, undefined],
  )
})

test('a keyed deletion that is repeated is answered as the first was', async () => {
  const uuid = await silentNode()
  const headers = { 'idempotency-key': randomUUID() }
  for (let n = 0; n < 3; n++) assert.is((await ask('DELETE', `/servers/${uuid}`, undefined, headers)).status, 204)
  assert.is((await ask('DELETE', `/servers/${uuid}`)).status, 404)
})

for (const afterMs of [0, 5]) {
  test(`a host that dies ${afterMs} ms into a deletion leaves it to the next, which finishes it`, async () => {
    const uuid = await silentNode()
    const busy = await busyNode(uuid)
    const deletion = ask('DELETE', `/servers/${uuid}`)
    await new Promise(resolve => setTimeout(resolve, afterMs))
    host.kill('SIGKILL')
    host = startHost()
    assert.is((await deletion).status, 204)
    await assertGone(uuid, busy)
  })
}

test(
  'a server with thousands of VMs is deleted with all of them, although its owner dies in the middle',
  async () => {
    const uuid = await silentNode()
    const ids = Array.from({ length: 2_500 }, () => randomUUID())
    const vms = Object.fromEntries(ids.map(id => [id, { uuid: id, state: 'running' }]))
    assert.is((await ask('POST', `/servers/${uuid}/events/status`, { vms, meminfo: {}, diskinfo: {} })).status, 204)
    await eventually(() => backend.vms.of(uuid).length === ids.length, {
      withinMs: 60_000,
      what: 'all VMs to be found',
    })
    assert.is((await ask('DELETE', `/servers/${uuid}`)).status, 204)
    assert.ok(backend.vms.of(uuid).length > 0, 'the owner has forgotten all of them before it could die')
    host.kill('SIGKILL')
    host = startHost()
    await eventually(() => backend.vms.of(uuid).length === 0, { withinMs: 60_000, what: 'all VMs to be forgotten' })
    for (const id of ids.filter((_, n) => n % 100 === 0)) assert.is(await records.get('vm', id), undefined)
    const mark = (await records.get('cn', uuid))?.value as ActorRecord
    assert.is(mark.state, 'deleted')
    const isForgetting = async () => {
      const record = (await records.get('cn', uuid))?.value as ActorRecord
      return record.snapshot.context['forgetting'] !== undefined
    }
    await eventually(async () => !(await isForgetting()), { withinMs: 10_000, what: 'the mark to know it' })
  },
  { limitMs: 150_000 },
)

test('a node with an agent comes back by itself, and its VM is discovered again', async () => {
  const { uuid, hypervisor } = await agentNode()
  const made = await ask('POST', `/servers/${uuid}/vms`, vmSpec)
  const task = await ended(made.body.id)
  assert.is(task.status, 'complete', JSON.stringify([made, task]))
  const [vm] = (await ask('GET', `/servers/${uuid}/vms`)).body
  await ask('POST', `/servers/${uuid}`, { comments: 'old' })
  assert.is((await ask('DELETE', `/servers/${uuid}`)).status, 204)
  // Something happens on the node: its report is answered that there is no such server.
  await hypervisor.powerOff(vm.uuid, { graceful: false })
  await isRunning(uuid)
  assert.is((await ask('GET', `/servers/${uuid}`)).body.comments, '')
  const found = await eventually(async () => (await ask('GET', `/servers/${uuid}/vms`)).body[0], { withinMs: 15_000 })
  assert.equal([found.uuid, found.alias], [vm.uuid, 'web'])
  const record = (await records.get('vm', vm.uuid))?.value as ActorRecord
  assert.is(record.snapshot.context['discovered'], true)
  const again = await ask('POST', `/servers/${uuid}/vms/${vm.uuid}/start`, {})
  assert.is(again.status, 200, JSON.stringify(again.body))
  assert.is((await ended(again.body.id)).status, 'complete')
})

test('operations do not wait for a server whose record was removed by hand, and its node registers again', async () => {
  const { uuid } = await agentNode(2_000)
  const { body } = await ask('POST', `/servers/${uuid}/vms`, vmSpec)
  const vm = await eventually(async () => (await ask('GET', `/servers/${uuid}/vms`)).body[0]?.uuid as string)
  const second = await ask('POST', `/servers/${uuid}/vms/${vm}/start`, {})
  await records.delete('cn', uuid)
  for (const id of [body.id, second.body.id]) {
    const task = await ended(id)
    assert.equal([task.status, task.error?.code], ['failure', 'ServerDeleted'])
  }
  const record = (await records.get('vm', vm))?.value as ActorRecord | undefined
  assert.is(record?.snapshot.context['operation'], null)
  await isRunning(uuid)
  const nop = await ask('POST', `/servers/${uuid}/nop`, {})
  assert.is((await ended(nop.body.id)).status, 'complete')
})

test('new nodes begin with the boot defaults, however they register; known ones keep theirs', async () => {
  const before = await silentNode({ 'Live Image': '6.1.0-1-amd64' })
  assert.is((await ask('GET', '/boot/default')).body.platform, undefined)
  const defaults = {
    platform: '6.1.0-1-amd64',
    kernel_args: { console: 'ttyS1' },
    kernel_flags: { '-k': true },
    serial: 'ttya',
  }
  assert.is((await ask('PUT', '/boot/default', defaults)).status, 204)
  assert.is((await ask('POST', '/boot/default', { kernel_args: { quiet: true } })).status, 204)
  const kernel_args = { console: 'ttyS1', quiet: true }
  assert.equal((await ask('GET', '/boot/default')).body, { ...defaults, kernel_args, boot_modules: [] })
  const shown = (await ask('GET', '/servers/default')).body
  assert.equal([shown.uuid, shown.boot_params, shown.boot_platform], ['default', kernel_args, defaults.platform])
  assert.not.ok((await ask('GET', '/servers')).body.some((server: { uuid: string }) => server.uuid === 'default'))
  const { uuid } = await agentNode()
  const after = await silentNode({ 'Live Image': '6.1.0-1-amd64', Hostname: 'after' })
  for (const [id, hostname] of [
    [uuid, (await ask('GET', `/servers/${uuid}`)).body.hostname],
    [after, 'after'],
  ]) {
    const expected = { ...defaults, default_console: 'serial', boot_modules: [] }
    assert.equal((await ask('GET', `/boot/${id}`)).body, { ...expected, kernel_args: { ...kernel_args, hostname } })
  }
  assert.equal((await ask('GET', `/boot/${before}`)).body.kernel_args, { hostname: 'node' })
  for (const verb of ['POST', 'DELETE']) assert.is((await ask(verb, '/servers/default')).status, 409)
  assert.is((await ask('PUT', '/boot/default', {})).status, 204)
})

test('nodes register with the built-in boot defaults while the record of them is damaged, until it is removed and set again', async () => {
  const damages = ['{"state":', '"text"', '{"snapshot":{"context":{"boot_params":5}}}']
  for (const text of damages) {
    const bytes = Buffer.from(text)
    await publish(gatewayNc, { bucket: 'cn', key: 'default', bytes, expected: undefined, timeoutMs: 2_000 })
    warnings.length = 0
    const posted = await silentNode({ 'Live Image': '6.1.0-1-amd64' })
    assert.ok(
      warnings.some(warning => /damaged.*cn\/default/.test(warning)),
      `${text}: ${warnings}`,
    )
    const { uuid } = await agentNode()
    for (const id of [posted, uuid]) {
      const { status, body } = await ask('GET', `/servers/${id}`)
      assert.equal([status, body.status, body.default_console, body.serial], [200, 'running', 'serial', 'ttyb'])
    }
    const shown = (await ask('GET', '/boot/default')).body
    assert.equal([shown.kernel_args, shown.default_console, shown.serial], [{}, 'serial', 'ttyb'])
    const list = await ask('GET', '/servers?extras=all')
    assert.equal(
      [list.status, list.body.filter((server: { uuid?: string }) => server.uuid === posted).length],
      [200, 1],
    )
    assert.ok(list.body.every((server: { uuid?: string }) => server.uuid !== undefined && server.uuid !== 'default'))
  }
  await records.delete('cn', 'default')
  assert.is((await ask('PUT', '/boot/default', { serial: 'ttya' })).status, 204)
  assert.is((await ask('GET', `/servers/${await silentNode()}`)).body.serial, 'ttya')
  assert.is((await ask('PUT', '/boot/default', {})).status, 204)
})

test('what a node has installed can be chosen to boot, and PUT without a platform takes its latest', async () => {
  const { uuid } = await agentNode()
  const platforms = (await ask('GET', '/platforms?os=true')).body
  const { Platforms } = (await ask('GET', `/servers/${uuid}`)).body.sysinfo
  assert.ok(Platforms.length > 1)
  for (const { name } of Platforms) {
    assert.is(platforms[name].os, 'linux')
    assert.is((await ask('POST', `/servers/${uuid}`, { boot_platform: name })).status, 204)
    assert.is((await ask('GET', `/boot/${uuid}`)).body.platform, name)
  }
  const [latest] = Object.keys(platforms).filter(name => platforms[name].latest && platforms[name].os === 'linux')
  assert.is((await ask('PUT', `/boot/${uuid}`, {})).status, 202)
  assert.is((await ask('GET', `/boot/${uuid}`)).body.platform, latest)
  assert.is((await ask('POST', `/boot/${uuid}`, { platform: 'none' })).status, 409)
})

test.run()
