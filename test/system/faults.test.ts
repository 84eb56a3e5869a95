// What goes wrong below Muster is seen and survived: guests that die, libvirtd that restarts or stays away.
import { writeFile } from 'node:fs/promises'
import { equal, ok } from 'uvu/assert'
import { eventually } from '../eventually.ts'
import { act, createGuest, destroy, shutOff, vms } from './lab/stories.ts'
import { systemSuite } from './lab/suite.ts'

const { test, lab, muster } = await systemSuite('faults below Muster', { muster: true })

/** Between two status events of an agent, ms. */
const statusPeriodMs = 60_000

const stateOf = async (uuid: string) => (await vms(muster())).find(vm => vm.uuid === uuid)?.state

/** Guests of this suite, by alias; made by the first test that needs one. */
const guests = new Map<string, string>()
async function guest(alias: string): Promise<string> {
  const known = guests.get(alias)
  if (known) return known
  const uuid = await createGuest(muster(), lab(), { alias, nics: [{ vlan_id: 10 }] })
  guests.set(alias, uuid)
  await (await lab().console(uuid)).sees(/MUSTER-GUEST ready/)
  return uuid
}

test("a guest killed behind the agent's back is reported within one status period and can be started again", async () => {
  const uuid = await guest('victim')
  equal(await stateOf(uuid), 'running')
  process.kill(await lab().qemuPid(uuid), 'SIGKILL')
  const began = performance.now()
  await eventually(async () => (await stateOf(uuid)) !== 'running', {
    withinMs: statusPeriodMs,
    everyMs: 50,
    what: 'the list says that it no longer runs',
  })
  console.log(`FIGURES a killed guest: ${JSON.stringify({ reportedAfterMs: Math.round(performance.now() - began) })}`)
  await muster().completed(await act(muster(), uuid, 'start'))
  await (await lab().console(uuid)).sees(/MUSTER-GUEST ready/, { times: 2 })
})

test('a guest that died while libvirtd and agent were away is reported when they are back', async () => {
  const uuid = await guest('victim')
  const pid = await lab().qemuPid(uuid)
  await lab().stopLibvirtd()
  await muster().withoutAgent(async () => process.kill(pid, 'SIGKILL') && undefined)
  await lab().startLibvirtd()
  await eventually(async () => (await stateOf(uuid)) !== 'running', { withinMs: statusPeriodMs, everyMs: 100 })
  await muster().completed(await act(muster(), uuid, 'start'))
})

test('a stop during which libvirtd crashes ends with the guest off', async () => {
  const uuid = await guest('deaf')
  const console = await lab().console(uuid)
  // Nobody reads the power button any more, so the stop lasts until its timeout.
  await console.ask('sh killall dd; echo deafened', /SH .*deafened/)
  const answer = await act(muster(), uuid, 'stop', { timeout: 8 })
  const began = performance.now()
  await lab().crashLibvirtd()
  await muster().completed(answer)
  ok(performance.now() - began > 5_000, 'the guest was given its time')
  await shutOff(lab(), uuid, 1_000)
  equal(await stateOf(uuid), 'stopped')
})

test('a start asked for while libvirtd is down is done once it is back', async () => {
  const uuid = await guest('deaf')
  await lab().stopLibvirtd()
  const answer = await act(muster(), uuid, 'start')
  await lab().startLibvirtd()
  await muster().completed(answer)
  equal((await lab().virsh('domstate', uuid)).trim(), 'running')
  equal(await stateOf(uuid), 'running')
})

test('guests run on while every process of Muster is stopped, and are found again', async () => {
  const uuid = await guest('victim')
  const pid = await lab().qemuPid(uuid)
  const boots = await (await lab().console(uuid)).count(/MUSTER-GUEST ready/)
  await muster().restart()
  equal(await lab().qemuPid(uuid), pid)
  equal(await (await lab().console(uuid)).count(/MUSTER-GUEST ready/), boots)
  equal(await stateOf(uuid), 'running')
})

test('what is made and removed behind the agent is found: a domain nobody ordered, and one that is gone', async () => {
  const name = 'foreign.lab.example.com'
  const file = `${lab().folder}/foreign.xml`
  await writeFile(
    file,
    `<domain type='qemu'><name>${name}</name><memory unit='MiB'>32</memory><os><type arch='x86_64' machine='q35'>hvm</type></os></domain>`,
  )
  await lab().virsh('define', file)
  const uuid = (await lab().virsh('domuuid', name)).trim()
  await eventually(async () => (await stateOf(uuid)) === 'stopped', { withinMs: statusPeriodMs, everyMs: 100 })
  equal((await muster().request('GET', `/host/${name}`)).status, 204)
  equal((await muster().request('POST', `/host/${name}`, { memory: 96, disks: [1], networks: [] })).status, 409)
  await muster().completed(await act(muster(), uuid, 'start'))
  equal((await lab().virsh('domstate', name)).trim(), 'running')
  await lab().virsh('destroy', name)
  await lab().virsh('undefine', name)
  await eventually(async () => (await muster().request('GET', `/host/${name}`)).status === 404, {
    withinMs: statusPeriodMs,
    everyMs: 100,
    what: 'the host is gone',
  })
})

test('facts of a running guest are read through REST as its node has them', async () => {
  const uuid = await guest('victim')
  const path = `/servers/${muster().serverUuid}/vms/${uuid}`
  const vm = await muster().request('GET', path)
  equal([vm.status, vm.body.state, vm.body.alias], [200, 'running', 'victim'])
  const screen = await muster().request('GET', `${path}/vnc`)
  equal(screen.status, 200)
  equal(screen.body.port, 5900 + Number((await lab().virsh('vncdisplay', uuid)).trim().split(':').at(-1)))
  const actions = (await muster().request('GET', `${path}/actions`)).body.actions as { verb: string; legal?: boolean }[]
  ok(actions.some(action => action.verb === 'stop'))
})

test('destroyed guests leave nothing behind', async () => {
  for (const uuid of guests.values()) await muster().completed(await destroy(muster(), uuid))
  equal(await lab().leftovers(), [])
})

test.run()
