/** How the hypervisor, Open vSwitch and storage of the node are now. */
import { lookAtHealth } from '../health.ts'
import type { ReadHandlers } from './read.ts'

export const node_health: ReadHandlers['node_health'] = ({ hypervisor }) => lookAtHealth(hypervisor, Date.now)
