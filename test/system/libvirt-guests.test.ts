/** The libvirt implementation with guests that boot: what they see of their disks and NICs, installers, hangs and restarts. */
import { randomUUID } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { createConnection } from 'node:net'
import * as assert from 'uvu/assert'
import * as v from 'valibot'
import { VmSpec } from '../../actors/contract/vm.ts'
import { type Hypervisor, type HypervisorChange, HypervisorError } from '../../hypervisor-agent/hypervisor.ts'
import { type LibvirtOptions, libvirtHypervisor } from '../../hypervisor-agent/libvirt/libvirt.ts'
import { Hypervisor as Libvirt } from '../../hypervisor-agent/node-libvirt/index.ts'
import { eventually } from '../eventually.ts'
import { installerMemoryMib, serveInstallerTrees } from './lab/installer-tree.ts'
import { systemSuite } from './lab/suite.ts'

const { test, lab } = await systemSuite('libvirt guests')
const socketPath = '/run/libvirt/libvirt-sock'
const slow = { limitMs: 240_000 }
const changes: HypervisorChange[] = []
let hypervisor: Hypervisor

test.before(async () => {
  hypervisor = libvirtHypervisor(options())
  await hypervisor.open()
  hypervisor.onChange(change => void changes.push(change))
})
test.after(() => hypervisor?.close())

test(
  'the definition is valid by libvirt’s schema, with spare slots that take a NIC of a stopped and of a running VM',
  async () => {
    const wanted = await defined({
      alias: 'a < b',
      nics: [{ mac: '52:54:00:4d:01:01', bridge: lab().bridge, vlan_id: 5 }],
    })
    const direct = await Libvirt.connect({ uri: lab().uri, socketPath })
    const domain = await direct.lookupDomainByUuid(wanted.uuid)
    await direct.defineDomain(await domain.getXml({ inactive: true }), { validate: true })
    await hypervisor.startVm(wanted.uuid)
    for (let n = 2; n < 8; n += 1) {
      const nic = `<interface type='bridge'><mac address='52:54:00:4d:01:0${n}'/><source bridge='${lab().bridge}'/><virtualport type='openvswitch'/><model type='virtio'/></interface>`
      await domain.attachDevice(nic, 'both')
    }
    assert.is((await hypervisor.loadVm(wanted.uuid))?.nics.length, 7)
    await direct.close()
    await hypervisor.removeVm(wanted.uuid)
  },
  slow,
)

test(
  'a guest sees nine disks as sda to sdi in the order asked for, its NIC with the VLAN, and answers VNC',
  async () => {
    await hypervisor.createNetwork({ name: 'guests-42', bridge: lab().bridge, vlan: 42 })
    const sizes = [64, 9, 8, 7, 6, 5, 4, 3, 2]
    const wanted = await defined({
      disks: sizes.map((size_mib, n) => ({ size_mib, ...(n === 0 ? { image: lab().image } : {}) })),
      nics: [
        { mac: '52:54:00:4d:02:01', network: 'guests-42' },
        { mac: '52:54:00:4d:02:02', nic_tag: 'external', vlan_id: 43 },
      ],
    })
    await hypervisor.startVm(wanted.uuid)
    const console = await lab().console(wanted.name)
    await console.sees(/MUSTER-GUEST ready/)
    const text = await console.text()
    const disks = [...text.matchAll(/DISK (sd\w+) sectors=(\d+) driver=(\w+)/g)].map(match => match.slice(1))
    assert.equal(
      disks,
      sizes.map((size, n) => [`sd${'abcdefghi'[n]}`, String(size * 2048), 'virtio_scsi']),
    )
    const vm = await hypervisor.loadVm(wanted.uuid)
    assert.equal(
      vm?.nics.map(({ mac, vlan }) => [mac, vlan]),
      [
        ['52:54:00:4d:02:01', 42],
        ['52:54:00:4d:02:02', 43],
      ],
    )
    const ports = await lab().ports()
    assert.equal(
      vm?.nics.map(nic => ports.find(port => port.name === nic.interface)?.tag),
      [42, 43],
    )
    assert.is(vm?.pid, await lab().qemuPid(wanted.name))
    assert.is(vm?.vnc?.host, '127.0.0.1')
    assert.match(await greeting(vm?.vnc?.port ?? 0), /^RFB 003\.008\n/)
    assert.ok((vm?.disks[0]?.allocated_bytes ?? 0) > 0)
    // A guest under load may not listen yet when it says it is ready: the button is pressed again, as the tasks do.
    await eventually(
      async () => {
        await hypervisor.pressPowerButton(wanted.uuid)
        return (await hypervisor.listVms()).some(one => one.uuid === wanted.uuid && one.state === 'stopped')
      },
      { withinMs: 90_000, everyMs: 2_000, what: 'the guest going off' },
    )
    assert.is((await hypervisor.loadVm(wanted.uuid))?.vnc, undefined)
    await hypervisor.removeVm(wanted.uuid)
    await hypervisor.deleteNetwork('guests-42')
  },
  slow,
)

test(
  'an installer’s reboot stops the VM, its definition stays, and it boots from the disk that was written',
  async () => {
    const trees = await serveInstallerTrees()
    const wanted = await defined({ memory_mib: installerMemoryMib })
    const folder = '/run/muster-lab/installer'
    await mkdir(folder, { recursive: true })
    for (const file of ['linux', 'initrd.gz']) {
      const url = `${trees.debian}current/images/netboot/debian-installer/amd64/${file}`
      await writeFile(`${folder}/${file}`, Buffer.from(await (await fetch(url)).arrayBuffer()))
    }
    await trees.stop()
    const cmdline = `console=ttyS0,115200n8 quiet note="<a>&'b'"`
    await hypervisor.startInstaller(wanted.uuid, {
      kernelPath: `${folder}/linux`,
      initrdPath: `${folder}/initrd.gz`,
      cmdline,
    })
    const console = await lab().console(wanted.name)
    const [, seen] = await console.sees(/INSTALLER started: (.*)/)
    assert.is(seen?.trim(), cmdline)
    const during = await lab().virsh('dumpxml', '--inactive', wanted.name)
    assert.match(during, /<boot dev='hd'\/>/)
    assert.not.match(during, /<kernel>/)
    assert.match(await lab().virsh('dominfo', wanted.name), /Persistent: +yes/)
    await becomes(wanted.uuid, 'stopped')
    await hypervisor.startVm(wanted.uuid)
    await (await lab().console(wanted.name)).sees(/DISKBOOT-OK/)
    assert.is((await hypervisor.listVms()).find(vm => vm.uuid === wanted.uuid)?.created_by !== undefined, true)
    await hypervisor.removeVm(wanted.uuid)
  },
  slow,
)

test(
  'a guest that hangs delays neither the listing nor other VMs, and can be powered off',
  async () => {
    const hung = await defined()
    const well = await defined()
    await hypervisor.startVm(hung.uuid)
    const pid = await lab().qemuPid(hung.name)
    process.kill(pid, 'SIGSTOP')
    try {
      const stuck = Array.from({ length: 3 }, () =>
        hypervisor.requestReboot(hung.uuid).catch((error: unknown) => error),
      )
      const began = performance.now()
      assert.ok((await hypervisor.listVms()).some(vm => vm.uuid === hung.uuid && vm.state === 'running'))
      assert.ok((await hypervisor.loadVm(hung.uuid)) !== undefined)
      await hypervisor.ping()
      await hypervisor.storage()
      const lookedMs = performance.now() - began
      await hypervisor.startVm(well.uuid)
      await hypervisor.powerOff(well.uuid, { graceful: false })
      const otherMs = performance.now() - began - lookedMs
      console.log(`beside a hung guest: looking ${Math.round(lookedMs)} ms, another VM ${Math.round(otherMs)} ms`)
      assert.ok(lookedMs < 2_000, `${lookedMs} ms`)
      assert.ok(otherMs < 10_000, `${otherMs} ms`)
      await hypervisor.powerOff(hung.uuid, { graceful: false })
      await becomes(hung.uuid, 'stopped')
      for (const outcome of await Promise.all(stuck))
        assert.ok(outcome === undefined || outcome instanceof HypervisorError)
    } finally {
      try {
        process.kill(pid, 'SIGCONT')
      } catch {}
    }
    await hypervisor.removeVm(hung.uuid)
    await hypervisor.removeVm(well.uuid)
  },
  slow,
)

test(
  'libvirtd killed in the middle of calls: they succeed when it is back, guests run on, and listeners are told',
  async () => {
    const running = await defined()
    await hypervisor.startVm(running.uuid)
    const pid = await lab().qemuPid(running.name)
    const fresh = spec({ disks: [{ size_mib: 64, image: lab().image }, { size_mib: 5 }] })
    const taskId = randomUUID()
    changes.length = 0
    const back = lab().crashLibvirtd()
    const calls = [
      hypervisor.listVms().then(vms => assert.ok(vms.some(vm => vm.uuid === running.uuid && vm.state === 'running'))),
      hypervisor.defineVm(fresh, { taskId }).then(() => hypervisor.startVm(fresh.uuid)),
      hypervisor.resetVm(running.uuid),
    ]
    await Promise.all([back, ...calls])
    assert.is(await lab().qemuPid(running.name), pid)
    await eventually(() => changes.some(change => change.what === 'reconnected'))
    await becomes(fresh.uuid, 'running')
    await hypervisor.powerOff(fresh.uuid, { graceful: true })
    await eventually(() => changes.some(change => change.uuid === fresh.uuid && change.what === 'stopped'))
    await hypervisor.removeVm(fresh.uuid)
    await hypervisor.removeVm(running.uuid)
  },
  slow,
)

test(
  'what cannot start says why by code: a bridge that went, an image that went',
  async () => {
    const wanted = await defined({ nics: [{ mac: '52:54:00:4d:03:01', bridge: 'br7' }] }, { bridges: ['br7'] })
    const error = await hypervisor.startVm(wanted.uuid).then(
      () => undefined,
      (reason: unknown) => reason,
    )
    assert.is((error as HypervisorError).code, 'BridgeNotFound', String(error))
    await hypervisor.removeVm(wanted.uuid)
  },
  slow,
)

test('nothing of these VMs and networks is left behind', async () => {
  const left = await lab().leftovers()
  const ours = left.filter(one => /^(domain|volume|network|port) /.test(one))
  assert.equal(ours, [])
  assert.equal(await lab().ports(), [])
})

test.run()

function options(bridges = [lab().bridge]): LibvirtOptions {
  return {
    uri: lab().uri,
    socketPath,
    domainType: 'qemu',
    pool: lab().pool,
    poolPath: '/var/lib/libvirt/muster-lab',
    consoleFolder: '/run/muster-lab',
    nicTags: { external: lab().bridge },
    openvswitch: { bridges: async () => bridges, ports: async () => ({}), version: async () => undefined },
    deadlines: { returnWithinMs: 60_000 },
  }
}

function spec(more: Partial<v.InferInput<typeof VmSpec>> = {}): VmSpec {
  const uuid = randomUUID()
  return v.parse(VmSpec, {
    uuid,
    name: uuid,
    memory_mib: 96,
    vcpus: 1,
    disks: [{ size_mib: 64 }],
    nics: [],
    autoboot: false,
    ...more,
  })
}

async function defined(
  more: Partial<v.InferInput<typeof VmSpec>> = {},
  pretend?: { bridges: string[] },
): Promise<VmSpec> {
  const wanted = spec(more)
  const by = pretend ? libvirtHypervisor(options(pretend.bridges)) : hypervisor
  if (pretend) await by.open()
  await by.defineVm(wanted, { taskId: randomUUID() })
  if (pretend) await by.close()
  return wanted
}

function becomes(uuid: string, state: string) {
  return eventually(async () => (await hypervisor.listVms()).find(vm => vm.uuid === uuid)?.state === state, {
    withinMs: 90_000,
    what: `state ${state}`,
  })
}

function greeting(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(port, '127.0.0.1')
    socket.once('error', reject)
    socket.once('data', chunk => {
      socket.destroy()
      resolve(chunk.toString('latin1'))
    })
  })
}
