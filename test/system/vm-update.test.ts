// VMs that are changed while they run, seen from inside: a disk that grows, a NIC that moves to another VLAN or comes and goes, memory
// that comes with the next boot, another image under the same machine, also when the agent is killed in the middle of it.
import { randomUUID } from 'node:crypto'
import { copyFile, open, rm, stat } from 'node:fs/promises'
import { equal, match, ok } from 'uvu/assert'
import { eventually } from '../eventually.ts'
import { command } from './lab/command.ts'
import { guest } from './lab/guest.ts'
import { act, createGuest, destroy, vms } from './lab/stories.ts'
import { systemSuite } from './lab/suite.ts'

const { test, lab, muster } = await systemSuite('changing VMs', { muster: true })

type Guest = 'a' | 'b' | 'c'
const vlans = { a: 10, b: 10, c: 20 } as const
const uuids: Record<string, string> = {}
const kept = 'kept-on-the-data-disk'
const otherImage = 'lab-guest-other'
const marker = 'this-is-the-other-image'
const markerMib = 40

const consoleOf = (name: Guest) => lab().console(uuids[name] ?? '')
// A whole line: a slow guest is read in the middle of one.
async function sh(name: Guest, line: string): Promise<string> {
  return ((await (await consoleOf(name)).ask(`sh ${line}`, /SH (.*)[\r\n]/))[1] ?? '').trim()
}
async function ping(from: Guest, to: Guest): Promise<string> {
  const ip = (await (await consoleOf(to)).sees(/NIC eth0 mac=\S+ ip=(\S+)[\r\n]/))[1]
  return (await (await consoleOf(from)).ask(`ping ${ip}`, /PING (\S+) (OK|FAIL)/))[2] ?? ''
}
// biome-ignore lint/suspicious/noExplicitAny: what VmLoad and a task's end say is looked into as it is
const load = async (name: Guest): Promise<any> =>
  (await muster().request('GET', `/servers/${muster().serverUuid}/vms/${uuids[name]}`)).body
type Drift = { vm_uuid: string; field: string; found: { file?: string } }
const drift = async () => (await muster().request('GET', `/servers/${muster().serverUuid}/drift`)).body.drift as Drift[]
// biome-ignore lint/suspicious/noExplicitAny: as above
async function changed(verb: string, body: object): Promise<any> {
  const task = await muster().completed(await act(muster(), uuids['a'] ?? '', verb, body))
  return (task as unknown as { history: { event: unknown }[] }).history.at(-1)?.event
}

test('three guests boot, two on one VLAN and one on another', async () => {
  const made = await Promise.all(
    (['a', 'b', 'c'] as const).map(name =>
      createGuest(muster(), lab(), { alias: name, disks: name === 'a' ? [32] : [], nics: [{ vlan_id: vlans[name] }] }),
    ),
  )
  for (const [n, name] of (['a', 'b', 'c'] as const).entries()) uuids[name] = made[n] ?? ''
  for (const name of ['a', 'b', 'c'] as const) await (await consoleOf(name)).sees(/MUSTER-GUEST ready/)
  equal([await ping('a', 'b'), await ping('a', 'c')], ['OK', 'FAIL'])
  await sh('a', `printf ${kept} | dd of=/dev/sdb conv=notrunc && sync`)
})

test('one update grows a disk that the guest sees, moves its NIC to another VLAN, and leaves memory for the next boot', async () => {
  const nic = (await load('a')).nics[0]
  const result = await changed('update', {
    ram: 160,
    alias: 'changed',
    update_disks: [{ path: '/dev/sdb', size: 64 }],
    update_nics: [{ mac: nic.mac, vlan_id: 20 }],
    max_swap: 1,
  })
  const live = { alias: 'live', 'disks.sdb': 'live', [`nics.${nic.mac}`]: 'live' }
  equal(result.applied, { ram: 'next_boot', ...live })
  equal(result.ignored, ['max_swap'])
  await eventually(async () => (await sh('a', 'cat /sys/block/sdb/size')) === String(64 * 2048), { withinMs: 20_000 })
  equal(await sh('a', `head -c ${kept.length} /dev/sdb`), kept)
  equal([await ping('a', 'b'), await ping('a', 'c')], ['FAIL', 'OK'])
  const listed = (await vms(muster())).find(vm => vm.uuid === uuids['a']) as unknown as Record<string, unknown>
  equal([listed['alias'], listed['max_physical_memory']], ['changed', 160])
})

test('a NIC comes and goes while the guest runs', async () => {
  const mac = '52:54:00:4d:55:01'
  const { applied } = await changed('update', { add_nics: [{ mac, bridge: lab().bridge, vlan_id: 20 }] })
  equal(applied, { [`nics.${mac}`]: 'live' })
  await eventually(async () => (await sh('a', 'cat /sys/class/net/eth1/address')) === mac, { withinMs: 20_000 })
  equal((await changed('update', { remove_nics: [mac] })).applied, { [`nics.${mac}`]: 'live' })
  await eventually(async () => !(await sh('a', 'ls /sys/class/net')).includes('eth1'), { withinMs: 20_000 })
  equal((await load('a')).nics.length, 1)
})

test('an agent that is killed in the middle of an update ends it whole, and nothing of it twice', async () => {
  const mac = '52:54:00:4d:55:02'
  const disks = async () => (await lab().leftovers()).filter(one => one.includes(`${uuids['a']}-disk`)).length
  const before = await disks()
  /** The guest does not give memory back, which is waited for: the definition is switched then, and the guest has nothing yet. */
  const killed = async (body: object, isSwitched: (definition: string) => boolean) => {
    const answer = await act(muster(), uuids['a'] ?? '', 'update', body)
    await eventually(async () => isSwitched(await lab().virsh('dumpxml', uuids['a'] ?? '', '--inactive')), {
      withinMs: 30_000,
      everyMs: 20,
      what: 'the definition being switched',
    })
    await muster().killAgent()
    equal((await muster().request('GET', `/tasks/${answer.body.id}`)).body.status, 'active')
    const task = await muster().completed(answer)
    return (task as unknown as { history: { event: { applied: object } }[] }).history.at(-1)?.event.applied
  }
  const nic = { mac, bridge: lab().bridge, vlan_id: 20 }
  const given = { ram: 88, add_disks: [{ size: 16 }], add_nics: [nic], set_tags: { killed: 1 } }
  const devices = { 'disks.sdc': 'live', [`nics.${mac}`]: 'live' }
  equal(await killed(given, definition => definition.includes(mac)), { ram: 'next_boot', tags: 'live', ...devices })
  await eventually(async () => (await sh('a', 'cat /sys/class/net/eth1/address')) === mac, { withinMs: 20_000 })
  // This guest looks for new disks when it is told to (scsi_mod.scan=manual).
  await sh('a', 'echo - - - > /sys/class/scsi_host/host0/scan')
  await eventually(async () => (await sh('a', 'cat /sys/block/sdc/size')) === String(16 * 2048), { withinMs: 20_000 })
  equal(await disks(), before + 1)
  const taken = { ram: 80, remove_disks: ['sdc'], remove_nics: [mac] }
  equal(await killed(taken, definition => !definition.includes(mac)), { ram: 'next_boot', ...devices })
  await eventually(async () => !(await sh('a', 'ls /sys/class/net')).includes('eth1'), { withinMs: 20_000 })
  equal(await disks(), before)
  await changed('update', { ram: 160 })
  equal(await drift(), [])
})

test('a disk that would shrink is refused, and so is all that came with it', async () => {
  const answer = await act(muster(), uuids['a'] ?? '', 'update', {
    alias: 'never',
    update_disks: [{ path: 'sdb', size: 32 }],
  })
  const task = await muster().ended(answer)
  equal([task.status, task.error?.code], ['failure', 'InvalidArgument'])
  match(task.error?.message ?? '', /cannot shrink/)
  equal((await load('a')).alias, 'changed')
})

test('an overlay that a backup has put over a disk keeps the disk below it, whatever is updated', async () => {
  const { path } = (await load('b')).disks[0]
  const overlay = `${path}.overlay`
  const xml = ['--diskspec', `sda,file=${overlay}`, '--disk-only', '--no-metadata', '--atomic']
  await lab().virsh('snapshot-create-as', uuids['b'] ?? '', 'backup', ...xml)
  ok((await lab().virsh('domblklist', uuids['b'] ?? '')).includes(overlay))
  await muster().completed(await act(muster(), uuids['b'] ?? '', 'update', { alias: 'backed-up' }))
  ok((await stat(path)).isFile(), 'what the overlay stands on is there')
  equal(
    (await drift()).map(({ field, found }) => [field, found.file]),
    [['disks.sda', `${uuids['b']}-disk0.qcow2.overlay`]],
  )
  const boots = await (await consoleOf('b')).count(/MUSTER-GUEST ready/)
  await muster().completed(await act(muster(), uuids['b'] ?? '', 'reboot', { force: true }))
  await (await consoleOf('b')).sees(/MUSTER-GUEST ready/, { times: boots + 1 })
})

test('after VmReboot the guest has the memory, its disk and its VLAN', async () => {
  const console = await consoleOf('a')
  const boots = await console.count(/MUSTER-GUEST ready/)
  const before = Number((await console.sees(/BOOT \S+ memory_kib=(\d+)/))[1])
  await changed('reboot', {})
  await (await consoleOf('a')).sees(/MUSTER-GUEST ready/, { times: boots + 1 })
  const after = Number((await console.sees(/BOOT \S+ memory_kib=(\d+)/, { times: boots + 1 }))[1])
  ok(after - before > 50 * 1024, `${before} KiB before, ${after} KiB after`)
  equal(await sh('a', 'cat /sys/block/sdb/size'), String(64 * 2048))
  equal(await ping('a', 'c'), 'OK')
})

test('what runs for a VM is told', async () => {
  const answer = await muster().request('GET', `/servers/${muster().serverUuid}/vms/${uuids['a']}/proc`)
  equal(answer.status, 200)
  const shown = Object.values(answer.body as Record<string, { name: string; source: string }>)
  ok(
    shown.some(one => one.source === 'qemu' && /CPU 0/.test(one.name)),
    JSON.stringify(answer.body),
  )
})

test('reprovisioned, with the agent killed in the middle, it has the other image and its data disk, NIC and name', async () => {
  await addImage()
  const before = await load('a')
  const console = await consoleOf('a')
  const boots = await console.count(/MUSTER-GUEST ready/)
  const buttons = await console.count(/MUSTER-GUEST power button/)
  const answer = await act(muster(), uuids['a'] ?? '', 'reprovision', { image_uuid: otherImage })
  equal(answer.status, 200)
  // The old system is going down, and the definition is not switched yet.
  await console.sees(/MUSTER-GUEST power button/, { times: buttons + 1 })
  await muster().killAgent()
  equal((await muster().request('GET', `/tasks/${answer.body.id}`)).body.status, 'active')
  await muster().completed(answer)
  await (await consoleOf('a')).sees(/MUSTER-GUEST ready/, { times: boots + 1 })
  equal(await sh('a', `dd if=/dev/sda bs=1M skip=${markerMib} count=1 2>/dev/null | head -c ${marker.length}`), marker)
  equal(await sh('a', `head -c ${kept.length} /dev/sdb`), kept)
  equal(await ping('a', 'c'), 'OK')
  const after = await load('a')
  equal([after.alias, after.nics[0].mac, after.disks.length], ['changed', before.nics[0].mac, 2])
  equal(
    (await lab().leftovers()).filter(one => one.includes(`${uuids['a']}-disk0`)).length,
    1,
    'the old volume is gone',
  )
})

test('NICs of all VMs on one VLAN move together, once, although the agent is killed on the way', async () => {
  const answer = await muster().request('POST', `/servers/${muster().serverUuid}/vms/nics/update`, {
    original_network: { bridge: lab().bridge, vlan_id: 20 },
    networks: [{ uuid: randomUUID(), vlan_id: 30 }],
  })
  await muster().killAgent()
  const task = (await muster().completed(answer)) as unknown as { history: { event: { vms: { uuid: string }[] } }[] }
  const moved = task.history
    .at(-1)
    ?.event.vms.map(vm => vm.uuid)
    .sort()
  equal(moved, [uuids['a'], uuids['c']].sort())
  equal((await lab().ports()).map(port => port.tag).sort(), [10, 30, 30])
  equal(await ping('a', 'c'), 'OK')
  equal([await ping('a', 'b'), (await drift()).filter(one => one.vm_uuid !== uuids['b'])], ['FAIL', []])
})

test('nothing of these VMs is left behind', async () => {
  await Promise.all(Object.values(uuids).map(async uuid => muster().completed(await destroy(muster(), uuid))))
  await lab().virsh('pool-refresh', lab().pool)
  await lab().virsh('vol-delete', `${uuids['b']}-disk0.qcow2.overlay`, '--pool', lab().pool)
  await lab().virsh('vol-delete', otherImage, '--pool', lab().pool)
  equal(await lab().leftovers(), [])
})

/** The lab's image with a mark behind its file system. */
async function addImage(): Promise<void> {
  const { raw } = await guest()
  const file = `${lab().folder}/${otherImage}.raw`
  await copyFile(raw, file)
  const handle = await open(file, 'r+')
  await handle.truncate((markerMib + 8) * 1024 ** 2)
  await handle.write(marker, markerMib * 1024 ** 2)
  await handle.close()
  await command('qemu-img', ['convert', '-O', 'qcow2', file, `${file}.qcow2`])
  const bytes = String((await stat(`${file}.qcow2`)).size)
  await lab().virsh('vol-create-as', lab().pool, otherImage, bytes, '--format', 'qcow2')
  await lab().virsh('vol-upload', otherImage, `${file}.qcow2`, '--pool', lab().pool)
  await lab().virsh('pool-refresh', lab().pool)
  await rm(file)
}

test.run()
