// One guest whose QEMU is frozen delays no other: their tasks, the heartbeats, reports and live reads go on as before, and what is asked of
// the frozen one ends by force at its deadline. And drift: what virsh and ovs-vsctl change behind Muster's back is found and enforced.
import { readFile } from 'node:fs/promises'
import { equal, ok } from 'uvu/assert'
import { eventually } from '../eventually.ts'
import { command } from './lab/command.ts'
import { act, createGuest, destroy, vms } from './lab/stories.ts'
import { systemSuite } from './lab/suite.ts'

const { test, lab, muster } = await systemSuite('bulkheads and drift', { muster: true })

let frozen = ''
let well = ''
/** How long each took while all was well, ms. */
const before: Record<string, number> = {}

const path = (rest: string) => `/servers/${muster().serverUuid}${rest}`
// biome-ignore lint/suspicious/noExplicitAny: answers are looked into as they are
const get = async (rest: string): Promise<any> => (await muster().request('GET', path(rest))).body
async function timed(work: () => Promise<unknown>): Promise<number> {
  const began = performance.now()
  await work()
  return Math.round(performance.now() - began)
}
const done = async (uuid: string, verb: string, body: object = {}) =>
  muster().completed(await act(muster(), uuid, verb, body))

/** What happens to a VM in ordinary life, each timed. */
async function life(uuid: string): Promise<Record<string, number>> {
  const took: Record<string, number> = {}
  took['stop'] = await timed(() => done(uuid, 'stop', { force: true }))
  took['start'] = await timed(() => done(uuid, 'start'))
  const snapshots = path(`/vms/${uuid}/snapshots`)
  took['snapshot'] = await timed(async () => muster().completed(await muster().request('PUT', snapshots, {})))
  took['load'] = await timed(() => get(`/vms/${uuid}`))
  took['drift'] = await timed(() => get('/drift'))
  return took
}

test('two guests run, and have no drift', async () => {
  const made = await Promise.all(
    ['frozen', 'well'].map(alias => createGuest(muster(), lab(), { alias, nics: [{ vlan_id: 10 }] })),
  )
  frozen = made[0] ?? ''
  well = made[1] ?? ''
  await (await lab().console(frozen)).sees(/MUSTER-GUEST ready/)
  const { source, drift, pending, zombies, missing, unread } = await get('/drift')
  equal({ source, drift, pending, zombies, missing, unread }, { ...none, source: 'live' })
  Object.assign(before, await life(well))
})
const none = { drift: [], pending: [], zombies: [], missing: [], unread: [] }

test('memory that virsh changed and a VLAN that ovs-vsctl changed are found, and enforced', async () => {
  const [nic] = (await get(`/vms/${frozen}`)).nics
  await lab().virsh('setmaxmem', frozen, String(128 * 1024), '--config')
  await command('ovs-vsctl', ['set', 'Port', nic.interface, 'tag=77'])
  const found = async () =>
    (await get('/drift')).drift.map((one: Record<string, unknown>) => [one['field'], one['wanted'], one['found']])
  const port = `nics.${nic.mac}.port`
  const wanted = { bridge: lab().bridge, vlan_id: 10 }
  const all = [
    [port, wanted, { bridge: lab().bridge, vlan_id: 77 }],
    ['ram', 96, 128],
  ]
  equal(await found(), all)
  const ages = (await get('/drift')).drift.map((one: { age_s: number }) => one.age_s)
  ok(
    ages.every((age: number) => age < 30),
    `seen ${ages} s ago`,
  )
  await done(frozen, 'update', { alias: 'renamed' })
  equal(await found(), all, 'an update of something else takes nothing over')
  const enforce = async (field: string) => {
    const answer = await muster().request('POST', path('/drift'), { vm_uuid: frozen, field, action: 'enforce' })
    const task = (await muster().completed(answer)) as unknown as { history: { event: { applied: object } }[] }
    return task.history.at(-1)?.event.applied
  }
  equal(await enforce(port), { [`nics.${nic.mac}`]: 'live' })
  equal((await lab().ports()).find(one => one.name === nic.interface)?.tag, 10)
  await enforce('ram')
  equal(await found(), [])
})

test('while a guest is frozen, another lives as before, heartbeats go on, and the frozen one stops by force', async () => {
  const pid = await lab().qemuPid(frozen)
  const agent = await muster().agentPid()
  process.kill(pid, 'SIGSTOP')
  let worstBeatS = 0
  let watching = true
  const watch = (async () => {
    while (watching) {
      const { status, evidence } = await get('/status')
      equal(status, 'running')
      worstBeatS = Math.max(worstBeatS, evidence.heartbeat.age_s)
      await new Promise(resolve => setTimeout(resolve, 500))
    }
  })()
  try {
    const stopping = await act(muster(), frozen, 'stop', { timeout: 20 })
    const stopped = timed(() => muster().completed(stopping))
    // In flight: the button was pressed, and nobody answers.
    await eventually(async () => (await muster().request('GET', `/tasks/${stopping.body.id}`)).body.step === 'acpi')
    const during = await life(well)
    const { source, unread } = await get('/drift')
    equal([source, unread], ['live', []])
    const made = await timed(async () => {
      const uuid = await createGuest(muster(), lab(), { alias: 'made', nics: [{ vlan_id: 10 }] })
      await muster().completed(await destroy(muster(), uuid))
    })
    const live = await get('/status?live=true')
    equal([live.evidence.hypervisor.ok, live.evidence.storage.ok], [true, true])
    ok((await readFile(`/proc/${pid}/stat`, 'utf8')).includes(') T '), 'all this happened while it was frozen')
    const stoppedMs = await stopped
    console.log(
      `FIGURES bulkheads: ${JSON.stringify({ before, during, createAndDestroyMs: made, stoppedMs, worstBeatS })}`,
    )
    for (const [what, ms] of Object.entries(during)) {
      const limit = 3 * (before[what] ?? 0) + 3_000
      ok(ms < limit, `${what} took ${ms} ms, ${before[what]} ms without a frozen guest`)
    }
    ok(stoppedMs < 60_000, `the frozen guest was stopped after ${stoppedMs} ms`)
    ok(worstBeatS < 11, `a heartbeat ${worstBeatS} s ago was the last`)
  } finally {
    watching = false
    await watch
    try {
      process.kill(pid, 'SIGCONT')
    } catch {
      // It is gone.
    }
  }
  equal((await vms(muster())).find(vm => vm.uuid === frozen)?.state, 'stopped')
  equal(await muster().agentPid(), agent, 'the agent was not restarted')
})

test('nothing of these VMs is left behind', async () => {
  for (const uuid of [frozen, well]) await muster().completed(await destroy(muster(), uuid))
  equal(await lab().leftovers(), [])
})

test.run()
