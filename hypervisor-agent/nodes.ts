/** The nodes of an agent process, each with its identity, its state folder and its opened hypervisor. */
import { join } from 'node:path'
import type { AgentConfig } from './config.ts'
import type { Hypervisor } from './hypervisor.ts'
import { serverIdentity } from './identity.ts'
import { libvirtHypervisor } from './libvirt/libvirt.ts'
import { openVswitch } from './openvswitch/bridges.ts'
import { simulatedHypervisor } from './simulated/simulated.ts'

export interface Node {
  serverUuid: string
  stateDir: string
  hypervisor: Hypervisor
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
  const hypervisor = hypervisors[config.hypervisor](config, { serverUuid, stateDir, note })
  await hypervisor.open()
  return { serverUuid, stateDir, hypervisor }
}

interface Place {
  serverUuid: string
  stateDir: string
  note: (line: string) => void
}

const hypervisors: Record<AgentConfig['hypervisor'], (config: AgentConfig, place: Place) => Hypervisor> = {
  libvirt: ({ libvirt, nicTags = {} }, { note }) =>
    libvirtHypervisor({ ...libvirt, nicTags, openvswitch: openVswitch({ nicTags, note }) }),
  simulated: ({ simulatedDelayMs: delay, nicTags }, { serverUuid, stateDir }) =>
    simulatedHypervisor({
      seed: serverUuid,
      folder: stateDir,
      images: { 'debian-12': 2048 },
      delays: { call: delay, boot: 10 * delay, acpi: 25 * delay, install: 150 * delay },
      ...(nicTags ? { nicTags } : {}),
    }),
}
