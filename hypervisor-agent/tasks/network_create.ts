/** Makes a libvirt network: an access port of one VLAN on an Open vSwitch bridge. */
import { HypervisorError } from '../hypervisor.ts'
import { mayBegin, type TaskHandler } from './task.ts'

export const network_create: TaskHandler<'network_create'> = {
  run: async (context, network) => {
    await mayBegin(context, async () => {
      const there = (await context.hypervisor.listNetworks()).some(one => one.name === network.name)
      if (there) throw new HypervisorError('NetworkExists', `the network ${network.name} exists already`)
    })
    context.progress(50, 'create')
    await context.hypervisor.createNetwork(network)
    return {}
  },
}
