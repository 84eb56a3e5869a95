/**
 * Migrations between real agents over a real NATS, with every fault at every step: a refusal, a refusal after the effect, the death of
 * either agent, an abort, the death of the actor host. Each ends with the VM on one server, running, with its disk as it was, and with
 * nothing on the other; two copies never run.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import type { Hypervisor } from '../../hypervisor-agent/hypervisor.ts'
import { projectDir } from '../../scripts/config.ts'
import { type Caller, createCaller } from '../../services/nats/caller.ts'
import { connectNats, type NatsConnection } from '../../services/nats/connect.ts'
import { provision } from '../../services/nats/provision.ts'
import { startNats, type TestNats } from '../nats.ts'
import { suite } from '../suite.ts'
import { migrationPair, type Pair, type PairNode } from './migration-pair.ts'

const test = suite('migration between agents')

/** Each step by the call of the hypervisor that it cannot do without. */
const steps: { step: string; at: 'source' | 'target'; call: keyof Hypervisor; live?: true }[] = [
  { step: 'examine', at: 'source', call: 'shapeOf' },
  { step: 'receive', at: 'target', call: 'defineVm' },
  { step: 'stop', at: 'source', call: 'powerOff' },
  { step: 'hold', at: 'source', call: 'holdVm' },
  { step: 'read', at: 'source', call: 'readDisk' },
  { step: 'write', at: 'target', call: 'writeDisk' },
  { step: 'adopt', at: 'target', call: 'completeVm' },
  { step: 'start', at: 'target', call: 'startVm' },
  { step: 'finish', at: 'target', call: 'reshapeVm' },
  { step: 'remove', at: 'source', call: 'removeVm' },
  { step: 'live receive', at: 'target', call: 'defineVm', live: true },
  { step: 'live hold', at: 'source', call: 'holdVm', live: true },
  { step: 'live begin', at: 'source', call: 'beginLive', live: true },
  { step: 'live prepare', at: 'target', call: 'prepareLive', live: true },
  { step: 'live perform', at: 'source', call: 'performLive', live: true },
  { step: 'live go on', at: 'target', call: 'finishLive', live: true },
  { step: 'live complete', at: 'target', call: 'completeVm', live: true },
  { step: 'live finish', at: 'target', call: 'reshapeVm', live: true },
  { step: 'live remove', at: 'source', call: 'removeVm', live: true },
]
const isLive = (step: string) => steps.some(one => one.step === step && one.live)
const afterCommit = ['finish', 'remove', 'live finish', 'live remove']

let nats: TestNats
let admin: NatsConnection
let host: ChildProcess | undefined
let caller: Caller
const undo: (() => unknown)[] = []
const pairs = new Map<string, Pair>()

async function connect(inboxOwner: string): Promise<NatsConnection> {
  const nc = await connectNats({ servers: nats.urls, name: inboxOwner, inboxOwner })
  undo.push(() => nc.close())
  return nc
}

function startHost(): void {
  host = spawn(process.execPath, ['--import', 'tsx', join(projectDir, 'services/actor-host/main.ts')], {
    cwd: projectDir,
    env: { PATH: process.env['PATH'], NATS_URL: nats.url, METRICS_PORT: 'off', LOG_LEVEL: 'fatal' },
    stdio: 'ignore',
  })
}

async function killHost(): Promise<void> {
  if (!host || host.exitCode !== null || host.signalCode !== null) return
  const gone = once(host, 'exit')
  host.kill('SIGKILL')
  await gone
}

test.before(async () => {
  nats = await startNats()
  admin = await connect('admin')
  await provision(admin)
  startHost()
  caller = createCaller(await connect('gateway'), `test-${randomUUID()}`)
  const made = steps.map(async ({ step, live = false }) => {
    const content = `what ${step} must not lose`
    pairs.set(step, await migrationPair({ nc: admin, caller, connect }, { content, live }))
  })
  await Promise.all(made)
})
test.after(async () => {
  for (const pair of pairs.values()) await pair.stop()
  await killHost()
  for (const step of undo.reverse()) await step()
  await nats?.stop()
})

/** What holds after every migration, however it went. Answers whether the VM moved. */
async function inOrder(step: string, from: string, id: string): Promise<boolean> {
  const pair = pairs.get(step) as Pair
  await pair.rest()
  const [here, there] = [await pair.source(), await pair.target()]
  const { failure, tags } = await pair.context()
  const isMoved = here.uuid !== from
  const told = `${step}: ${isMoved ? 'moved' : 'stayed'}, ${failure?.code}`
  const guest = here.hypervisor.world.guest(pair.vm)
  assert.equal(
    [guest?.state, guest?.held ?? null, guest?.incoming ?? false, guest?.spec.autoboot],
    ['running', null, false, true],
    told,
  )
  const { disk, memory } = here.hypervisor.world.content(pair.vm)
  assert.is(disk, `what ${step} must not lose`, told)
  if (isLive(step)) assert.equal([memory, guest?.boots], [disk, 1], told)
  assert.equal(guest?.spec.customer_metadata, { color: 'green' })
  assert.equal(tags, { role: 'web' })
  assert.is(there.hypervisor.world.guest(pair.vm), undefined, `${told}: a copy is left`)
  assert.is(await pair.state(), 'running', told)
  const task = await pair.task(id)
  assert.is(task?.status, isMoved ? 'complete' : 'failure', told)
  assert.equal(pair.doubled, [], told)
  return isMoved
}

type Hit = (pair: Pair, node: PairNode, call: keyof Hypervisor) => Promise<{ id: string }>

/** The fault at every step, each on a pair of its own, all at once. */
async function atEveryStep(hit: Hit): Promise<Record<string, boolean>> {
  const ends = steps.map(async ({ step, at, call }) => {
    const pair = pairs.get(step) as Pair
    const from = (await pair.source()).uuid
    const { id } = await hit(pair, await pair[at](), call)
    return [step, await inOrder(step, from, id)] as const
  })
  return Object.fromEntries(await Promise.all(ends))
}

const limit = { limitMs: 90_000 }
const stays = Object.fromEntries(steps.map(({ step }) => [step, afterCommit.includes(step)]))
/** What runs on the target is not taken back, whatever became of the step that let it. */
const runsThere = { before: ['live complete'], after: ['start', 'live go on', 'live complete'] }
const staysUnless = (moved: string[]) => ({ ...stays, ...Object.fromEntries(moved.map(step => [step, true])) })
const moves = Object.fromEntries(steps.map(({ step }) => [step, true]))

test(
  'without a fault every VM arrives',
  async () => {
    assert.equal(await atEveryStep(async pair => ({ id: await pair.migrate() })), moves)
  },
  limit,
)

for (const when of ['before', 'after'] as const) {
  test(
    `a step that fails ${when} its effect is taken back, or done later where the VM is the target's already or runs there`,
    async () => {
      const ends = await atEveryStep(async (pair, node, call) => {
        node.hypervisor.faults.add({ call, when, times: 1, fail: 'HypervisorError' })
        return { id: await pair.migrate() }
      })
      assert.equal(ends, staysUnless(runsThere[when]))
    },
    limit,
  )
}

for (const who of ['source', 'target'] as const) {
  test(
    `the ${who}'s agent dies at every step and another takes over`,
    async () => {
      await atEveryStep(async (pair, node, call) => {
        const dying = await pair[who]()
        const gate = node.gate(call)
        const id = await pair.migrate()
        await gate.reached
        await dying.kill()
        gate.open()
        await dying.start()
        return { id }
      })
    },
    limit,
  )
}

test(
  'an abort at every step takes it back, unless the VM is the target\u2019s already or runs there',
  async () => {
    const ends = await atEveryStep(async (pair, node, call) => {
      const gate = node.gate(call)
      const id = await pair.migrate()
      await gate.reached
      await caller.call('vm', pair.vm, 'migrate_abort', { force: false })
      gate.open()
      return { id }
    })
    // It comes while the target is at its start: the discard finds the VM running, or not yet.
    const { start = false, 'live go on': wentOn = false } = ends
    const moved = Object.entries({ start, 'live go on': wentOn, 'live complete': true }).filter(([, is]) => is)
    assert.equal(ends, staysUnless(moved.map(([step]) => step)))
  },
  limit,
)

test(
  'the actor host dies at every step, and another goes on where it was',
  async () => {
    let arrived = 0
    let go = () => {}
    const restarted = new Promise<void>(resolve => {
      go = resolve
    })
    const ends = await atEveryStep(async (pair, node, call) => {
      const gate = node.gate(call)
      const id = await pair.migrate()
      await gate.reached
      arrived += 1
      if (arrived === steps.length) {
        // Nothing is handed over: its leases lapse.
        await killHost()
        startHost()
        go()
      }
      await restarted
      gate.open()
      return { id }
    })
    assert.equal(ends, moves)
  },
  limit,
)

test.run()
