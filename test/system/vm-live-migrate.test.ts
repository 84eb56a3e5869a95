// A guest that goes from one libvirtd to another while it runs: it never boots again, counts on, keeps its disks, and is reached on its VLAN
// from its new place. An agent or a libvirtd that is killed in the middle, on either side, or an operator who takes it back, leaves it running
// on exactly one of the two.
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { equal, match, ok } from 'uvu/assert'
import { eventually } from '../eventually.ts'
import { freePorts } from '../nats.ts'
import type { GuestConsole } from './lab/console.ts'
import { type SecondNode, startSecondNode } from './lab/second-node.ts'
import { act, createGuest } from './lab/stories.ts'
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

const travels = (from: string) =>
  eventually(async () => /Job type: +Unbounded/.test(await virshOn(from)('domjobinfo', uuid)), {
    withinMs: 60_000,
    everyMs: 5,
    what: 'the guest to be on its way',
  })
const standsStill = (from: string) =>
  eventually(async () => (await stateOn(from)) === 'paused', {
    withinMs: 60_000,
    everyMs: 5,
    what: 'the guest to stand still',
  })
/** Where it is, and where not. */
async function places(): Promise<[from: string, to: string]> {
  return (await stateOn(here())) === 'absent' ? [second.uuid, here()] : [here(), second.uuid]
}
/** Address on the PCI bus of each NIC and controller. */
function addresses(xml: string): string[] {
  const devices = xml.match(/<(interface|controller|memballoon) [^>]*[^/]>[\s\S]*?<\/\1>/g) ?? []
  const named = devices.map(device => [
    /mac address='([^']+)'/.exec(device)?.[1] ?? /<\w+ (type='[^']+' index='\d+'|model)/.exec(device)?.[1],
    /<address type='pci'[^>]*bus='([^']+)' slot='([^']+)' function='([^']+)'/.exec(device)?.slice(1).join(':'),
  ])
  return named.flatMap(([name, address]) => (address === undefined ? [] : [`${name} ${address}`])).sort()
}
// biome-ignore lint/suspicious/noExplicitAny: what a task's end says is looked into as it is
const resultOf = (task: any) => task.history.at(-1).event
async function nothingIsStrange(): Promise<void> {
  for (const server of [here(), second.uuid]) {
    const { drift, zombies, missing } = (await muster().request('GET', `/servers/${server}/drift`)).body
    equal([server, drift, zombies, missing], [server, [], [], []])
  }
}

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
const added = ['52:54:00:4d:55:01', '52:54:00:4d:55:02']

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
  for (const server of [here(), second.uuid]) {
    await muster().request('POST', '/networks/roaming', { bridge: lab().bridge, vlan: 30, server_uuid: server })
  }
  // NICs that have come and gone leave the others where no new definition would put them.
  const nics = [{ network: 'roaming' }, { bridge: lab().bridge, vlan_id: 20 }].map((nic, n) => ({
    mac: added[n],
    ...nic,
  }))
  await muster().completed(await act(muster(), uuid, 'update', { add_nics: nics }))
  await muster().completed(await act(muster(), uuid, 'update', { remove_nics: [added[0]] }))
  await muster().completed(await act(muster(), uuid, 'update', { add_nics: [nics[0]] }))
  const machine = addresses(await lab().virsh('dumpxml', uuid))
  const before = await counted(console)
  const task = await muster().completed(await migrate(here(), second.uuid))
  await runsOn(second.uuid, before)
  const { downtime_ms } = resultOf(task)
  ok(downtime_ms > 0 && downtime_ms < 30_000, `it stood still for ${downtime_ms} ms`)
  equal(addresses(await second.virsh('dumpxml', uuid)), machine)
  equal(addresses(await second.virsh('dumpxml', '--inactive', uuid)), machine)
  await nothingIsStrange()
  const left = (await lab().leftovers()).filter(name => name.includes(uuid))
  equal(left, [])
  equal((await muster().request('GET', `/servers/${second.uuid}/vms/${uuid}`)).body.state, 'running')
})

test('one that was moved running is moved back', async () => {
  const before = await counted(await second.console(uuid))
  await muster().completed(await migrate(second.uuid, here()))
  await runsOn(here(), before)
})

for (const who of ['source', 'target'] as const) {
  test(`the ${who}'s agent is killed while the disks travel: it runs on, on exactly one node`, async () => {
    const [from, to] = await places()
    const before = await counted(await consoleOn(from))
    const answer = await migrate(from, to)
    await travels(from)
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
  const [from, to] = await places()
  const before = await counted(await consoleOn(from))
  const answer = await migrate(from, to)
  await standsStill(from)
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

for (const who of ['source', 'target'] as const) {
  test(`the libvirtd of the ${who} is killed while the disks travel: it runs on where it was`, async () => {
    const [from, to] = await places()
    const before = await counted(await consoleOn(from))
    const answer = await migrate(from, to)
    await travels(from)
    if ((who === 'source' ? from : to) === here()) await lab().crashLibvirtd()
    else await second.crashLibvirtd()
    const { status, error } = await muster().ended(answer)
    equal([status, error?.code], ['failure', 'MigrationInterrupted'])
    await runsOn(from, before)
  })
}

test('an operator takes it back while the disks travel: it runs on, and nothing is left on the target', async () => {
  if ((await stateOn(here())) !== 'running') await muster().completed(await migrate(second.uuid, here()))
  const before = await counted(await lab().console(uuid))
  const answer = await migrate(here(), second.uuid)
  await travels(here())
  const order = { migrationTask: { action: 'abort', record: {} } }
  equal((await muster().request('POST', `/servers/${here()}/vms/${uuid}/migrate`, order)).body.id, answer.body.id)
  equal((await muster().ended(answer)).error?.code, 'TaskCancelled')
  await runsOn(here(), before)
  equal(await second.leftovers(), [])
  await nothingIsStrange()
})

test('the agent of the target freezes when the guest stands still: it goes on where it was, also when the other wakes up', async () => {
  const before = await counted(await lab().console(uuid))
  const answer = await migrate(here(), second.uuid)
  await standsStill(here())
  process.kill(second.agentPid(), 'SIGSTOP')
  try {
    await eventually(async () => (await stateOn(here())) === 'running', { withinMs: 120_000, what: 'it goes on' })
  } finally {
    process.kill(second.agentPid(), 'SIGCONT')
  }
  equal((await muster().ended(answer)).status, 'failure')
  await eventually(async () => (await second.leftovers()).length === 0, { withinMs: 90_000, what: 'no copy is left' })
  await runsOn(here(), before)
})

test('one that somebody paused, or whose name is taken on the target, is refused, and stays as it is', async () => {
  await lab().virsh('suspend', uuid)
  equal((await muster().ended(await migrate(here(), second.uuid))).error?.code, 'LiveMigrationNotSupported')
  equal([await stateOn(here()), await second.leftovers()], ['paused', []])
  await lab().virsh('resume', uuid)
  const namesake = join(lab().folder, 'namesake.xml')
  const os = "<os><type arch='x86_64'>hvm</type></os>"
  await writeFile(namesake, `<domain type='qemu'><name>${uuid}</name><memory unit='MiB'>32</memory>${os}</domain>`)
  await second.virsh('define', namesake)
  equal((await muster().ended(await migrate(here(), second.uuid))).error?.code, 'VmExists')
  equal([await stateOn(here()), await second.leftovers()], ['running', [uuid]])
  await second.virsh('undefine', uuid)
})

test('after a move it takes a change while it runs, and boots with its disks and NICs where they were', async () => {
  await muster().completed(await migrate(here(), second.uuid))
  const on = `/servers/${second.uuid}/vms/${uuid}`
  const change = { add_nics: [{ mac: '52:54:00:4d:55:03', network: 'roaming' }], add_disks: [{ size: 16 }] }
  await muster().completed(await muster().request('POST', `${on}/update`, change))
  const machine = addresses(await second.virsh('dumpxml', uuid))
  await muster().completed(await muster().request('POST', `${on}/stop`, { force: true }))
  const task = await muster().ended(await migrate(second.uuid, here()))
  equal([task.status, task.error?.code], ['failure', 'VmNotRunning'])
  const boots = await (await second.console(uuid)).count(/MUSTER-GUEST ready/)
  await muster().completed(await muster().request('POST', `${on}/start`))
  const console = await second.console(uuid)
  await console.sees(/MUSTER-GUEST ready/, { times: boots + 1 })
  equal(addresses(await second.virsh('dumpxml', uuid)), machine)
  equal(await sh(console, 'sha256sum /dev/sdb | cut -c1-64'), digest)
  equal(await sh(console, 'ls -d /sys/block/sd* | wc -l'), '3')
  await nothingIsStrange()
})

test.run()
