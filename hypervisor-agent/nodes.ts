/** The nodes of an agent process, each with its identity, its state folder and its opened hypervisor. */
import { join } from 'node:path'
import { buildahBuilds } from './builds/buildah.ts'
import type { Builds } from './builds/builds.ts'
import type { AgentConfig } from './config.ts'
import type { HostControl } from './host/host-control.ts'
import { linuxHost } from './host/linux.ts'
import { type NicTags, openNicTags } from './host/nic-tags.ts'
import { openResetMark } from './host/reset-mark.ts'
import { openScripts } from './host/scripts.ts'
import type { Hypervisor } from './hypervisor.ts'
import { serverIdentity } from './identity.ts'
import { libvirtHypervisor } from './libvirt/libvirt.ts'
import { openVswitch } from './openvswitch/bridges.ts'
import { openSightings } from './sightings.ts'
import { simulatedBuilds } from './simulated/builds.ts'
import { simulatedNicTags } from './simulated/host.ts'
import { simulatedHostControl } from './simulated/host-control.ts'
import { simulatedHypervisor } from './simulated/simulated.ts'
import { simulatedZfs } from './simulated/zfs.ts'
import type { NodeTools } from './tools.ts'
import { zfsCommands } from './zfs/commands.ts'
import type { Zfs } from './zfs/zfs.ts'

export interface Node {
  serverUuid: string
  stateDir: string
  hypervisor: Hypervisor
  tools: NodeTools
}

/** One node, or several simulated ones, each with a folder of its own. */
export async function openNodes(config: AgentConfig, note: (line: string) => void): Promise<Node[]> {
  const { simulatedNodes: count, stateDir } = config
  if (count === 1) return [await openNode(config, stateDir, note)]
  const nodes: Node[] = []
  for (let n = 1; n <= count; n++) nodes.push(await openNode(config, join(stateDir, String(n)), note))
  return nodes
}

async function openNode(config: AgentConfig, stateDir: string, note: (line: string) => void): Promise<Node> {
  const serverUuid = await serverIdentity(stateDir, config.serverUuid)
  const nicTags = await openNicTags({ stateDir, configured: config.nicTags ?? defaultNicTags[config.hypervisor] })
  const { hypervisor, host, zfs, builds } = hypervisors[config.hypervisor](config, {
    serverUuid,
    stateDir,
    note,
    nicTags,
  })
  await hypervisor.open()
  const scripts = await openScripts({ stateDir, ...(config.execute ? { allowed: config.execute } : {}) })
  const resetMark = await openResetMark(stateDir)
  const sightings = openSightings()
  return { serverUuid, stateDir, hypervisor, tools: { host, nicTags, scripts, resetMark, zfs, builds, sightings } }
}

const defaultNicTags: Record<AgentConfig['hypervisor'], Readonly<Record<string, string>>> = {
  libvirt: {},
  simulated: simulatedNicTags,
}

interface Place {
  serverUuid: string
  stateDir: string
  note: (line: string) => void
  nicTags: NicTags
}

const hypervisors: Record<AgentConfig['hypervisor'], (config: AgentConfig, place: Place) => Opened> = {
  libvirt: ({ libvirt, rebootCommand, dockerBuild }, { stateDir, note, nicTags: { byTag: nicTags } }) => ({
    hypervisor: libvirtHypervisor({ ...libvirt, nicTags, openvswitch: openVswitch({ nicTags, note }) }),
    host: linuxHost({ stateDir, ...(rebootCommand ? { rebootCommand } : {}) }),
    zfs: zfsCommands(),
    builds: buildahBuilds({ stateDir, isAllowed: dockerBuild }),
  }),
  simulated: ({ simulatedDelayMs: delay, nicTags: configured }, { serverUuid, stateDir, nicTags }) => {
    const hypervisor = simulatedHypervisor({
      seed: serverUuid,
      folder: stateDir,
      guestAgents: true,
      images: { 'debian-12': 2048 },
      delays: { call: delay, boot: 10 * delay, acpi: 25 * delay, install: 150 * delay },
      nicTags: nicTags.byTag,
      // What was changed over the API changes no bridges.
      bridges: [...new Set(Object.values(configured ?? simulatedNicTags))],
    })
    const host = simulatedHostControl({ hypervisor, goneAfterMs: 10 * delay, downMs: 100 * delay })
    return { hypervisor, host, zfs: simulatedZfs(), builds: simulatedBuilds() }
  },
}

interface Opened {
  hypervisor: Hypervisor
  host: HostControl
  zfs: Zfs
  builds: Builds
}
