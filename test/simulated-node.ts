/** A simulated node as an agent's process opens it: its hypervisor and the tools that belong to it, over one state folder. */
import { openNicTags } from '../hypervisor-agent/host/nic-tags.ts'
import { openResetMark } from '../hypervisor-agent/host/reset-mark.ts'
import { openScripts, type ScriptsOptions } from '../hypervisor-agent/host/scripts.ts'
import { openSightings } from '../hypervisor-agent/sightings.ts'
import { simulatedBuilds } from '../hypervisor-agent/simulated/builds.ts'
import { simulatedNicTags } from '../hypervisor-agent/simulated/host.ts'
import { simulatedHostControl } from '../hypervisor-agent/simulated/host-control.ts'
import {
  type SimulatedHypervisor,
  type SimulatedOptions,
  simulatedHypervisor,
} from '../hypervisor-agent/simulated/simulated.ts'
import { simulatedZfs } from '../hypervisor-agent/simulated/zfs.ts'
import type { NodeTools } from '../hypervisor-agent/tools.ts'

export interface SimulatedNodeOptions extends SimulatedOptions {
  stateDir: string
  /** Scripts may be run; as whom. */
  execute?: ScriptsOptions['allowed']
  /** How long a reboot takes to come, and the node to be back, ms. */
  goneAfterMs?: number
  downMs?: number
}

export async function openSimulatedNode(
  options: SimulatedNodeOptions,
): Promise<{ hypervisor: SimulatedHypervisor; tools: NodeTools }> {
  const { stateDir, execute, goneAfterMs = 20, downMs = 100, ...simulated } = options
  const configured = simulated.nicTags ?? simulatedNicTags
  const nicTags = await openNicTags({ stateDir, configured })
  const bridges = [...new Set(Object.values(configured))]
  const hypervisor = simulatedHypervisor({ bridges, ...simulated, nicTags: nicTags.byTag })
  await hypervisor.open()
  return {
    hypervisor,
    tools: {
      host: simulatedHostControl({ hypervisor, goneAfterMs, downMs }),
      nicTags,
      scripts: await openScripts({ stateDir, ...(execute ? { allowed: execute } : {}) }),
      resetMark: await openResetMark(stateDir),
      zfs: simulatedZfs(),
      builds: simulatedBuilds(),
      sightings: openSightings(),
    },
  }
}
