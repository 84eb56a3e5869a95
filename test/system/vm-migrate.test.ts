// A guest that goes from one libvirtd to another: its disks arrive as they were, it boots there with its NIC on its VLAN, and an agent that is
// killed in the middle leaves it running on exactly one of the two.
import { equal, match, not, ok } from 'uvu/assert'
import { eventually } from '../eventually.ts'
import { freePorts } from '../nats.ts'
import { type SecondNode, startSecondNode } from './lab/second-node.ts'
import { createGuest } from './lab/stories.ts'
import { systemSuite } from './lab/suite.ts'

const [streamPort] = await freePorts(1)
const env = { STREAM_PORT: String(streamPort) }
const { test, lab, muster } = await systemSuite('migrating VMs', { muster: true, env })
let second: SecondNode
let uuid = ''
let digest = ''

test.after(async () => {
  await second?.stop()
})

type Console = Awaited<ReturnType<SecondNode['console']>>
const sh = async (console: Console, line: string) =>
  ((await console.ask(`sh ${line}`, /SH (.*)[\r\n]/))[1] ?? '').trim()
const hash = (console: Console) => sh(console, 'sha256sum /dev/sdb | cut -c1-64')
const migrate = (from: string, to: string) =>
  muster().request('POST', `/servers/${from}/vms/${uuid}/migrate`, {
    migrationTask: { action: 'migrate', record: { target_server_uuid: to } },
    timeout: 20,
  })
const running = async (virsh: (...args: string[]) => Promise<string>) =>
  (await virsh('list', '--name')).split('\n').includes(uuid)
const listed = async (server: string) =>
  ((await muster().request('GET', `/servers/${server}/vms`)).body as { uuid: string; state: string }[]).find(
    vm => vm.uuid === uuid,
  )?.state

test('a running guest moves to another libvirtd with its disks, its address and its VLAN', async () => {
  second = await startSecondNode(muster())
  uuid = await createGuest(muster(), lab(), { alias: 'mover', disks: [32], nics: [{ vlan_id: 10 }] })
  const before = await lab().console(uuid)
  await before.sees(/MUSTER-GUEST ready/)
  await sh(before, 'printf moved-with-me | dd of=/dev/sdb conv=notrunc && sync')
  digest = await hash(before)
  match(digest, /^[0-9a-f]{64}$/)
  const mac = (await before.sees(/NIC eth0 mac=(\S+)/))[1]
  await muster().completed(await migrate(muster().serverUuid, second.uuid))
  equal([await listed(second.uuid), await listed(muster().serverUuid)], ['running', undefined])
  const after = await second.console(uuid)
  await after.sees(/MUSTER-GUEST ready/)
  equal((await after.sees(/NIC eth0 mac=(\S+)/))[1], mac)
  equal(await hash(after), digest)
  ok((await second.ports()).some(({ tag }) => tag === 10))
  not.ok((await lab().ports()).some(({ tag }) => tag === 10))
  equal(
    await lab()
      .leftovers()
      .then(left => left.filter(name => name.includes(uuid))),
    [],
  )
})

test('an agent that is killed in the middle leaves it running on exactly one node, with its disks', async () => {
  const answer = await migrate(second.uuid, muster().serverUuid)
  await eventually(async () => (await muster().request('GET', `/tasks/${answer.body.id}`)).body.step === 'send', {
    withinMs: 60_000,
    everyMs: 20,
    what: 'the disks to be on their way',
  })
  await second.restartAgent()
  const task = await muster().ended(answer)
  const home = task.status === 'complete' ? muster().serverUuid : second.uuid
  await eventually(async () => (await listed(home)) === 'running', { withinMs: 60_000, what: 'it runs' })
  const here = home === second.uuid ? second.virsh : lab().virsh
  const there = home === second.uuid ? lab().virsh : second.virsh
  equal([await running(here), await running(there)], [true, false])
  ok(!(await there('list', '--all', '--name')).includes(uuid))
  const console = home === second.uuid ? await second.console(uuid) : await lab().console(uuid)
  await console.sees(/MUSTER-GUEST ready/)
  equal(await hash(console), digest)
})

test.run()
