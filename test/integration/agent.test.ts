/** The agent over a real nats-server, with a scripted compute node actor: what it says, when, and what it does when nobody listens. */
import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import * as v from 'valibot'
import type { TaskOffer, TaskReport } from '../../actors/contract/messages.ts'
import { NetworkSummary, StatusEvent, Sysinfo } from '../../actors/contract/server.ts'
import { type Agent, startAgent } from '../../hypervisor-agent/agent.ts'
import { openLink } from '../../hypervisor-agent/link.ts'
import type { SimulatedHypervisor } from '../../hypervisor-agent/simulated/simulated.ts'
import { connectNats, type NatsConnection } from '../../services/nats/connect.ts'
import { decode, encode } from '../../services/nats/json.ts'
import { request } from '../../services/nats/request.ts'
import { parseArrival, pattern, subject } from '../../services/nats/subjects.ts'
import { eventually } from '../eventually.ts'
import { startNats, type TestNats } from '../nats.ts'
import { openSimulatedNode } from '../simulated-node.ts'
import { suite } from '../suite.ts'
import { silent, vmSpec } from '../unit/agent-fixture.ts'

const test = suite('agent over NATS')
let nats: TestNats
let ownerNc: NatsConnection

test.before(async () => {
  nats = await startNats()
  ownerNc = await connectNats({ servers: nats.urls, name: 'scripted owner', inboxOwner: 'host' })
})
test.after(async () => {
  await ownerNc?.close()
  await nats?.stop()
})

interface Call {
  verb: string
  payload: Record<string, unknown>
}

/** The compute node's side for one server: remembers every call and answers it, unless told not to. */
interface Owner {
  calls: Call[]
  beats: number
  open: TaskOffer[]
  /** Undefined: it does not answer. */
  answer: (call: Call) => unknown
  of(verb: string): Record<string, unknown>[]
  end(id: string): Promise<TaskReport>
  stop(): void
}

function scriptedOwner(serverUuid: string): Owner {
  const owner: Owner = {
    calls: [],
    beats: 0,
    open: [],
    answer: ({ verb }) =>
      ({ report: { value: { go: true } }, sync: { value: { tasks: owner.open } } })[verb] ?? { value: {} },
    of: verb => owner.calls.filter(call => call.verb === verb).map(call => call.payload),
    end: id =>
      eventually(
        () => (owner.of('report') as TaskReport[]).find(one => one.id === id && /complete|failure/.test(one.status)),
        { withinMs: 15_000, what: `the end of task ${id}` },
      ) as Promise<TaskReport>,
    stop: () => {
      for (const subscription of subscriptions) subscription.unsubscribe()
    },
  }
  const subscriptions = [
    ownerNc.subscribe(pattern.agentCalls(serverUuid), {
      callback: (_, message) => {
        const arrival = parseArrival(message.subject)
        if (!arrival || !('verb' in arrival)) throw new Error(`not an agent's call: ${message.subject}`)
        const call = { verb: arrival.verb, payload: decode(message.data) as Record<string, unknown> }
        owner.calls.push(call)
        const answer = owner.answer(call)
        if (answer !== undefined) message.respond(encode(answer))
      },
    }),
    ownerNc.subscribe(pattern.agentHeartbeat(serverUuid), {
      callback: () => {
        owner.beats += 1
      },
    }),
  ]
  return owner
}

interface Site {
  uuid: string
  owner: Owner
  hypervisor: SimulatedHypervisor
  stateDir: string
  start(): Promise<Agent>
  ask(what: 'task' | 'read', payload: unknown): Promise<{ value?: unknown; error?: { code: string; message: string } }>
}

/** A node with its scripted owner; everything is stopped afterwards. */
async function site(body: (made: Site) => Promise<void>): Promise<void> {
  const uuid = randomUUID()
  const stateDir = mkdtempSync(join(tmpdir(), 'muster-agent-'))
  const { hypervisor, tools } = await openSimulatedNode({
    seed: uuid,
    stateDir,
    images: { 'debian-12': 2048 },
    delays: { install: Number.POSITIVE_INFINITY },
  })
  const owner = scriptedOwner(uuid)
  await ownerNc.flush()
  const stops: (() => Promise<unknown>)[] = []
  const start = async () => {
    const nc = await connectNats({ servers: nats.urls, name: 'agent', inboxOwner: uuid, wait: true })
    const agent = await startAgent({
      serverUuid: uuid,
      hypervisor,
      tools,
      link: openLink(nc, uuid),
      stateDir,
      log: silent,
      timings: { settleMs: 20, apartMs: 60, heartbeatMs: 100, reconcileMs: 250, pressEveryMs: 40, lookEveryMs: 20 },
    })
    let isStopped = false
    const stop = async () => {
      if (isStopped) return
      isStopped = true
      await agent.stop()
      await nc.close()
    }
    stops.push(stop)
    return { stop }
  }
  const ask: Site['ask'] = (what, payload) =>
    request(ownerNc, subject.agent(uuid, what), payload, { deadlineMs: 5_000 }) as ReturnType<Site['ask']>
  try {
    await body({ uuid, owner, hypervisor, stateDir, start, ask })
  } finally {
    for (const stop of stops) await stop()
    owner.stop()
    await hypervisor.close()
    rmSync(stateDir, { recursive: true, force: true })
  }
}

const offer = (task: string, params: Record<string, unknown>): TaskOffer => ({ id: randomUUID(), task, params })

test('on connect it says who it is, asks what is open, then how things are', () =>
  site(async ({ uuid, owner, start }) => {
    await start()
    await eventually(() => owner.of('status').length > 0, { what: 'a status' })
    assert.equal(
      owner.calls.slice(0, 3).map(call => call.verb),
      ['sysinfo', 'sync', 'status'],
    )
    const sysinfo = v.parse(Sysinfo, owner.of('sysinfo')[0]?.['sysinfo'])
    assert.is(sysinfo.UUID, uuid)
    assert.is(sysinfo.Setup, true)
    assert.ok(Number(sysinfo['MiB of Memory']) > 0)
    assert.equal(sysinfo['Network Interfaces']?.['br0']?.['NIC Names'], ['admin'])
    assert.is(sysinfo['Network Interfaces']?.['br0']?.Bridge, 'br0')
    assert.is(sysinfo['SDC Agents']?.[0]?.name, 'cn-agent')
    assert.is(owner.of('sync')[0]?.['boot_time'], sysinfo['Boot Time'])
    const status = v.parse(StatusEvent, owner.of('status')[0])
    assert.equal(status.vms, {})
    assert.ok((status.meminfo?.availrmem_bytes ?? 0) > 0 && (status.diskinfo?.pool_size_bytes ?? 0) > 0)
  }))

test('it beats', () =>
  site(async ({ owner, start }) => {
    await start()
    await eventually(() => owner.beats >= 3, { what: 'three heartbeats' })
  }))

test('an offer is accepted, begun with leave, reported, and the change shows in the next status', () =>
  site(async ({ owner, start, ask }) => {
    await start()
    const spec = vmSpec({ alias: 'web' })
    const task = offer('machine_create', { spec })
    assert.equal(await ask('task', task), { value: { accepted: true } })
    const end = await owner.end(task.id)
    assert.is(end.status, 'complete', JSON.stringify(end))
    assert.is((owner.of('report') as TaskReport[])[0]?.status, 'accepted')
    await eventually(
      () => (owner.of('status').at(-1) as v.InferOutput<typeof StatusEvent>).vms?.[spec.uuid]?.state === 'running',
      { what: 'a status with the running VM' },
    )
  }))

test('an offer it cannot take is refused by code, naming the field', () =>
  site(async ({ start, ask }) => {
    await start()
    assert.is((await ask('task', offer('machine_dance', {}))).error?.code, 'TaskNotSupported')
    const bad = await ask('task', offer('network_create', { name: 'net', bridge: 'br0', vlan: 4095 }))
    assert.is(bad.error?.code, 'InvalidParameters')
    assert.match(bad.error?.message ?? '', /vlan/)
    assert.is((await ask('task', { nonsense: true })).error?.code, 'InvalidParameters')
  }))

test('a task without leave is never begun', () =>
  site(async ({ owner, hypervisor, start, ask }) => {
    owner.answer = ({ verb }) => (verb === 'report' ? { value: { go: false } } : { value: { tasks: [] } })
    await start()
    const spec = vmSpec()
    await ask('task', offer('machine_create', { spec }))
    await eventually(() => owner.of('report').length > 0, { what: 'the question' })
    // Another task after it has its turn, so the first has had it.
    owner.answer = ({ verb }) => (verb === 'report' ? { value: { go: true } } : { value: {} })
    const nop = offer('nop', {})
    await ask('task', nop)
    await owner.end(nop.id)
    assert.is(hypervisor.world.guest(spec.uuid), undefined)
    assert.is(owner.of('report').filter(one => one['id'] !== nop.id).length, 1)
  }))

test('an unanswered report is repeated until it is answered', () =>
  site(async ({ owner, start, ask }) => {
    await start()
    let deaf = 3
    owner.answer = ({ verb, payload }) => {
      if (verb !== 'report') return { value: { tasks: [] } }
      if (payload['status'] === 'complete' && deaf-- > 0)
        return { error: { code: 'ServiceUnavailableError', message: '' } }
      return { value: { go: true } }
    }
    const task = offer('nop', {})
    await ask('task', task)
    const ends = () => owner.of('report').filter(one => one['status'] === 'complete')
    await eventually(() => ends().length === 4, { what: 'the fourth report of the end' })
    assert.is(new Set(ends().map(end => JSON.stringify(end))).size, 1, 'always the same')
  }))

test('what is open and unknown here is started by sync', () =>
  site(async ({ owner, start }) => {
    const task = offer('nop', { sleep: 0.01 })
    owner.open = [task]
    await start()
    assert.is((await owner.end(task.id)).status, 'complete')
  }))

test('a task outlives its agent: the next one ends it', () =>
  site(async ({ owner, hypervisor, start, ask }) => {
    const first = await start()
    const release = hypervisor.faults.add({ call: 'startVm', hang: true })
    const spec = vmSpec()
    const task = offer('machine_create', { spec })
    await ask('task', task)
    await eventually(() => hypervisor.world.guest(spec.uuid), { what: 'the definition' })
    await first.stop()
    release()
    await start()
    assert.is((await owner.end(task.id)).status, 'complete')
    assert.is(hypervisor.world.guest(spec.uuid)?.boots, 1)
  }))

test('a guest that dies behind its back is told at once', () =>
  site(async ({ owner, hypervisor, start }) => {
    const spec = vmSpec()
    await hypervisor.defineVm(spec, { taskId: randomUUID() })
    await hypervisor.startVm(spec.uuid)
    await start()
    const seen = () =>
      (owner.of('status').at(-1) as v.InferOutput<typeof StatusEvent> | undefined)?.vms?.[spec.uuid]?.state
    await eventually(() => seen() === 'running', { what: 'running' })
    hypervisor.world.crash(spec.uuid)
    await eventually(() => seen() === 'failed', { withinMs: 2_000, what: 'failed' })
  }))

for (const agentDies of [false, true]) {
  test(`a network install shows as installing, then boots from disk by itself${agentDies ? ', also if the agent dies in between' : ''}`, () =>
    site(async ({ owner, hypervisor, start, ask }) => {
      const tree: Record<string, string> = {
        '/installer-amd64/current/images/MANIFEST': 'debian',
        '/installer-amd64/current/images/netboot/debian-installer/amd64/linux': 'kernel',
        '/installer-amd64/current/images/netboot/debian-installer/amd64/initrd.gz': 'initrd',
      }
      const web = createServer((request, response) => {
        const body = tree[request.url ?? '']
        response.writeHead(body ? 200 : 404).end(body)
      })
      await new Promise<void>(resolve => web.listen(0, '127.0.0.1', resolve))
      try {
        const agent = await start()
        const location = `http://127.0.0.1:${(web.address() as AddressInfo).port}/installer-amd64`
        const spec = { ...vmSpec(), install: { location, console: true } }
        const task = offer('machine_create', { spec })
        await ask('task', task)
        assert.is((await owner.end(task.id)).status, 'complete')
        type Vms = Record<string, { state: string; installing?: boolean }>
        const shown = () => (owner.of('status').at(-1)?.['vms'] as Vms | undefined)?.[spec.uuid]
        await eventually(() => shown()?.installing === true, { what: 'installing' })
        if (agentDies) await agent.stop()
        hypervisor.world.finishInstaller(spec.uuid)
        if (agentDies) await start()
        await eventually(() => shown()?.state === 'running' && !shown()?.installing, { what: 'running from disk' })
        assert.is(hypervisor.world.guest(spec.uuid)?.boots, 2)
        assert.is(hypervisor.world.guest(spec.uuid)?.installer, null)
      } finally {
        web.close()
        web.closeAllConnections()
      }
    }))
}

test('a storm of changes becomes few status events', () =>
  site(async ({ owner, hypervisor, start }) => {
    await start()
    await eventually(() => owner.of('status').length > 0)
    const before = owner.of('status').length
    for (let n = 0; n < 200; n++) hypervisor.world.reconnect()
    const spec = vmSpec()
    await hypervisor.defineVm(spec, { taskId: randomUUID() })
    await eventually(
      () =>
        (owner.of('status').at(-1)?.['vms'] as object) && JSON.stringify(owner.of('status').at(-1)).includes(spec.uuid),
    )
    assert.ok(owner.of('status').length - before <= 4, `${owner.of('status').length - before} status events`)
  }))

test('after a lost connection it greets again and beats again', () =>
  site(async ({ owner, start }) => {
    await start()
    await eventually(() => owner.of('status').length > 0)
    await nats.restart()
    await eventually(() => owner.of('sync').length >= 2, { withinMs: 15_000, what: 'a second sync' })
    const { beats } = owner
    await eventually(() => owner.beats > beats, { what: 'beats after it' })
  }))

test('live reads show VMs and networks, and say what is not there', () =>
  site(async ({ hypervisor, start, ask, uuid }) => {
    await start()
    const spec = vmSpec({
      alias: 'web',
      tags: { role: 'front' },
      nics: [{ mac: '52:54:00:00:00:01', nic_tag: 'admin' }],
    })
    await hypervisor.defineVm(spec, { taskId: randomUUID() })
    const read = async (name: string, params: object) => ask('read', { read: name, params })
    assert.is((await read('machine_info', { uuid: spec.uuid })).error?.code, 'VmNotRunning')
    await hypervisor.startVm(spec.uuid)
    const { value } = await read('machine_load', { uuid: spec.uuid })
    const vm = value as Record<string, unknown>
    assert.equal(
      ['uuid', 'alias', 'state', 'ram', 'vcpus', 'zonename', 'server_uuid', 'brand', 'autoboot'].map(key => vm[key]),
      [spec.uuid, 'web', 'running', 128, 1, spec.uuid, uuid, 'kvm', true],
    )
    assert.equal(vm['tags'], { role: 'front' })
    assert.is((vm['disks'] as { size: number }[])[0]?.size, 64)
    assert.is((vm['nics'] as { mac: string }[])[0]?.mac, '52:54:00:00:00:01')
    const info = (await read('machine_info', { uuid: spec.uuid, types: ['vnc'] })).value
    assert.type(info, 'string')
    assert.equal(Object.keys(JSON.parse(info as string)), ['vnc'])
    assert.ok(JSON.parse(info as string).vnc.port >= 5900)
    await hypervisor.createNetwork({ name: 'web-vlan', bridge: 'br0', vlan: 7 })
    assert.is(v.parse(NetworkSummary, (await read('network_load', { name: 'web-vlan' })).value).vlan, 7)
    assert.is(((await read('network_list', {})).value as unknown[]).length, 1)
    assert.is((await read('network_load', { name: 'absent' })).error?.code, 'NetworkNotFound')
    assert.is((await read('machine_load', { uuid: randomUUID() })).error?.code, 'VmNotFound')
    assert.is((await read('machine_load', { uuid: 'x' })).error?.code, 'InvalidParameters')
    assert.is((await read('machine_dance', {})).error?.code, 'TaskNotSupported')
    assert.equal(
      ((await read('domain_list', {})).value as { id: string; name: string; state: string }[]).map(d => [
        d.name,
        d.state,
      ]),
      [[spec.name, 'running']],
    )
  }))

test('a hanging hypervisor delays neither heartbeats nor offers', () =>
  site(async ({ owner, hypervisor, start, ask }) => {
    await start()
    await eventually(() => owner.of('status').length > 0)
    hypervisor.faults.add({ call: 'listVms', hang: true })
    hypervisor.faults.add({ call: 'inventory', hang: true })
    const nop = offer('nop', {})
    assert.equal(await ask('task', nop), { value: { accepted: true } })
    assert.is((await owner.end(nop.id)).status, 'complete')
    const { beats } = owner
    await eventually(() => owner.beats > beats + 1)
    hypervisor.faults.clear()
  }))

test.run()
