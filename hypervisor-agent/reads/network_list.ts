/** All networks of the node, in virsh's words. */
import type { ReadHandlers } from './read.ts'

export const network_list: ReadHandlers['network_list'] = ({ hypervisor }) => hypervisor.listNetworks()
