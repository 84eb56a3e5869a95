/** The libvirt implementation against the conformance suite, on libvirt's test driver behind a private unprivileged libvirtd. */
import { Hypervisor as Libvirt } from 'node-libvirt'
import { libvirtHypervisor } from '../../hypervisor-agent/libvirt/libvirt.ts'
import { libvirtdMissing, PrivateLibvirtd } from '../../hypervisor-agent/node-libvirt/test/private-libvirtd.ts'
import { suite } from '../suite.ts'
import { conformance } from './hypervisor-conformance.ts'

const missing = libvirtdMissing()

if (missing) {
  const test = suite('hypervisor: libvirt test driver')
  test.skip('the conformance suite', missing)
  test.run()
} else {
  conformance({
    name: 'libvirt test driver',
    bridge: 'br0',
    nicTag: 'external',
    image: { name: 'debian-12', sizeMib: 1024 },
    acpi: 'unknown',
    storageIsCounted: true,
    memoryIsCounted: true,
    reopens: true,
    installer: async () => ({
      kernelPath: '/var/lib/muster/linux',
      initrdPath: '/var/lib/muster/initrd.gz',
      cmdline: 'console=ttyS0,115200n8 url="http://example.com/<&>"',
    }),
    make: async () => {
      const daemon = new PrivateLibvirtd()
      await daemon.start()
      const uri = 'test:///default'
      // The test driver forgets everything with its last connection.
      const keeper = await Libvirt.connect({ uri, socketPath: daemon.socketPath })
      const pool = await keeper.defineStoragePool(
        '<pool type="dir"><name>muster</name><target><path>/no/such/folder</path></target></pool>',
      )
      await pool.create()
      await pool.createVolume(
        `<volume><name>debian-12</name><capacity unit="MiB">1024</capacity><target><format type="qcow2"/></target></volume>`,
      )
      const open = async () => {
        const made = libvirtHypervisor({
          uri,
          socketPath: daemon.socketPath,
          domainType: 'test',
          pool: 'muster',
          poolPath: '/no/such/folder',
          consoleFolder: '/no/such/consoles',
          nicTags: { external: 'br0', internal: 'br1' },
          openvswitch: { bridges: async () => ['br0', 'br1'], ports: async () => ({}), version: async () => '3.1.0' },
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
        close: async () => {
          await now.close()
          await keeper.close()
          await daemon.remove()
        },
      }
    },
  })
}
