/** What a million ended tasks cost: to keep, to start with, and to find one of them by REST. */
import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { filledNats } from './filled.ts'
import { startGateway } from './gateways.ts'
import { hammer, latency } from './hammer.ts'
import { coverage, realHost, serving } from './hosts.ts'
import { fill } from './load.ts'
import { memory, type Scope } from './scope.ts'
import { bytesOf, endedTaskId, serverEntry, taskEntry, vmEntry } from './seed.ts'
import { mib, perSecond, type Row, seconds, whole } from './table.ts'

const connections = 16
const servers = 100

export async function endedTasks(scope: Scope): Promise<Row[]> {
  const tasks = scope.short ? 20_000 : 1_000_000
  const forMs = scope.short ? 500 : 6_000
  scope.say(`writing ${whole(tasks)} tasks`)
  let loadMs = 0
  const { nats, nc, recoveryMs } = await filledNats(scope, async loading => {
    await fill(loading, 'cn', servers, serverEntry)
    await fill(loading, 'vm', coverage, n => vmEntry(n, n % servers))
    loadMs = await fill(loading, 'task', tasks, n => taskEntry(n, servers))
  })
  const disk = sizeOf(nats.storeDirs[0] ?? '')

  scope.say('starting an actor host')
  const began = performance.now()
  const host = realHost(scope, nats)
  await serving(nc, host)
  const startMs = performance.now() - began

  scope.say('starting a gateway, getting tasks')
  const gatewayBegan = performance.now()
  const { client, running } = await startGateway(scope, nats, connections)
  const gatewayMs = performance.now() - gatewayBegan
  const anyTask = () => client.get(`/tasks/${endedTaskId(Math.floor(Math.random() * tasks))}`)
  const one = await hammer({ inFlight: 1, forMs: forMs / 2, operation: anyTask })
  const many = await hammer({ inFlight: connections, forMs, operation: anyTask })
  return [
    {
      what: `${whole(tasks)} ended tasks, written`,
      figure: seconds(loadMs),
      detail: `${perSecond((tasks / loadMs) * 1000)} of ${bytesOf(taskEntry(1))} B, synced by the clock while loading only; ${mib(disk)} on disk`,
    },
    {
      what: 'nats-server with them, to ready',
      figure: seconds(recoveryMs),
      detail: `${mib(memory(nats.pids()[0] ?? 0).now)} after everything below`,
    },
    { what: 'start of an actor host, to serving', figure: seconds(startMs), detail: mib(memory(host.pid).now) },
    { what: 'start of a gateway', figure: seconds(gatewayMs), detail: mib(memory(running.pid).now) },
    { what: 'TaskGet of any task, one at a time', figure: perSecond(one.perSecond), detail: latency(one) },
    { what: `TaskGet, ${connections} at a time`, figure: perSecond(many.perSecond), detail: latency(many) },
  ]
}

function sizeOf(folder: string): number {
  const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter(entry => entry.isFile())
  return files.reduce((sum, { parentPath, name }) => sum + statSync(join(parentPath, name)).size, 0)
}
