/** The libvirt implementation against the conformance suite, on real QEMU (TCG) and Open vSwitch. */
import { copyFile, mkdir } from 'node:fs/promises'
import { libvirtHypervisor } from '../../hypervisor-agent/libvirt/libvirt.ts'
import { conformance } from '../integration/hypervisor-conformance.ts'
import { suite } from '../suite.ts'
import { guest } from './lab/guest.ts'
import { startLab, whyNoLab } from './lab/lab.ts'

const reason = process.env['SYSTEM_TESTS'] === 'required' ? undefined : await whyNoLab()
// QEMU runs as another user, which cannot read a checkout in a private home.
const folder = '/run/muster-lab/conformance'

if (reason) {
  const test = suite('hypervisor: libvirt with QEMU')
  test.skip('the conformance suite', reason)
  test.run()
} else {
  conformance({
    name: 'libvirt with QEMU',
    bridge: 'br0',
    nicTag: 'external',
    image: { name: 'lab-guest', sizeMib: 64 },
    acpi: 'ignores',
    volumesHaveContent: true,
    storageIsCounted: true,
    memoryIsCounted: true,
    reopens: true,
    crashes: true,
    memoryMib: 96,
    withinMs: 60_000,
    installer: async () => {
      const { kernel, initramfs } = await guest()
      await mkdir(folder, { recursive: true })
      await copyFile(kernel, `${folder}/linux`)
      await copyFile(initramfs, `${folder}/initrd.gz`)
      return {
        kernelPath: `${folder}/linux`,
        initrdPath: `${folder}/initrd.gz`,
        cmdline: 'console=ttyS0,115200n8 quiet',
      }
    },
    make: async () => {
      const lab = await startLab()
      const open = async () => {
        const made = libvirtHypervisor({
          uri: lab.uri,
          socketPath: '/run/libvirt/libvirt-sock',
          domainType: 'qemu',
          pool: lab.pool,
          poolPath: '/var/lib/libvirt/muster-lab',
          consoleFolder: '/run/muster-lab',
          nicTags: { external: lab.bridge },
          openvswitch: { bridges: async () => [lab.bridge], ports: async () => ({}), version: async () => undefined },
        })
        await made.open()
        return made
      }
      let now = await open()
      return {
        hypervisor: now,
        reopen: async () => {
          await now.close()
          now = await open()
          return now
        },
        crash: async uuid => {
          process.kill(await lab.qemuPid(uuid), 'SIGKILL')
        },
        close: async () => {
          await now.close()
          await lab.stop()
        },
      }
    },
  })
}
