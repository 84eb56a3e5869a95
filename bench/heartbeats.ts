/** What 10,000 nodes cost that do nothing but live: a connection each, a beat every 5 s, an actor host that watches for silence. */
import { join } from 'node:path'
import { HEARTBEAT_MS } from '../actors/contract/server.ts'
import { projectDir } from '../scripts/config.ts'
import { subscribeHeartbeats } from '../services/nats/heartbeats.ts'
import { provision } from '../services/nats/provision.ts'
import { openView } from '../services/nats/view.ts'
import { eventually } from '../test/eventually.ts'
import { coverage, realHost, serving } from './hosts.ts'
import { fill } from './load.ts'
import { coresOf, memory, type Scope } from './scope.ts'
import { serverEntry, vmEntry } from './seed.ts'
import { mib, type Row, share, shares, whole } from './table.ts'

const aimCores = 0.5

export async function heartbeats(scope: Scope): Promise<Row[]> {
  const nodes = scope.short ? 500 : 10_000
  const forMs = scope.short ? 2_000 : 25_000
  const nats = await scope.nats()
  const nc = await scope.connect(nats)
  await provision(nc)
  scope.say(`registering ${whole(nodes)} nodes`)
  await fill(nc, 'cn', nodes, serverEntry)
  await fill(nc, 'vm', coverage, n => vmEntry(n, n % nodes))
  const host = realHost(scope, nats)
  await serving(nc, host)

  scope.say('connecting an agent each')
  const port = new URL(nats.url).port
  const args = ['--import', 'tsx', join(projectDir, 'bench/beaters.ts'), port, String(nodes)]
  const beaters = scope.spawn({ name: 'beaters', file: 'beaters', command: process.execPath, args, env: process.env })
  const ready = () => {
    beaters.check()
    return beaters.said().includes('ready')
  }
  await eventually(ready, { withinMs: 60_000, what: 'all agents' })
  // Two periods: every node was heard, and what starting cost is over.
  await new Promise(resolve => setTimeout(resolve, scope.short ? 500 : 2 * HEARTBEAT_MS))

  scope.say('measuring')
  let heard = 0
  const stopCounting = subscribeHeartbeats(nc, () => void heard++)
  const [natsPid] = nats.pids()
  const { cores } = await coresOf({ nats: [natsPid], host: [host.pid] }, async () => {
    for (const end = performance.now() + forMs; performance.now() < end; ) {
      await new Promise(resolve => setTimeout(resolve, 250))
      for (const process of [host, beaters]) process.check()
    }
  })
  stopCounting()

  const view = await openView({ nc, bucket: 'cn', project: (_key, value) => (value as { state: string }).state })
  const alive = [...view.entries()].filter(([, state]) => state === 'running').length
  view.close()
  if (alive !== nodes) throw new Error(`${nodes - alive} of ${nodes} beating nodes were taken for silent`)
  const expected = (nodes * forMs) / HEARTBEAT_MS
  const allBeat = heard > expected * 0.95

  const together = (cores['nats'] ?? 0) + (cores['host'] ?? 0)
  return [
    {
      what: `CPU of ${whole(nodes)} beating nodes`,
      figure: `${share(together)} of a core`,
      aim: allBeat
        ? { text: `aim ${share(aimCores)}`, met: together <= aimCores }
        : { text: `only ${share(heard / expected)} of the beats were sent`, met: false },
      detail: `${shares(cores)}; ${whole(heard / (forMs / 1000))} beats/s heard, none of the nodes taken for silent`,
    },
    {
      what: 'memory',
      figure: mib(memory(natsPid ?? 0).now + memory(host.pid).now),
      detail: `nats ${mib(memory(natsPid ?? 0).now)} with ${whole(nodes)} connections, host ${mib(memory(host.pid).now)}`,
    },
  ]
}
