/** How long the first actor host of a fleet with 200,000 VMs takes until it answers for every partition, and how much memory. */
import { filledNats } from './filled.ts'
import { realHost, serving } from './hosts.ts'
import { fill } from './load.ts'
import { memory, type Scope } from './scope.ts'
import { bytesOf, serverEntry, vmEntry } from './seed.ts'
import { mib, perSecond, type Row, seconds, whole } from './table.ts'

const aimMs = 10_000
const aimBytes = 1024 ** 3

export async function hostStart(scope: Scope): Promise<Row[]> {
  const vms = scope.short ? 10_000 : 200_000
  const servers = vms / 200
  let loadMs = 0
  scope.say(`writing ${whole(vms)} VMs`)
  const { nats, nc, recoveryMs } = await filledNats(scope, async loading => {
    await fill(loading, 'cn', servers, serverEntry)
    loadMs = await fill(loading, 'vm', vms, n => vmEntry(n, n % servers))
  })
  scope.say('starting an actor host')
  const began = performance.now()
  const host = realHost(scope, nats)
  await serving(nc, host)
  const tookMs = performance.now() - began
  const used = memory(host.pid)
  return [
    {
      what: `start with ${whole(vms)} VMs, to serving`,
      figure: seconds(tookMs),
      aim: { text: `aim ${seconds(aimMs)}`, met: tookMs <= aimMs },
      detail: `one VM of every partition answered; records of ${bytesOf(vmEntry(1, 1))} B, written at ${perSecond((vms / loadMs) * 1000)}`,
    },
    {
      what: 'memory of the host',
      figure: mib(used.peak),
      aim: { text: `aim ${mib(aimBytes)}`, met: used.peak <= aimBytes },
      detail: `at its highest; ${mib(used.now)} when serving. nats-server: ready after ${seconds(recoveryMs)}, ${mib(memory(nats.pids()[0] ?? 0).now)}`,
    },
  ]
}
