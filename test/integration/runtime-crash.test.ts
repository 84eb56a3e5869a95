/**
 * The crash matrix of the runtime: hosts are processes that are killed at every step, killed under load, frozen, stopped and joined by
 * others, messages are delivered twice, and the NATS leader of three is killed. A checker compares what was acknowledged with what is stored.
 */
import * as assert from 'uvu/assert'
import { api } from '../../services/nats/api.ts'
import { streamOf } from '../../services/nats/buckets.ts'
import { connectNats } from '../../services/nats/connect.ts'
import { provision } from '../../services/nats/provision.ts'
import { type Host, killHosts, startHost } from '../counters/hosts.ts'
import { type Load, startLoad as startLoadOn } from '../counters/load.ts'
import { eventually } from '../eventually.ts'
import { startNats, type TestNats } from '../nats.ts'
import { suite } from '../suite.ts'

const test = suite('crash matrix')
let nats: TestNats
let hosts: Host[] = []
const loads: Load[] = []
let totals = { acknowledged: 0, lost: 0, doubled: 0 }

const host = async (options: Parameters<typeof startHost>[1] = {}, url = nats.url) => {
  const started = await startHost(url, options)
  hosts.push(started)
  return started
}

const startLoad = async (...given: Parameters<typeof startLoadOn>) => {
  const load = await startLoadOn(...given)
  loads.push(load)
  return load
}

test.before(async () => {
  nats = await startNats()
  await provisioned(nats)
})
test.after(async () => {
  await Promise.all(loads.map(load => load.close()))
  await killHosts(hosts)
  await nats?.stop()
  console.log(`\nFIGURES crash matrix: ${JSON.stringify(totals)}`)
})

for (const [step, count] of [
  ['decided', 30],
  ['written', 30],
  ['committed', 30],
  ['performing', 5],
  ['acknowledged', 5],
] as const) {
  test(
    `killed at "${step}", nothing acknowledged is lost and nothing is applied twice`,
    async () => {
      const doomed = await host({ crashAt: `${step}:${count}:at-${step}` })
      const load = await startLoad(nats.url, { name: `at-${step}`, actors: 5 })
      assert.is((await doomed.gone).signal, 'SIGKILL')
      await host()
      await more(load, 300)
      await verify(`killed at ${step}`, load)
      await killAll()
    },
    { limitMs: 60_000 },
  )
}

test('every message delivered twice is applied once', async () => {
  await host()
  const load = await startLoad(nats.url, { name: 'twice', twice: true })
  await more(load, 1_500)
  await verify('delivered twice', load)
  await killAll()
})

test(
  'an owner killed under load is replaced within seconds',
  async () => {
    const [first] = await three()
    const load = await startLoad(nats.url, { name: 'killed' })
    await more(load, 1_000)
    first.child.kill('SIGKILL')
    await first.gone
    await more(load, 1_000)
    const { maxMs } = await verify('kill -9 of an owner under load', load)
    assert.ok(maxMs < 6_000, `the longest command took ${maxMs} ms`)
    await killAll()
  },
  { limitMs: 90_000 },
)

test(
  'an owner frozen for 9 s neither blocks its actors nor answers from the past when it wakes',
  async () => {
    const [first] = await three()
    const load = await startLoad(nats.url, { name: 'frozen' })
    await more(load, 500)
    first.child.kill('SIGSTOP')
    const thawed = new Promise<void>(resolve =>
      setTimeout(() => {
        first.child.kill('SIGCONT')
        resolve()
      }, 9_000),
    )
    await more(load, 1_000)
    await thawed
    await more(load, 1_500)
    const { maxMs } = await verify('SIGSTOP of an owner for 9 s', load)
    assert.ok(maxMs < 6_000, `the longest command took ${maxMs} ms`)
    await killAll()
  },
  { limitMs: 90_000 },
)

test(
  'a host that stops or joins under load costs no request more than a moment',
  async () => {
    const [first] = await three()
    const load = await startLoad(nats.url, { name: 'graceful' })
    await more(load, 500)
    first.child.kill('SIGTERM')
    assert.is((await first.gone).code, 0)
    await more(load, 500)
    await host()
    await more(load, 500)
    const { maxMs } = await verify('SIGTERM of an owner, then a new one', load)
    assert.ok(maxMs < 1_500, `the longest command took ${maxMs} ms: a lease had to run out`)
    await killAll()
  },
  { limitMs: 90_000 },
)

test(
  'the NATS server that leads a bucket is killed, one of three',
  async () => {
    const cluster = await startNats({ servers: 3 })
    try {
      const nc = await provisioned(cluster, true)
      await Promise.all([host({}, cluster.url), host({}, cluster.url)])
      const load = await startLoad(cluster.url, { name: 'leader' })
      await more(load, 300)
      const info = await api<{ cluster: { leader: string } }>(nc, `STREAM.INFO.${streamOf('vm')}`)
      await nc.close()
      await cluster.kill(Number(info.cluster.leader.slice(1)) - 1)
      await more(load, 600, 45_000)
      await verify('kill -9 of the NATS leader of three', load)
      await killAll()
    } finally {
      await cluster.stop()
    }
  },
  { limitMs: 120_000 },
)

test(
  'the only NATS server is killed and started again',
  async () => {
    await Promise.all([host(), host()])
    const load = await startLoad(nats.url, { name: 'restart' })
    await more(load, 300)
    await nats.kill()
    await nats.restart()
    await more(load, 300, 30_000)
    await verify('kill -9 and restart of the only NATS server', load)
    await killAll()
  },
  { limitMs: 90_000 },
)

test.run()

async function provisioned(server: TestNats, keep: true): Promise<Awaited<ReturnType<typeof connectNats>>>
async function provisioned(server: TestNats): Promise<undefined>
async function provisioned(server: TestNats, keep = false) {
  const nc = await connectNats({ servers: server.urls, name: 'matrix', inboxOwner: 'admin' })
  await provision(nc)
  if (keep) return nc
  await nc.close()
  return undefined
}

async function three(): Promise<[Host, ...Host[]]> {
  const [first, ...others] = await Promise.all([host(), host(), host()])
  assert.ok(first)
  return [first, ...others]
}

/** Until so many more commands have been acknowledged. */
async function more(load: Load, count: number, withinMs = 25_000): Promise<void> {
  const goal = load.figures().acknowledged + count
  await eventually(() => load.figures().acknowledged >= goal, { withinMs, what: `${count} more acknowledgements` })
}

async function verify(fault: string, load: Load) {
  await load.stop()
  const figures = load.figures()
  const { lost, doubled } = await load.check()
  console.log(`\nFIGURES ${fault}: ${JSON.stringify({ ...figures, lost, doubled })}`)
  totals = {
    acknowledged: totals.acknowledged + figures.acknowledged,
    lost: totals.lost + lost,
    doubled: totals.doubled + doubled,
  }
  assert.equal({ lost, doubled }, { lost: 0, doubled: 0 })
  return figures
}

async function killAll(): Promise<void> {
  await killHosts(hosts)
  hosts = []
}
