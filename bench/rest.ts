/** REST calls in a second through the gateway: reads and reports (rest-reads.ts), then VMs are stopped and started beside the store alone. */
import type { TaskRecord } from '../actors/contract/task.ts'
import type { NatsConnection } from '../services/nats/connect.ts'
import { lastSequence } from '../services/nats/follow.ts'
import { publishHeartbeat } from '../services/nats/heartbeats.ts'
import { provision } from '../services/nats/provision.ts'
import { openView } from '../services/nats/view.ts'
import { eventually } from '../test/eventually.ts'
import { instantAgents } from './agents.ts'
import { startGateway } from './gateways.ts'
import { hammer, latency } from './hammer.ts'
import { coverage, realHost, serving } from './hosts.ts'
import { fill } from './load.ts'
import { rawCompareAndSet } from './raw.ts'
import { CLIENTS_MAX, inventoryEntry, restReads, SERVERS, startAllocator } from './rest-reads.ts'
import { type Cores, coresOf, type Scope } from './scope.ts'
import { serverEntry, serverUuid, vmEntry, vmUuid } from './seed.ts'
import { perSecond, type Row, seconds, shares, whole } from './table.ts'

const connections = 32
const vms = 2_000
const servers = SERVERS
/** The first ones have VMs. */
const withVms = 100

export async function rest(scope: Scope): Promise<Row[]> {
  const forMs = scope.short ? 500 : 8_000
  const nats = await scope.nats()
  const nc = await scope.connect(nats)
  await provision(nc)
  await fill(nc, 'cn', servers, serverEntry)
  await fill(nc, 'vm', Math.max(vms, coverage), n => vmEntry(n, n % withVms))
  const ofServer = (server: number) =>
    server < withVms ? Array.from({ length: vms / withVms }, (_, at) => server + at * withVms) : []
  await fill(nc, 'inventory', 2 * servers, n => inventoryEntry(n, ofServer))
  const agents = instantAgents(nc)
  const host = realHost(scope, nats)
  await serving(nc, host)
  await startAllocator(scope, nats, nc)
  const { client, running } = await startGateway(scope, nats, CLIENTS_MAX)
  // Without beats the nodes would count as silent after 11 s, and commands to them would be refused.
  const beating = setInterval(() => {
    for (let n = 0; n < servers; n++) publishHeartbeat(nc, serverUuid(n))
  }, 4_000)
  scope.defer(() => clearInterval(beating))
  const groups = { gateway: [running.pid], host: [host.pid], nats: nats.pids(), client: [process.pid] }

  const reads = await restReads(scope, client)

  scope.say('compare-and-set, the store alone')
  const raw = await rawCompareAndSet(nc, { prefix: 'raw', keys: vms, bytes: 2_048, inFlight: connections, forMs })

  scope.say('POST stop and start')
  let calls = 0
  const writtenBefore = await written(nc)
  const post = await coresOf(groups, () =>
    hammer({
      inFlight: connections,
      forMs,
      operation: () => {
        const n = calls % vms
        const verb = Math.floor(calls / vms) % 2 === 0 ? 'stop' : 'start'
        calls += 1
        return client.post(`/servers/${serverUuid(n % withVms)}/vms/${vmUuid(n)}/${verb}`)
      },
    }),
  )
  const drainFrom = performance.now()
  const through = () => agents.ended() >= calls || agents.problem()
  await eventually(through, { withinMs: 60_000, what: `the end of ${calls} tasks` })
  if (agents.problem()) throw agents.problem()
  const drainMs = performance.now() - drainFrom
  const writes = ((await written(nc)) - writtenBefore) / calls
  await allComplete(nc, calls)

  const detail = ({ value, cores }: { value: Parameters<typeof latency>[0]; cores: Cores }) =>
    `${latency(value)}; CPU ${shares(cores)}`
  return [
    ...reads,
    { what: 'compare-and-set, the store alone', figure: perSecond(raw.perSecond), detail: latency(raw) },
    {
      what: 'POST .../vms/:uuid/stop, start',
      figure: perSecond(post.value.perSecond),
      aim: { text: `its writes: ${((post.value.perSecond * writes) / raw.perSecond).toFixed(2)} of the store alone` },
      detail: `${detail(post)}; ${writes.toFixed(1)} writes a call; ${whole(calls)} tasks, all ended ${seconds(drainMs)} after the last call`,
    },
  ]
}

/** Writes so far into the buckets that a task touches. */
async function written(nc: NatsConnection): Promise<number> {
  const sequences = await Promise.all((['cn', 'vm', 'task'] as const).map(bucket => lastSequence(nc, bucket)))
  return sequences.reduce((sum, sequence) => sum + sequence, 0)
}

async function allComplete(nc: NatsConnection, count: number): Promise<void> {
  const view = await openView({ nc, bucket: 'task', project: (_key, value) => (value as TaskRecord).status })
  const complete = [...view.entries()].filter(([, status]) => status === 'complete').length
  view.close()
  if (view.size !== count || complete !== count) {
    throw new Error(`of ${count} tasks that were answered for, ${view.size} are there and ${complete} are complete`)
  }
}
