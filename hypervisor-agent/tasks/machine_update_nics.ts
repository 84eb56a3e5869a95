/**
 * Moves every NIC of this node that is at one place of the network to another. Each VM is changed in its own turn, whole or not at all;
 * one that cannot be changed is listed with its reason and keeps its NICs, the others go on.
 */
import { BlockList, isIP } from 'node:net'
import type { TaskParams, TaskResult } from '../../actors/contract/task.ts'
import type { NicSpec } from '../../actors/contract/vm.ts'
import type { NicPlaceName } from '../../actors/contract/vm-changes.ts'
import { HypervisorError } from '../hypervisor.ts'
import { appliedWhen, changedParts, movedNic, wantedOf } from '../shape.ts'
import type { TaskContext, TaskHandler } from './task.ts'

type Outcome = TaskResult<'machine_update_nics'>['vms'][0]
type Params = TaskParams<'machine_update_nics'>

export const machine_update_nics: TaskHandler<'machine_update_nics'> = {
  run: async (context, params) => {
    const uuids = await context.once('vms', async () => (await context.hypervisor.listVms()).map(vm => vm.uuid))
    const vms: Outcome[] = []
    for (const [n, uuid] of uuids.entries()) {
      context.progress((100 * n) / uuids.length, 'move')
      const outcome = await context.once(`moved_${uuid}`, () =>
        context.inVmLane(uuid, () => move(context, uuid, params)),
      )
      if (outcome) vms.push(outcome)
    }
    return { vms }
  },
}

/** Null for a VM without such a NIC. */
async function move(context: TaskContext, uuid: string, { from, to }: Params): Promise<Outcome | null> {
  const { hypervisor } = context
  try {
    // As it was when this VM's turn came first: after a crash its NICs may have moved already.
    const before = await context.once(`before_${uuid}`, async () => {
      const vm = await hypervisor.loadVm(uuid)
      return vm?.created_by === undefined ? null : hypervisor.shapeOf(uuid)
    })
    const isHere = isAt(from)
    if (!before?.nics.some(isHere)) return null
    const now = await hypervisor.shapeOf(uuid)
    const moved = before.nics.filter(isHere).map(nic => nic.mac)
    const wanted = {
      ...now,
      nics: now.nics.map(nic =>
        moved.includes(nic.mac) && isHere(nic) ? movedNic(nic, { ...placeFor(nic, to), mac: nic.mac }) : nic,
      ),
    }
    const parts = changedParts({ ...now, nics: before.nics }, wanted)
    await hypervisor.checkShape(uuid, wanted)
    const outcome = await hypervisor.reshapeVm(uuid, wanted, { parts })
    return { uuid, applied: appliedWhen(parts, outcome), wanted: wantedOf(wanted, parts) }
  } catch (error) {
    if (!(error instanceof HypervisorError)) throw error
    if (error.code === 'VmNotFound') return null
    // The task waits for a hypervisor that is away, and ends when it is told to.
    if (['HypervisorUnavailable', 'TaskTimedOut', 'TaskCancelled'].includes(error.code)) throw error
    return { uuid, error: { code: error.code, message: error.message } }
  }
}

function isAt({ network, nic_tag, bridge, vlan_id = 0, subnet }: Params['from']): (nic: NicSpec) => boolean {
  const isThere = (nic: NicSpec) =>
    network !== undefined
      ? nic.network === network
      : nic.network === undefined &&
        (nic_tag === undefined || nic.nic_tag === nic_tag) &&
        (bridge === undefined || nic.bridge === bridge) &&
        (nic.vlan_id ?? 0) === vlan_id
  return nic => isThere(nic) && contains(subnet, nic.ip) !== false
}

function placeFor({ ip }: NicSpec, to: Params['to']): NicPlaceName {
  const { subnet: _, ...place } = to.find(one => contains(one.subnet, ip)) ?? (to[0] as Params['to'][0])
  return place
}

/** Undefined where that cannot be said, as of a NIC that is addressed by DHCP. */
function contains(subnet: string | undefined, ip: string | undefined): boolean | undefined {
  const [net = '', prefix = ''] = subnet?.split('/') ?? []
  if (ip === undefined || isIP(net) === 0 || isIP(ip) !== isIP(net) || !/^\d{1,3}$/.test(prefix)) return undefined
  const family = isIP(net) === 4 ? 'ipv4' : 'ipv6'
  if (Number(prefix) > (family === 'ipv4' ? 32 : 128)) return undefined
  const list = new BlockList()
  list.addSubnet(net, Number(prefix), family)
  return list.check(ip, family)
}
