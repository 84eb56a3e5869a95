/** Looks whether the node has what a compute node needs, and says so point by point. */
import type { NodeCheck } from '../../actors/contract/tasks/server.ts'
import type { TaskContext, TaskHandler } from './task.ts'

export const server_check: TaskHandler<'server_check'> = {
  run: async context => {
    const { hypervisor, host } = context
    const checks = [
      await looked('hypervisor', async () => {
        await hypervisor.ping()
        return `${hypervisor.kind} answers`
      }),
      await looked('storage', async () => {
        const { pool, available_bytes } = await hypervisor.storage()
        return `pool ${pool} has ${Math.floor(available_bytes / 1024 ** 3)} GiB free`
      }),
      ...(await bridges(context)),
      ...(await host.checks()),
    ]
    return { checks }
  },
}

async function looked(name: string, look: () => Promise<string>): Promise<NodeCheck> {
  try {
    return { name, ok: true, message: await look() }
  } catch (error) {
    return { name, ok: false, message: error instanceof Error ? error.message : String(error) }
  }
}

/** One point for each nic tag: the bridge it leads to must be there. */
async function bridges({ hypervisor, nicTags }: TaskContext): Promise<NodeCheck[]> {
  const there = new Set((await hypervisor.inventory()).bridges.map(bridge => bridge.name))
  return Object.entries(nicTags.byTag).map(([tag, bridge]) => ({
    name: `nic_tag ${tag}`,
    ok: there.has(bridge),
    message: there.has(bridge) ? `bridge ${bridge}` : `bridge ${bridge} is not there: ovs-vsctl add-br ${bridge}`,
  }))
}
