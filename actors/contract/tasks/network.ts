/** Tasks about a node's libvirt networks. */
import * as v from 'valibot'
import { BridgeName, NetworkName, VlanId } from '../ids.ts'
import { minute, nothing, type TaskKind } from './kind.ts'

export const NETWORK_TASKS = {
  network_create: {
    params: v.object({ name: NetworkName, bridge: BridgeName, vlan: VlanId }),
    result: nothing,
    limitMs: 2 * minute,
    serial: 'network',
  },
  network_delete: { params: v.object({ name: NetworkName }), result: nothing, limitMs: 2 * minute, serial: 'network' },
} as const satisfies Record<string, TaskKind>
