/**
 * What clients and node agents ask all the time: a server, a list of 1,000, a sysinfo, a heartbeat; each at 1 and 64 clients, beside a bare
 * Hono route that takes and returns the same bytes.
 */
import { allocator } from '../scripts/processes.ts'
import type { NatsConnection } from '../services/nats/connect.ts'
import { isAnnounced } from '../services/nats/micro.ts'
import { eventually } from '../test/eventually.ts'
import type { TestNats } from '../test/nats.ts'
import { startBare } from './gateways.ts'
import { hammer, latency, type Rate } from './hammer.ts'
import type { HttpClient } from './http.ts'
import type { Entry } from './load.ts'
import type { Scope } from './scope.ts'
import { serverUuid, vmUuid } from './seed.ts'
import { perSecond, type Row } from './table.ts'

/** Clients at once. */
export const CLIENTS_MAX = 64
export const SERVERS = 1_000

/** An allocator, so that servers are shown with what they have left. */
export async function startAllocator(scope: Scope, nats: TestNats, nc: NatsConnection): Promise<void> {
  const env = { ...process.env, LOG_LEVEL: 'warn' }
  scope.spawn(allocator({ nats: { url: nats.url, seedFile: () => undefined }, env }))
  await eventually(() => isAnnounced(nc, 'allocator'), { withinMs: 60_000, what: 'an allocator' })
}

const gib = 1024 ** 3

/** As an agent reports it: two disks, four NICs. */
export const sysinfoOf = (n: number) => ({
  UUID: serverUuid(n),
  Hostname: `node${n}`,
  'System Type': 'Linux',
  'Live Image': '20260101T000000Z',
  'Boot Time': '1767225600',
  'MiB of Memory': '262144',
  'CPU Total Cores': 64,
  Setup: 'true',
  'SDC Version': '7.0',
  Manufacturer: 'Example',
  Disks: { sda: { 'Size in GB': 960 }, sdb: { 'Size in GB': 960 } },
  'Network Interfaces': Object.fromEntries(
    [0, 1, 2, 3].map(at => [
      `eth${at}`,
      {
        'MAC Address': `52:54:00:00:00:0${at}`,
        ip4addr: `10.0.0.${at}`,
        'Link Status': 'up',
        'NIC Names': [`tag${at}`],
      },
    ]),
  ),
})

/** Sysinfos, then status events of servers with their VMs: two entries a server. */
export function inventoryEntry(n: number, vms: (server: number) => number[]): Entry {
  const server = n % SERVERS
  if (n < SERVERS) return { key: `${serverUuid(server)}.sysinfo`, text: JSON.stringify(sysinfoOf(server)) }
  const listed = vms(server).map(vm => [vmUuid(vm), { uuid: vmUuid(vm), state: 'running', max_physical_memory: 1024 }])
  const status = {
    vms: Object.fromEntries(listed),
    meminfo: { availrmem_bytes: 200 * gib, arcsize_bytes: 0, total_bytes: 256 * gib },
    diskinfo: { pool_size_bytes: 900 * gib, pool_alloc_bytes: 100 * gib },
    timestamp: new Date().toISOString(),
  }
  return { key: `${serverUuid(server)}.status`, text: JSON.stringify(status) }
}

interface Case {
  what: string
  ask: (client: HttpClient, turn: number) => Promise<unknown>
  /** Of bare at 64 clients. */
  aim?: number
  /** Times serialising the answer, for one client. */
  serialisingMax?: number
}

const cases: Case[] = [
  { what: 'GET /servers/:uuid', ask: (client, turn) => client.get(`/servers/${serverUuid(turn % 100)}`), aim: 0.5 },
  { what: `GET /servers, ${SERVERS}`, ask: client => client.get('/servers'), serialisingMax: 3 },
  {
    what: 'POST .../sysinfo',
    ask: (client, turn) =>
      client.post(`/servers/${serverUuid(turn % SERVERS)}/sysinfo`, { sysinfo: sysinfoOf(turn % SERVERS) }),
  },
  {
    what: 'POST .../events/heartbeat',
    ask: (client, turn) => client.post(`/servers/${serverUuid(turn % SERVERS)}/events/heartbeat`, {}),
  },
]

/** A row for each case and number of clients. */
export async function restReads(scope: Scope, client: HttpClient): Promise<Row[]> {
  const forMs = scope.short ? 200 : 3_000
  const warmUpMs = scope.short ? 100 : 1_000
  const rows: Row[] = []
  for (const { what, ask, aim, serialisingMax } of cases) {
    scope.say(what)
    const { text } = (await ask(client, 0)) as { text: string }
    const bare = await startBare(scope, Buffer.byteLength(text), CLIENTS_MAX)
    for (const inFlight of [1, CLIENTS_MAX]) {
      let turn = 0
      const run = (of: HttpClient) =>
        hammer({ inFlight, forMs, warmUpMs, operation: lane => ask(of, turn++ + lane * 7) })
      const limit = await run(bare.client)
      const rate = await run(client)
      rows.push(rowOf({ what, inFlight, rate, limit, text, aim, serialisingMax }))
    }
    await bare.running.stop()
  }
  return rows
}

interface Measured {
  what: string
  inFlight: number
  rate: Rate
  limit: Rate
  text: string
  aim: number | undefined
  serialisingMax: number | undefined
}

function rowOf({ what, inFlight, rate, limit, text, aim, serialisingMax }: Measured): Row {
  const share = rate.perSecond / limit.perSecond
  const isOne = inFlight === 1
  const times = isOne && serialisingMax ? rate.p50Ms / serialisingMs(text) : undefined
  const aims =
    times !== undefined && serialisingMax
      ? { text: `${times.toFixed(1)} x serialising, aim ${serialisingMax}`, met: times < serialisingMax }
      : {
          text: `${share.toFixed(2)} of bare${aim && !isOne ? `, aim ${aim}` : ''}`,
          ...(aim && !isOne ? { met: share >= aim } : {}),
        }
  return {
    what: `${what}; ${inFlight} client${isOne ? '' : 's'}`,
    figure: perSecond(rate.perSecond),
    aim: aims,
    detail: `${latency(rate)}; bare ${perSecond(limit.perSecond)}, ${latency(limit)}; ${Buffer.byteLength(text)} B`,
  }
}

/** Middle of several: to make the text from its objects. */
function serialisingMs(text: string): number {
  const value = JSON.parse(text)
  const took = Array.from({ length: 101 }, () => {
    const at = performance.now()
    JSON.stringify(value)
    return performance.now() - at
  })
  return took.sort((a, b) => a - b)[50]!
}
