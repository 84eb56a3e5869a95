// The whole way, REST to guest: two VLAN networks, three hosts installed over the network, what the guests see, and nothing
// left behind.
import { equal, match, not, ok } from 'uvu/assert'
import { installerMemoryMib, serveInstallerTrees } from './lab/installer-tree.ts'
import { act, createGuest, destroy, shutOff, vms } from './lab/stories.ts'
import { systemSuite } from './lab/suite.ts'

const { test, lab, muster } = await systemSuite('hosts on VLANs', { muster: true })

const hosts = { a: 'a.lab.example.com', b: 'b.lab.example.com', c: 'c.lab.example.com' } as const
type Host = keyof typeof hosts
const network = { 10: 'lab_vlan_10', 20: 'lab_vlan_20' } as const
const names = Object.keys(hosts) as Host[]

async function address(host: Host): Promise<string> {
  const nic = await (await lab().console(hosts[host])).sees(/NIC eth0 mac=\S+ ip=(\S+)/)
  return nic[1] ?? ''
}

async function ping(from: Host, to: Host): Promise<string> {
  const ip = await address(to)
  return (await (await lab().console(hosts[from])).ask(`ping ${ip}`, /PING (\S+) (OK|FAIL)/))[2] ?? ''
}

async function tagOf(host: Host): Promise<number | null | undefined> {
  const nic = (await lab().virsh('domiflist', hosts[host])).trim().split(/\s+/)[0]
  return (await lab().ports()).find(port => port.name === nic)?.tag
}

async function uuidOf(host: Host): Promise<string> {
  return (await lab().virsh('domuuid', hosts[host])).trim()
}

test('a network is created on a bridge with its VLAN, once', async () => {
  for (const vlan of [10, 20] as const) {
    const path = `/host/${hosts.a}/network/${network[vlan]}`
    equal((await muster().request('GET', path)).status, 404)
    equal((await muster().request('POST', path, { bridge: lab().bridge, vlan })).status, 201)
    equal((await muster().request('GET', path)).status, 204)
    equal((await muster().request('POST', path, { bridge: lab().bridge, vlan })).status, 409)
  }
  match(await lab().virsh('net-dumpxml', network[20]), /<tag id='20'\/>/)
  const refused = await muster().request('POST', `/host/${hosts.a}/network/lab_none`, { bridge: 'nobr9', vlan: 10 })
  equal([refused.status, refused.body.code], [409, 'BridgeNotFound'])
})

test('three hosts install at the same time and boot from what was installed', async () => {
  const trees = await serveInstallerTrees()
  try {
    const create = (host: Host, vlan: 10 | 20, disks: number[]) =>
      muster().request('POST', `/host/${hosts[host]}/`, {
        memory: installerMemoryMib,
        disks,
        networks: [network[vlan]],
        install: true,
        location: trees.ubuntu,
        console: true,
      })
    const created = await Promise.all([create('a', 10, [1, 3, 2]), create('b', 10, [1]), create('c', 20, [1])])
    equal(
      created.map(answer => answer.status),
      [201, 201, 201],
      JSON.stringify(created.map(answer => answer.body)),
    )
    equal((await create('a', 10, [1])).status, 409)
    for (const host of names) await (await lab().console(hosts[host])).sees(/DISKBOOT-OK[\s\S]*?MUSTER-GUEST ready/)
    match(await (await lab().console(hosts.a)).text(), /INSTALLER started: .*console=ttyS0/)
  } finally {
    await trees.stop()
  }
  equal((await muster().request('GET', `/host/${hosts.b}/`)).status, 204)
  equal((await muster().request('GET', '/host/none.lab.example.com/')).status, 404)
})

test('disks are virtio-scsi, named sda, sdb, sdc in the order asked for', async () => {
  const text = await (await lab().console(hosts.a)).text()
  const disks = [...text.matchAll(/DISK (sd\w) sectors=(\d+) driver=(\S+)/g)].map(([, name, sectors, driver]) => [
    name,
    Number(sectors) / 2 / 1024 / 1024,
    driver,
  ])
  equal(disks, [
    ['sda', 1, 'virtio_scsi'],
    ['sdb', 3, 'virtio_scsi'],
    ['sdc', 2, 'virtio_scsi'],
  ])
})

test("each guest's port on the bridge carries the tag of its network", async () => {
  equal([await tagOf('a'), await tagOf('b'), await tagOf('c')], [10, 10, 20])
})

test('guests on one VLAN answer each other, one on another VLAN does not', async () => {
  equal(await ping('a', 'b'), 'OK')
  equal(await ping('b', 'a'), 'OK')
  equal(await ping('a', 'c'), 'FAIL')
  equal(await ping('c', 'b'), 'FAIL')
  equal(await ping('c', 'c'), 'OK', 'its own address answers, so it is the VLAN that keeps the others away')
})

test('a stopped guest is off and its port gone; started again it boots from disk and answers', async () => {
  const uuid = await uuidOf('b')
  const console = await lab().console(hosts.b)
  const boots = await console.count(/MUSTER-GUEST ready/)
  await muster().completed(await act(muster(), uuid, 'stop'))
  await shutOff(lab(), hosts.b, 1_000)
  match(await console.text(), /power button/)
  equal((await lab().ports()).length, 2)
  equal((await vms(muster())).find(vm => vm.uuid === uuid)?.state, 'stopped')
  await muster().completed(await act(muster(), uuid, 'start'))
  equal((await vms(muster())).find(vm => vm.uuid === uuid)?.state, 'running')
  await (await lab().console(hosts.b)).sees(/MUSTER-GUEST ready/, { times: boots + 1 })
  equal(await tagOf('b'), 10)
  equal(await ping('a', 'b'), 'OK')
})

test('a rebooted guest boots again, with another boot id', async () => {
  const uuid = await uuidOf('c')
  const console = await lab().console(hosts.c)
  const boots = await console.count(/MUSTER-GUEST ready/)
  const before = (await console.sees(/BOOT (\S+)/))[1]
  await muster().completed(await act(muster(), uuid, 'reboot'))
  await console.sees(/MUSTER-GUEST ready/, { times: boots + 1 })
  not.equal((await console.sees(/BOOT (\S+)/, { times: boots + 1 }))[1], before)
  equal((await lab().virsh('domstate', hosts.c)).trim(), 'running')
})

test('a VM of ten disks shows all ten in the order asked for', async () => {
  const sizes = [64, 96, 32, 128, 48, 80, 16, 112, 24]
  const uuid = await createGuest(muster(), lab(), { alias: 'many-disks', disks: sizes, nics: [{ vlan_id: 20 }] })
  const console = await lab().console(uuid)
  await console.sees(/MUSTER-GUEST ready/)
  const shown = [...(await console.text()).matchAll(/DISK (sd\w) sectors=(\d+)/g)]
  equal(
    shown.map(([, name, sectors]) => `${name} ${Number(sectors) / 2048}`),
    [1024, ...sizes].map((size, index) => `sd${'abcdefghij'[index]} ${size}`),
  )
  const nic = (await console.sees(/NIC eth0 mac=\S+ ip=(\S+)/))[1]
  equal((await (await lab().console(hosts.c)).ask(`ping ${nic}`, /PING (\S+) (OK|FAIL)/))[2], 'OK')
  await muster().completed(await destroy(muster(), uuid))
})

test('a network in use is kept, and what was destroyed leaves no domain, disk, network or port', async () => {
  equal((await muster().request('DELETE', `/networks/${network[10]}`)).status, 409)
  await muster().completed(await destroy(muster(), await uuidOf('a')))
  for (const host of ['b', 'c'] as const) equal((await muster().request('DELETE', `/hosts/${hosts[host]}`)).status, 204)
  for (const host of names) equal((await muster().request('GET', `/host/${hosts[host]}/`)).status, 404)
  for (const vlan of [10, 20] as const) {
    equal((await muster().request('DELETE', `/networks/${network[vlan]}`)).status, 204)
  }
  equal(await lab().leftovers(), [])
  ok((await vms(muster())).every(vm => vm.state !== 'running'))
})

test.run()
