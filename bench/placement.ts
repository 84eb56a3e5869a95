/**
 * Time of one placement decision: alone in this process, on generated fleets of 100, 1,000 and 10,000 servers with 20 VMs each; then
 * decisions a second over NATS and over HTTP.
 */
import { decide } from '../actors/allocation/decide.ts'
import { indexOf, knobsOf } from '../actors/allocation/document.ts'
import { KNOBS } from '../actors/allocation/fleet.ts'
import { allocator } from '../scripts/processes.ts'
import type { NatsConnection } from '../services/nats/connect.ts'
import { subject } from '../services/nats/subjects.ts'
import { eventually } from '../test/eventually.ts'
import type { TestNats } from '../test/nats.ts'
import { generate } from '../test/samples/allocation/fleet-gen.mjs'
import { filledNats } from './filled.ts'
import { startGateway } from './gateways.ts'
import { hammer } from './hammer.ts'
import { type Entry, fill } from './load.ts'
import { coresOf, memory, type Scope } from './scope.ts'
import { serverEntry, serverUuid, vmEntry } from './seed.ts'
import { mib, perSecond, type Row, seconds, shares, whole } from './table.ts'

const requests = 300
/** Half of all decisions must be quicker than this, ms. */
const AIMS: Record<number, number | undefined> = { 1000: 0.1, 10000: 1 }

export async function placement(scope: Scope): Promise<Row[]> {
  const sizes = scope.short ? [100] : [100, 1_000, 10_000]
  const alone = sizes.flatMap(servers => measure(servers, scope))
  return [...alone, ...(await started(scope)), ...(await served(scope))]
}

const startAimMs = 10_000

/** From nothing to the first answer, with the largest fleet that one allocator is meant for. */
async function started(scope: Scope): Promise<Row[]> {
  const servers = scope.short ? 50 : 10_000
  const { nats, nc } = await filledNats(scope, async loading => fillFleet(loading, servers))
  scope.say(`starting an allocator over ${whole(servers)} servers`)
  const began = performance.now()
  const running = scope.spawn(allocator(contextOf(nats)))
  await eventually(() => choose(nc, running, 'none'), { withinMs: 120_000, what: 'the allocator to answer' })
  const tookMs = performance.now() - began
  return [
    {
      what: `start with ${whole(servers)} servers and ${whole(servers * 20)} VMs`,
      figure: seconds(tookMs),
      aim: { text: `under ${seconds(startAimMs)}`, met: tookMs < startAimMs },
      detail: `${mib(memory(running.pid).now)} afterwards`,
    },
  ]
}

async function fillFleet(nc: NatsConnection, servers: number): Promise<void> {
  await fill(nc, 'cn', servers, serverEntry)
  await fill(nc, 'inventory', servers * 2, inventoryEntry)
  await fill(nc, 'vm', servers * 20, n => vmEntry(n, n % servers))
}

const contextOf = (nats: TestNats) => ({
  nats: { url: nats.url, seedFile: () => undefined },
  env: { ...process.env, LOG_LEVEL: 'warn' },
})

async function choose(nc: NatsConnection, running: { check(): void }, steps: 'none' | undefined) {
  running.check()
  const payload = JSON.stringify({ ...question, steps })
  const message = await nc.request(subject.allocator('choose'), payload, { timeout: 10_000 })
  const { value } = message.json<{ value?: { server_uuid: string | null } }>()
  if (!value?.server_uuid) throw new Error(`no server was chosen: ${message.string().slice(0, 300)}`)
  return message
}

/** Over NATS and over HTTP: an allocator and a gateway as processes of their own, 1,000 servers with 20 VMs each in the records. */
async function served(scope: Scope): Promise<Row[]> {
  const servers = scope.short ? 20 : 1_000
  scope.say(`writing ${whole(servers)} servers with 20 VMs each`)
  const { nats, nc } = await filledNats(scope, async loading => fillFleet(loading, servers))
  const running = scope.spawn(allocator(contextOf(nats)))
  await eventually(() => choose(nc, running, 'none'), { withinMs: 120_000, what: 'the allocator to answer' })
  const { client, running: gateway } = await startGateway(scope, nats, connections)
  const post = (query: string) => client.post(`/allocate${query}`, { image: {}, ...question })
  const forMs = scope.short ? 300 : 5_000
  const groups = { allocator: [running.pid], gateway: [gateway.pid], nats: nats.pids(), client: [process.pid] }
  const rows: Row[] = []
  for (const [what, operation] of [
    ['over NATS, no steps', () => choose(nc, running, 'none')],
    ['over NATS, steps', () => choose(nc, running, undefined)],
    ['over HTTP, no steps', () => post('?steps=none')],
    ['over HTTP, steps', () => post('')],
  ] as const) {
    scope.say(`decisions ${what}`)
    const { value, cores } = await coresOf(groups, () => hammer({ inFlight: connections, forMs, operation }))
    const { perSecond: rate, p50Ms, p99Ms } = value
    rows.push({
      what: `decisions ${what}`,
      figure: perSecond(rate),
      detail: `p50 ${p50Ms.toFixed(1)} ms, p99 ${p99Ms.toFixed(1)} ms; CPU ${shares(cores)}`,
      ...(what === 'over HTTP, no steps' ? { aim: { text: 'at least 1,000/s', met: rate >= 1_000 } } : {}),
    })
  }
  return rows
}

const connections = 32
const question = { vm: { owner_uuid: serverUuid(1), ram: 128, brand: 'kvm', vcpus: 1 }, nic_tags: ['external'] }
const gib = 2 ** 30

/** Two a server: its sysinfo and its status event. */
function inventoryEntry(n: number): Entry {
  const uuid = serverUuid(n >> 1)
  return n % 2
    ? { key: `${uuid}.status`, text: JSON.stringify(report) }
    : { key: `${uuid}.sysinfo`, text: JSON.stringify(sysinfo) }
}
const sysinfo = {
  'Live Image': '6.1.0',
  'System Type': 'Linux',
  Hypervisor: 'simulated',
  'CPU Total Cores': 64,
  'MiB of Memory': 262_144,
  'Network Interfaces': { br0: { 'Link Status': 'up', 'NIC Names': ['external', 'admin'], Bridge: 'br0' } },
}
const report = {
  meminfo: { availrmem_bytes: 128 * gib, arcsize_bytes: 0, total_bytes: 256 * gib },
  diskinfo: {
    ...{ kvm_zvol_used_bytes: 0, kvm_zvol_volsize_bytes: 0, kvm_quota_bytes: 0, kvm_quota_used_bytes: 0 },
    ...{ zone_quota_bytes: 0, zone_quota_used_bytes: 0, cores_quota_bytes: 0, cores_quota_used_bytes: 0 },
    ...{ installed_images_used_bytes: 0, pool_size_bytes: 4096 * gib, pool_alloc_bytes: gib, system_used_bytes: gib },
  },
}

function measure(servers: number, { say, short }: Scope): Row[] {
  say(`a fleet of ${servers}`)
  const document = generate({ servers, vms: 20, requests, seed: 9 })
  const knobs = { ...knobsOf(document), weight_uniform_random: KNOBS.weight_uniform_random }
  const began = performance.now()
  const index = indexOf(document, knobs)
  const layout = index.layout()
  const builtMs = performance.now() - began
  const rounds = short ? 1 : 10
  const times: number[] = []
  let placed = 0
  const cpu = process.cpuUsage()
  for (let turn = 0; turn < rounds * requests; turn += 1) {
    const request = document.requests[turn % requests]!
    const asked = performance.now()
    if (decide(layout, { request, seed: turn }, knobs).server) placed += 1
    // The first round is for the compiler.
    if (turn >= requests || short) times.push(performance.now() - asked)
  }
  const { user, system } = process.cpuUsage(cpu)
  if (placed === 0) throw new Error('no request found a server')
  times.sort((a, b) => a - b)
  const ms = (share: number) => times[Math.floor(share * (times.length - 1))] ?? Number.NaN
  const changedMs = changing(index, document, short ? 10 : 500)
  const aim = AIMS[servers]
  return [
    {
      what: `decision, ${whole(servers)} servers`,
      figure: `p50 ${ms(0.5).toFixed(3)} ms`,
      detail: `p99 ${ms(0.99).toFixed(3)} ms, least ${ms(0).toFixed(3)} ms, ${perSecond((1000 * rounds * requests) / ((user + system) / 1000))} of one core`,
      ...(aim === undefined ? {} : { aim: { text: `under ${aim} ms`, met: ms(0.5) < aim } }),
    },
    {
      what: `layout, ${whole(servers)} servers`,
      figure: `${builtMs.toFixed(0)} ms afresh`,
      detail: `${changedMs.toFixed(3)} ms after one VM has changed`,
    },
  ]
}

/** Mean time to take in one changed VM, ms. */
function changing(index: ReturnType<typeof indexOf>, { servers }: ReturnType<typeof generate>, turns: number): number {
  const [changed] = servers.filter(({ vms }) => Object.keys(vms ?? {}).length > 0)
  const vm = Object.values(changed!.vms!)[0]!
  const { uuid, owner_uuid, brand, max_physical_memory } = vm
  const began = performance.now()
  for (let turn = 0; turn < turns; turn += 1) {
    const ram = max_physical_memory + (turn % 2)
    index.setVm(uuid, { uuid, owner_uuid, brand, server_uuid: changed!.uuid, counts: true, max_physical_memory: ram })
    index.layout()
  }
  return (performance.now() - began) / turns
}
