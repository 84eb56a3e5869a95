/**
 * The promise of the waitlist under faults: three NATS servers, three actor hosts and two gateways, of which one after the other is killed
 * or frozen for a minute while forty clients contend for twenty queues. Then every revision of every queue is read and checked.
 */
import { randomUUID } from 'node:crypto'
import * as assert from 'uvu/assert'
import { connectNats, type NatsConnection } from '../../services/nats/connect.ts'
import { provision } from '../../services/nats/provision.ts'
import { eventually } from '../eventually.ts'
import { freePorts, startNats, type TestNats } from '../nats.ts'
import { suite } from '../suite.ts'
import { startClients, type TicketLog } from '../waitlist/clients.ts'
import { keepHistory, readHistory } from '../waitlist/history.ts'
import { actorHost, type Gateway, gateway, killAll, type Process } from '../waitlist/processes.ts'

const test = suite('waitlist under faults')
/** WAITLIST_FAULTS_MS: a shorter or longer run by hand. */
const forMs = Number(process.env['WAITLIST_FAULTS_MS'] ?? 60_000)
const settings = { queues: 20, clients: 40 }
const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31))

let nats: TestNats
let nc: NatsConnection
let hosts: Process[] = []
let gateways: Gateway[] = []

test.before(async () => {
  nats = await startNats({ servers: 3 })
  nc = await connectNats({ servers: nats.urls, name: 'test', inboxOwner: 'admin' })
  await provision(nc)
  await keepHistory(nc)
  const ports = await freePorts(2)
  hosts = ['one', 'two', 'three'].map(name => actorHost(nats.url, name))
  gateways = ports.map((port, n) => gateway(nats.url, `g${n}`, port))
  await Promise.all([...hosts, ...gateways].map(process => process.start()))
})
test.after(async () => {
  await killAll([...hosts, ...gateways])
  await nc?.close()
  await nats?.stop()
})

test(
  'nobody holds a queue beside another, nobody overtakes, nobody is stuck, nothing acknowledged is lost',
  async () => {
    console.log(`seed ${seed} (repeat the choice of faults with SEED=${seed})`)
    const serverUuid = randomUUID()
    const sysinfo = { UUID: serverUuid, Hostname: 'node', 'MiB of Memory': '1024', Setup: 'true' }
    await gateways[0]!.ask('POST', `/servers/${serverUuid}/sysinfo`, { body: { sysinfo } })
    const clients = startClients({ gateways, serverUuid, forMs, random: randomOf(seed), ...settings })
    const { took, tickets } = clients
    const faults = await makeFaults(forMs, randomOf(seed + 1))
    const told = async (error: unknown): Promise<never> => {
      console.log(clients.violations.join('\n'))
      await tellWhy(tickets).catch(problem => console.log(`nor can it be told why: ${problem.message}`))
      throw error
    }
    await within(60_000, clients.done, 'every client to come to its end').catch(told)
    // Abandoned tickets go by themselves.
    const open = async () => (await gateways[0]!.ask('GET', `/servers/${serverUuid}/waitlist`)).body
    await eventually(async () => (await open()).length === 0, {
      withinMs: 20_000,
      everyMs: 200,
      what: 'no ticket open',
    }).catch(told)
    const history = await readHistory(nc, tickets)
    console.log(
      [
        `${tickets.length} tickets, ${history.revisions} revisions of ${history.queues} queues, ${clients.repeats} requests repeated`,
        `faults: ${Object.entries(faults)
          .map(([name, count]) => `${count} x ${name}`)
          .join(', ')}`,
        `create ${quantiles(took.create)}; release ${quantiles(took.release)}; release to next holder ${quantiles(took.handOver)}`,
        `violations: ${clients.violations.length + history.violations.length}`,
      ].join('\n'),
    )
    assert.equal([...clients.violations, ...history.violations].slice(0, 20), [])
    assert.ok(tickets.length > forMs / 1_000, 'clients got on')
    assert.equal(history.open, [])

    const listed = new Map<string, string>()
    for (let offset = 0; ; offset += 1_000) {
      const { body } = await gateways[1]!.ask('GET', `/servers/${serverUuid}/tickets?limit=1000&offset=${offset}`)
      for (const { uuid, status } of body) listed.set(uuid, status)
      if (body.length < 1_000) break
    }
    const expected = { release: 'finished', leave: 'finished', abandon: 'expired', remove: undefined }
    const wrong = tickets.filter(({ uuid, habit }) => listed.get(uuid) !== expected[habit])
    assert.equal(
      wrong.map(({ uuid, habit }) => `${uuid} ${habit} ${listed.get(uuid)}`).slice(0, 20),
      [],
      'ends are listed',
    )
  },
  { limitMs: 200_000 },
)

/** Who holds the queues that do not get on, and what the processes say of it. */
async function tellWhy(tickets: TicketLog[]): Promise<void> {
  for (const process of [...hosts, ...gateways]) {
    const said = [...process.log().matchAll(/"level":[56]0.*?"msg":"[^"]*"\}/g)].map(([line]) => line)
    const kinds = new Map(said.map(line => [/"message":"([^"]*)"/.exec(line)?.[1] ?? line, line]))
    console.log(`${process.name}: ${[...kinds.values()].map(line => line.slice(0, 1_200)).join('\n')}`)
  }
  const { open, violations } = await readHistory(nc, tickets)
  console.log(violations.join('\n'))
  for (const uuid of open) {
    const log = tickets.find(ticket => ticket.uuid === uuid)
    console.log(
      `open at ${Date.now()}: ${uuid} ${log ? JSON.stringify(log) : 'of a create that was never acknowledged'}`,
    )
  }
}

/** One fault after the other until the time is over; all is well again when it resolves. */
async function makeFaults(forMs: number, random: () => number): Promise<Record<string, number>> {
  const count: Record<string, number> = {}
  const end = Date.now() + forMs
  const pause = (ms: number) => new Promise(resolve => setTimeout(resolve, ms))
  const any = <T>(from: T[]): T => from[Math.floor(random() * from.length)]!
  const frozen = async (target: Process, ms: number) => {
    target.freeze()
    await pause(ms)
    target.thaw()
  }
  const killed = async (target: Process) => {
    await target.kill()
    await pause(500)
    await target.start()
  }
  const server = () => Math.floor(random() * 3)
  const kinds: Record<string, () => Promise<void>> = {
    'host killed': () => killed(any(hosts)),
    'host frozen': () => frozen(any(hosts), 3_000),
    'gateway killed': () => killed(any(gateways)),
    'gateway frozen': () => frozen(any(gateways), 2_500),
    'nats killed': async () => {
      const n = server()
      await nats.kill(n)
      await pause(1_000)
      await nats.restart(n)
    },
    'nats frozen': async () => {
      const pid = nats.pids()[server()]
      if (pid) process.kill(pid, 'SIGSTOP')
      await pause(3_000)
      if (pid) process.kill(pid, 'SIGCONT')
    },
    'host killed beside a frozen one': async () => {
      const [first, second] = hosts as [Process, Process]
      await Promise.all([frozen(first, 3_000), killed(second)])
    },
  }
  // Each kind comes before any comes again.
  let left: string[] = []
  while (Date.now() < end) {
    if (left.length === 0) left = Object.keys(kinds)
    const name = any(left)
    left = left.filter(other => other !== name)
    count[name] = (count[name] ?? 0) + 1
    await kinds[name]!()
    await pause(500)
  }
  return count
}

async function within<T>(ms: number, promise: Promise<T>, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took longer than ${ms} ms`)), ms)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

function quantiles(times: number[]): string {
  const sorted = [...times].sort((a, b) => a - b)
  const at = (q: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? 0
  return `p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, most ${at(1)} ms`
}

/** Mulberry32. */
function randomOf(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

test.run()
