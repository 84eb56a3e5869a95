// What goes wrong below Muster is seen and survived: guests that die, libvirtd that restarts or stays away.
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
  console.log(`reported after ${Math.round(performance.now() - began)} ms`)
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

test('destroyed guests leave nothing behind', async () => {
  for (const uuid of guests.values()) await muster().completed(await destroy(muster(), uuid))
  equal(await lab().leftovers(), [])
})

test.run()
