/**
 * Takes back what Muster made on the node: its networks, disks without a VM, installers, changed nic tags. Every step may be done
 * twice. It is refused as long as there is any VM, whoever made it: their disks are nobody's to lose.
 */
import { HypervisorError } from '../hypervisor.ts'
import type { TaskContext, TaskHandler } from './task.ts'

export const server_factory_reset: TaskHandler<'server_factory_reset'> = {
  run: async context => {
    const { hypervisor } = context
    context.progress(5, 'pre_check')
    await refuseWithVms(context)
    // From here on the node is not set up, even if a step below has to be repeated.
    await context.resetMark.set()
    context.progress(20, 'networks')
    for (const network of await hypervisor.listNetworks()) {
      // Muster's networks are a VLAN on a bridge; others, such as libvirt's own `default`, are not its to remove.
      if (network.bridge !== undefined && network.vlan !== undefined) await hypervisor.deleteNetwork(network.name)
    }
    context.progress(40, 'volumes')
    await hypervisor.removeLeftovers()
    context.progress(80, 'nic_tags')
    await context.nicTags.reset()
    await context.installs.forgetAll()
    return {}
  },
}

async function refuseWithVms({ hypervisor }: TaskContext): Promise<void> {
  const names = (await hypervisor.listVms()).map(vm => vm.name)
  if (names.length === 0) return
  const shown = `${names.slice(0, 5).join(', ')}${names.length > 5 ? ', ...' : ''}`
  throw new HypervisorError('VmsExist', `Server may not be reset because it has ${names.length} vms: ${shown}`)
}
