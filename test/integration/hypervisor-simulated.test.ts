/** The simulated hypervisor keeps the promises of the interface, and its own: faults on request, a fleet of different hosts. */
import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { simulatedHypervisor } from '../../hypervisor-agent/simulated/simulated.ts'
import { conformance } from './hypervisor-conformance.ts'

conformance({
  name: 'simulated',
  bridge: 'br0',
  nicTag: 'admin',
  image: { name: 'debian-12', sizeMib: 2048 },
  acpi: 'listens',
  volumesHaveContent: true,
  storageIsCounted: true,
  memoryIsCounted: true,
  reopens: true,
  crashes: true,
  installer: async () => ({ kernelPath: '/installers/linux', initrdPath: '/installers/initrd.gz', cmdline: 'quiet' }),
  installerEndsWithinMs: 5_000,
  make: async () => {
    const folder = mkdtempSync(join(tmpdir(), 'muster-sim-'))
    const open = async () => {
      const made = simulatedHypervisor({ seed: randomUUID(), folder, images: { 'debian-12': 2048 } })
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
      crash: uuid => now.world.crash(uuid),
      close: async () => {
        await now.close()
        rmSync(folder, { recursive: true, force: true })
      },
    }
  },
})
