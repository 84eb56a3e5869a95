/** Builds what the system tests build once (guest image, installer, a Debian for units), so that no test has to wait for it. */
import { guest } from './guest.ts'
import { serveInstallerTrees } from './installer-tree.ts'
import { buildDebian } from './nspawn.ts'

const steps: Record<string, () => Promise<unknown>> = {
  'guest image': guest,
  installer: async () => (await serveInstallerTrees()).stop(),
  'Debian for units': buildDebian,
}

for (const [name, build] of Object.entries(steps)) {
  const began = performance.now()
  await build()
  console.log(`${name}: ${((performance.now() - began) / 1000).toFixed(1)} s`)
}
