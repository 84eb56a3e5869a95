/** The agent as a process: killed in the middle of its work it owes nothing in the end, told to stop it stops, and it says what is wrong. */
import { type ChildProcess, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import type { TaskOffer, TaskReport } from '../../actors/contract/messages.ts'
import { projectDir } from '../../scripts/config.ts'
import { connectNats, type NatsConnection } from '../../services/nats/connect.ts'
import { decode, encode } from '../../services/nats/json.ts'
import { request } from '../../services/nats/request.ts'
import { parseArrival, pattern, subject } from '../../services/nats/subjects.ts'
import { eventually } from '../eventually.ts'
import { startNats, type TestNats } from '../nats.ts'
import { suite } from '../suite.ts'
import { vmSpec } from '../unit/agent-fixture.ts'

const test = suite('agent process')
let nats: TestNats
let nc: NatsConnection
let folder = ''
const children = new Set<ChildProcess>()

/** Everything any agent said, by server; every owner gives leave. */
const heard: { server: string; verb: string; payload: Record<string, unknown> }[] = []

test.before(async () => {
  nats = await startNats()
  nc = await connectNats({ servers: nats.urls, name: 'scripted owners', inboxOwner: 'host' })
  nc.subscribe(pattern.partitions(), {
    callback: (_, message) => {
      const arrival = parseArrival(message.subject)
      if (!arrival || !('verb' in arrival)) return
      heard.push({ server: arrival.id, verb: arrival.verb, payload: decode(message.data) as Record<string, unknown> })
      const values: Record<string, unknown> = { report: { go: true }, sync: { tasks: [] } }
      message.respond(encode({ value: values[arrival.verb] ?? {} }))
    },
  })
  await nc.flush()
  folder = mkdtempSync(join(tmpdir(), 'muster-agents-'))
})
test.after(async () => {
  for (const child of children) child.kill('SIGKILL')
  await nc?.close()
  await nats?.stop()
  rmSync(folder, { recursive: true, force: true })
})

interface Running {
  child: ChildProcess
  output: () => string
  exited: Promise<number | null>
}

function start(env: Record<string, string>): Running {
  const settings = { NATS_URL: nats.url, HYPERVISOR: 'simulated', SIMULATED_DELAY_MS: '15', ...env }
  const child = spawn(process.execPath, ['--import', 'tsx', join(projectDir, 'hypervisor-agent/main.ts')], {
    env: { PATH: process.env['PATH'], ...settings },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  children.add(child)
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', chunk => (output += chunk))
  const exited = new Promise<number | null>(resolve => child.on('exit', code => resolve(code)))
  return { child, output: () => output, exited }
}

const of = (server: string, verb: string) => heard.filter(one => one.server === server && one.verb === verb)
const reports = (server: string) => of(server, 'report').map(one => one.payload as unknown as TaskReport)
const ends = (server: string, id: string) =>
  reports(server).filter(one => one.id === id && (one.status === 'complete' || one.status === 'failure'))
const vmsOf = (server: string) =>
  (of(server, 'status').at(-1)?.payload['vms'] ?? {}) as Record<string, { state: string }>

/** Offers until accepted, as an owner does. */
const give = (server: string, offer: TaskOffer) =>
  eventually(async () => 'value' in (await request(nc, subject.agent(server, 'task'), offer, { deadlineMs: 1_000 })), {
    withinMs: 20_000,
    what: 'the acceptance of an offer',
  })

test(
  'killed again and again while it works, it ends every task once in effect, and guests outlive it',
  async () => {
    const server = randomUUID()
    const env = { STATE_DIR: join(folder, 'killed'), SERVER_UUID: server }
    let agent = start(env)
    const specs = Array.from({ length: 8 }, () => vmSpec())
    const creates = specs.map(spec => ({ id: randomUUID(), task: 'machine_create', params: { spec } }))
    for (const create of creates) await give(server, create)
    for (let kills = 0; kills < 4; kills++) {
      const before = reports(server).length
      await eventually(
        () => reports(server).length > before + 2 || creates.every(one => ends(server, one.id).length > 0),
        {
          withinMs: 20_000,
          what: 'some work',
        },
      )
      agent.child.kill('SIGKILL')
      await agent.exited
      agent = start(env)
    }
    for (const { id } of creates) {
      const end = (await eventually(() => ends(server, id)[0], {
        withinMs: 20_000,
        what: `the end of ${id}`,
      })) as TaskReport
      assert.is(end.status, 'complete', JSON.stringify(end))
    }
    await eventually(() => specs.every(spec => vmsOf(server)[spec.uuid]?.state === 'running'), {
      what: 'all VMs running',
    })
    const guests = JSON.parse(readFileSync(join(folder, 'killed', 'guests.json'), 'utf8')) as {
      guests: { boots: number }[]
    }
    assert.equal(
      guests.guests.map(guest => guest.boots),
      specs.map(() => 1),
    )

    // Told to stop, it stops in order; its guests are there for the next one.
    agent.child.kill('SIGTERM')
    assert.is(await agent.exited, 0)
    const mark = heard.length
    const next = start(env)
    await eventually(() => heard.slice(mark).some(one => one.verb === 'status'), { withinMs: 20_000, what: 'a status' })
    assert.is(Object.values(vmsOf(server)).filter(vm => vm.state === 'running').length, specs.length)
    next.child.kill('SIGTERM')
    assert.is(await next.exited, 0)
  },
  { limitMs: 120_000 },
)

test(
  'several nodes in one process are several servers, each with its own uuid and host',
  async () => {
    const stateDir = join(folder, 'fleet')
    const uuids = [randomUUID(), randomUUID(), randomUUID()]
    for (const [n, uuid] of uuids.entries()) {
      mkdirSync(join(stateDir, String(n + 1)), { recursive: true })
      writeFileSync(join(stateDir, String(n + 1), 'uuid'), `${uuid}\n`)
    }
    const agent = start({ STATE_DIR: stateDir, SIMULATED_NODES: '3' })
    await eventually(() => uuids.every(uuid => of(uuid, 'status').length > 0), {
      withinMs: 20_000,
      what: 'three servers',
    })
    const names = uuids.map(
      uuid => (of(uuid, 'sysinfo')[0]?.payload['sysinfo'] as { Hostname: string } | undefined)?.Hostname,
    )
    assert.ok(names.every(Boolean))
    assert.is(new Set(names).size, 3)
    const spec = vmSpec()
    await give(uuids[1] as string, { id: randomUUID(), task: 'machine_create', params: { spec } })
    await eventually(() => vmsOf(uuids[1] as string)[spec.uuid]?.state === 'running', { what: 'the VM on its node' })
    assert.is(vmsOf(uuids[0] as string)[spec.uuid], undefined)

    // One of them reboots: it registers in another boot with its guest started again, and the others notice nothing.
    const [other, rebooted] = uuids as [string, string, string]
    const bootTimes = (uuid: string) =>
      of(uuid, 'sysinfo').map(({ payload }) => Number((payload['sysinfo'] as Record<string, unknown>)['Boot Time']))
    const before = bootTimes(rebooted).at(-1) as number
    const id = randomUUID()
    await give(rebooted, { id, task: 'server_reboot', params: {} })
    await eventually(() => (bootTimes(rebooted).at(-1) as number) > before, { withinMs: 20_000, what: 'another boot' })
    // It may be told once more by the agent that comes back.
    assert.equal([...new Set(ends(rebooted, id).map(({ status }) => status))], ['complete'])
    const mark = heard.length
    await eventually(() => heard.slice(mark).some(({ server, verb }) => server === rebooted && verb === 'status'))
    assert.is(vmsOf(rebooted)[spec.uuid]?.state, 'running')
    assert.is(new Set(bootTimes(other)).size, 1)
    agent.child.kill('SIGTERM')
    assert.is(await agent.exited, 0)
  },
  { limitMs: 60_000 },
)

test('a second agent over the same folder is refused while the first lives, not after its death', async () => {
  const env = { STATE_DIR: join(folder, 'shared'), NATS_URL: 'nats://127.0.0.1:9' }
  const first = start(env)
  await eventually(() => first.output().includes('connecting to NATS'), { withinMs: 20_000, what: 'the first agent' })
  const second = start(env)
  assert.is(await second.exited, 1)
  assert.match(second.output(), new RegExp(`process ${first.child.pid} uses it`))
  first.child.kill('SIGKILL')
  await first.exited
  const third = start(env)
  await eventually(() => third.output().includes('connecting to NATS'), { withinMs: 20_000, what: 'the third agent' })
  third.child.kill('SIGKILL')
})

test('without NATS it waits, and still stops when told', async () => {
  const agent = start({ STATE_DIR: join(folder, 'waiting'), NATS_URL: 'nats://127.0.0.1:9' })
  await eventually(() => agent.output().includes('connecting to NATS'), { withinMs: 20_000, what: 'its first words' })
  agent.child.kill('SIGTERM')
  assert.is(await agent.exited, 0)
})

test('what is wrong with its settings, its folder or its libvirt is one clear message and exit code 1', async () => {
  const cases: [Record<string, string>, RegExp][] = [
    [{ STATE_DIR: join(folder, 'x'), HYPERVISOR: 'xen' }, /HYPERVISOR: must be libvirt or simulated/],
    [{ STATE_DIR: '/etc/passwd/x' }, /STATE_DIR=.*writable/],
    [{ STATE_DIR: join(folder, 'y'), HYPERVISOR: 'libvirt', LIBVIRT_SOCKET: '/no/such/socket' }, /\/no\/such\/socket/],
    [{ STATE_DIR: join(folder, 'z'), NATS_SEED_FILE: '/no/such/seed' }, /\/no\/such\/seed/],
  ]
  for (const [env, expected] of cases) {
    const agent = start(env)
    assert.is(await agent.exited, 1)
    assert.match(agent.output(), expected)
    assert.not.match(agent.output(), /\n\s+at /, 'no stack')
  }
})

test.run()
