/** All VMs of the node as virsh lists them: `id` is `-` for one that does not run. Ordered or not, stopped ones too. */
import type { ReadHandlers } from './read.ts'

export const domain_list: ReadHandlers['domain_list'] = async ({ hypervisor }) =>
  (await hypervisor.listVms()).map(({ uuid, name, state, domain_id, domain_state }) => ({
    id: domain_id === undefined || domain_id === null ? '-' : String(domain_id),
    name,
    state: domain_state ?? state,
    uuid,
  }))
