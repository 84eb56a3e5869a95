// A guest that goes from one libvirtd to another while it runs: it never boots again, counts on, keeps its disks, and is reached on its VLAN
// from its new place. An agent that is killed in the middle, on either side, leaves it running on exactly one of the two.
import { equal, match, ok } from 'uvu/assert'
import { eventually } from '../eventually.ts'
import { freePorts } from '../nats.ts'
import type { GuestConsole } from './lab/console.ts'
import { type SecondNode, startSecondNode } from './lab/second-node.ts'
import { createGuest } from './lab/stories.ts'
import { systemSuite } from './lab/suite.ts'

const [streamPort] = await freePorts(1)
const env = { STREAM_PORT: String(streamPort) }
const { test, lab, muster } = await systemSuite('migrating running VMs', { muster: true, env })
let second: SecondNode
let uuid = ''
let neighbour: GuestConsole
let boot = ''
let digest = ''

test.after(async () => {
  await second?.stop()
})

const here = () => muster().serverUuid
const sh = async (console: GuestConsole, line: string) =>
  ((await console.ask(`sh ${line}`, /SH (.*)[\r\n]/))[1] ?? '').trim()
const counted = async (console: GuestConsole) => Number(await sh(console, 'cat /count'))
const bootOf = (console: GuestConsole) => sh(console, 'cat /proc/sys/kernel/random/boot_id')
const address = async (console: GuestConsole) => (await console.sees(/NIC eth0 mac=\S+ ip=(\S+)/))[1] ?? ''
const pings = async (console: GuestConsole, to: string) =>
  equal((await console.ask(`ping ${to}`, /PING \S+ (OK|FAIL)/))[1], 'OK')
const consoleOn = (server: string) => (server === here() ? lab().console(uuid) : second.console(uuid))
const virshOn = (server: string) => (server === here() ? lab().virsh : second.virsh)
const migrate = (from: string, to: string, more: object = {}) =>
  muster().request('POST', `/servers/${from}/vms/${uuid}/migrate`, {
    migrationTask: { action: 'migrate', record: { target_server_uuid: to } },
    live: true,
    ...more,
  })
const stateOn = async (server: string) => (await virshOn(server)('domstate', uuid).catch(() => 'absent')).trim()

/** It runs on this server alone, the same boot of it, with its memory and its disk, and can be talked to. */
async function runsOn(server: string, counter: number): Promise<number> {
  const other = server === here() ? second.uuid : here()
  equal([await stateOn(server), await stateOn(other)], ['running', 'absent'])
  const console = await consoleOn(server)
  equal(await bootOf(console), boot)
  const now = await counted(console)
  ok(now >= counter, `it counted ${counter} and now ${now}`)
  await eventually(async () => (await counted(console)) > now, { withinMs: 20_000, what: 'it counts on' })
  equal(await sh(console, 'sha256sum /dev/sdb | cut -c1-64'), digest)
  await pings(console, await address(neighbour))
  await pings(neighbour, guestAddress)
  return now
}
let guestAddress = ''

test('a running guest moves to another libvirtd and has not noticed', async () => {
  second = await startSecondNode(muster())
  uuid = await createGuest(muster(), lab(), { alias: 'traveller', disks: [64], nics: [{ vlan_id: 10 }] })
  const peer = await createGuest(muster(), lab(), { alias: 'neighbour', nics: [{ vlan_id: 10 }] })
  neighbour = await lab().console(peer)
  const console = await lab().console(uuid)
  await console.sees(/MUSTER-GUEST ready/)
  await neighbour.sees(/MUSTER-GUEST ready/)
  guestAddress = await address(console)
  await sh(console, '(i=0; while :; do i=$((i+1)); echo $i > /count; usleep 200000; done) > /dev/null 2>&1 &')
  await sh(console, 'dd if=/dev/urandom of=/dev/sdb bs=1M count=48 2> /dev/null; sync')
  digest = await sh(console, 'sha256sum /dev/sdb | cut -c1-64')
  match(digest, /^[0-9a-f]{64}$/)
  boot = await bootOf(console)
  match(boot, /^[0-9a-f-]{36}$/)
  const before = await counted(console)
  await muster().completed(await migrate(here(), second.uuid))
  await runsOn(second.uuid, before)
  const left = (await lab().leftovers()).filter(name => name.includes(uuid))
  equal(left, [])
  equal((await muster().request('GET', `/servers/${second.uuid}/vms/${uuid}`)).body.state, 'running')
})

test('one that was moved running can be stopped, started and moved back', async () => {
  const before = await counted(await second.console(uuid))
  await muster().completed(await migrate(second.uuid, here()))
  await runsOn(here(), before)
})

for (const who of ['source', 'target'] as const) {
  test(`the ${who}'s agent is killed while the disks travel: it runs on, on exactly one node`, async () => {
    const from = (await stateOn(here())) === 'running' ? here() : second.uuid
    const to = from === here() ? second.uuid : here()
    const before = await counted(await consoleOn(from))
    const answer = await migrate(from, to)
    await eventually(async () => /Job type: +Unbounded/.test(await virshOn(from)('domjobinfo', uuid)), {
      withinMs: 60_000,
      everyMs: 5,
      what: 'the guest to be on its way',
    })
    const victim = who === 'source' ? from : to
    if (victim === here()) await muster().killAgent()
    else await second.restartAgent()
    const task = await muster().ended(answer)
    const home = task.status === 'complete' ? to : from
    await eventually(
      async () => (await muster().request('GET', `/servers/${home}/vms/${uuid}`)).body.state === 'running',
      { withinMs: 90_000, what: 'it runs' },
    )
    await eventually(async () => (await stateOn(home === from ? to : from)) === 'absent', {
      withinMs: 60_000,
      what: 'no copy is left',
    })
    await runsOn(home, before)
  })
}

test('the agent of the target is killed when the guest stands still on both: it goes on where it was', async () => {
  const from = (await stateOn(here())) === 'running' ? here() : second.uuid
  const to = from === here() ? second.uuid : here()
  const before = await counted(await consoleOn(from))
  const answer = await migrate(from, to)
  await eventually(async () => (await stateOn(from)) === 'paused', {
    withinMs: 60_000,
    everyMs: 5,
    what: 'the guest to stand still',
  })
  if (to === here()) await muster().killAgent()
  else await second.restartAgent()
  const task = await muster().ended(answer)
  const home = task.status === 'complete' ? to : from
  await eventually(async () => (await stateOn(home === from ? to : from)) === 'absent', {
    withinMs: 90_000,
    what: 'no copy is left',
  })
  await eventually(async () => (await stateOn(home)) === 'running', { withinMs: 60_000, what: 'it runs' })
  await runsOn(home, before)
})

test('a stopped VM has nothing to move live, and says so', async () => {
  const from = (await stateOn(here())) === 'running' ? here() : second.uuid
  const to = from === here() ? second.uuid : here()
  await muster().completed(await muster().request('POST', `/servers/${from}/vms/${uuid}/stop`, { force: true }))
  const task = await muster().ended(await migrate(from, to))
  equal([task.status, task.error?.code], ['failure', 'VmNotRunning'])
})

test.run()
