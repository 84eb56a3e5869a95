// The lab itself: its guest boots from a disk, talks, obeys the power button and pings by VLAN; and nothing stays behind.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { equal, match, ok } from 'uvu/assert'
import { eventually } from '../eventually.ts'
import { guestAddress } from './lab/guest.ts'
import { startLab } from './lab/lab.ts'
import { systemSuite } from './lab/suite.ts'

const { test, lab } = await systemSuite('the lab')

const macs = { a: '52:54:00:4d:00:0a', b: '52:54:00:4d:00:0b', c: '52:54:00:4d:00:0c' }

async function network(name: string, tag: number): Promise<void> {
  const file = `/run/muster-lab/${name}.xml`
  await writeFile(
    file,
    `<network><name>${name}</name><forward mode='bridge'/><bridge name='${lab().bridge}'/>
     <virtualport type='openvswitch'/><vlan><tag id='${tag}'/></vlan></network>`,
  )
  await lab().virsh('net-define', file)
  await lab().virsh('net-start', name)
}

async function start(name: string, network: string, mac: string): Promise<void> {
  const file = `/run/muster-lab/${name}.xml`
  await lab().virsh('vol-clone', lab().image, name, '--pool', lab().pool)
  const disk = (await lab().virsh('vol-path', name, '--pool', lab().pool)).trim()
  await writeFile(
    file,
    `<domain type='qemu'><name>${name}</name><memory unit='MiB'>96</memory><vcpu>1</vcpu>
     <os><type arch='x86_64' machine='q35'>hvm</type><boot dev='hd'/></os><features><acpi/></features>
     <devices><disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='${disk}'/><target dev='sda' bus='scsi'/></disk>
     <controller type='scsi' index='0' model='virtio-scsi'/>
     <interface type='network'><mac address='${mac}'/><source network='${network}'/><model type='virtio'/></interface>
     <serial type='pty'><log file='/run/muster-lab/${name}.log' append='on'/><target port='0'/></serial></devices></domain>`,
  )
  await lab().virsh('define', file)
  await lab().virsh('start', name)
}

test(
  'a guest boots from its disk, lists it as virtio-scsi sda, and powers off when the button is pressed',
  async () => {
    await network('lab-10', 10)
    await start('lab-a', 'lab-10', macs.a)
    const console = await lab().console('lab-a')
    await console.sees(/MUSTER-GUEST ready/)
    match(await console.text(), /DISKBOOT-OK/)
    match(await console.text(), /DISK sda sectors=\d+ driver=virtio_scsi address=0:0:0:0/)
    match(await console.text(), new RegExp(`NIC eth0 mac=${macs.a} ip=${guestAddress(macs.a)}`))
    await lab().virsh('shutdown', 'lab-a')
    await eventually(async () => (await lab().virsh('domstate', 'lab-a')).trim() === 'shut off', { withinMs: 20_000 })
    match(await console.text(), /power button/)
  },
  { limitMs: 120_000 },
)

test(
  'a guest answers its neighbour on the same VLAN and not one on another',
  async () => {
    await network('lab-20', 20)
    await lab().virsh('start', 'lab-a')
    await start('lab-b', 'lab-10', macs.b)
    await start('lab-c', 'lab-20', macs.c)
    equal((await lab().ports()).map(port => port.tag).sort(), [10, 10, 20])
    const consoles = [await lab().console('lab-a'), await lab().console('lab-b'), await lab().console('lab-c')] as const
    await consoles[0].sees(/MUSTER-GUEST ready/, { times: 2 })
    await consoles[1].sees(/MUSTER-GUEST ready/)
    await consoles[2].sees(/MUSTER-GUEST ready/)
    const ping = async (from: 0 | 1 | 2, mac: string) =>
      (await consoles[from].ask(`ping ${guestAddress(mac)}`, /PING (\S+) (OK|FAIL)/))[2]
    equal(await ping(0, macs.b), 'OK')
    equal(await ping(1, macs.a), 'OK')
    equal(await ping(0, macs.c), 'FAIL')
    equal(await ping(2, macs.a), 'FAIL')
    equal(await ping(2, macs.c), 'OK', 'a guest answers itself, so it is the VLAN that keeps the others away')
  },
  { limitMs: 240_000 },
)

test(
  'a crashed libvirtd comes back and finds its guests running',
  async () => {
    const pid = await lab().qemuPid('lab-a')
    await lab().crashLibvirtd()
    equal((await lab().virsh('domstate', 'lab-a')).trim(), 'running')
    equal(await lab().qemuPid('lab-a'), pid)
  },
  { limitMs: 90_000 },
)

test(
  'stopping the lab leaves no domain, network, volume, port or process behind, with guests running too',
  async () => {
    const left = await lab().leftovers()
    ok(
      left.includes('domain lab-a') && left.includes('network lab-20') && left.includes('volume muster/lab-c'),
      `${left}`,
    )
    const guests = await Promise.all(['lab-a', 'lab-b', 'lab-c'].map(name => lab().qemuPid(name)))
    await lab().stop()
    const running = (pid: number) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
    await eventually(async () => (await Promise.all(guests.map(running))).join('') === '', {
      what: 'the guests are gone',
    })
    equal(existsSync('/run/muster-lab'), false)
    equal(existsSync('/var/lib/libvirt/muster-lab'), false)
    const again = await startLab()
    equal(await again.leftovers(), [])
    equal(await again.ports(), [])
    await again.stop()
  },
  { limitMs: 120_000 },
)

test(
  'a lab whose process was killed is cleared away by the next one',
  async () => {
    const program = `
      import { writeFile } from 'node:fs/promises'
      import { startLab } from ${JSON.stringify(new URL('lab/lab.ts', import.meta.url).href)}
      const lab = await startLab()
      const xml = lab.folder + '/orphan.xml'
      await writeFile(xml, process.env.ORPHAN)
      await lab.virsh('create', xml)
      console.log('up ' + await lab.qemuPid('lab-orphan'))
      setInterval(() => {}, 1000)`
    const orphan = `<domain type='qemu'><name>lab-orphan</name><memory unit='MiB'>32</memory>
      <os><type arch='x86_64' machine='q35'>hvm</type></os></domain>`
    const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', program], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, ORPHAN: orphan },
    })
    let said = ''
    child.stdout.on('data', chunk => {
      said += chunk
    })
    const pid = await eventually(() => said.match(/up (\d+)/)?.[1], {
      withinMs: 60_000,
      what: 'the other lab is up',
    })
    child.kill('SIGKILL')
    await once(child, 'exit')
    ok(existsSync(`/proc/${pid}`), 'its guest still runs')
    const next = await startLab()
    try {
      equal(await next.leftovers(), [])
      equal(await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => ''), '')
    } finally {
      await next.stop()
    }
  },
  { limitMs: 120_000 },
)

test.run()
