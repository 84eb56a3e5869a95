/** One network of the node. */
import { HypervisorError } from '../hypervisor.ts'
import type { ReadHandlers } from './read.ts'

export const network_load: ReadHandlers['network_load'] = async ({ hypervisor }, { name }) => {
  const network = (await hypervisor.listNetworks()).find(one => one.name === name)
  if (!network) throw new HypervisorError('NetworkNotFound', `there is no network ${name} on this server`)
  return network
}
