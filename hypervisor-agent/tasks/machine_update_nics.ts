/**
 * Moves every NIC of this node that is at one place of the network to another. VMs are changed beside each other, each in its own turn,
 * whole or not at all, and its record hears of it before that turn is over; one that cannot be changed is listed with its reason and
 * keeps its NICs, the others go on.
 */
import { BlockList, isIP } from 'node:net'
import type { TaskParams, TaskResult } from '../../actors/contract/task.ts'
import type { NicSpec } from '../../actors/contract/vm.ts'
import type { NicPlaceName } from '../../actors/contract/vm-changes.ts'
import type { VmShape } from '../devices.ts'
import { type Hypervisor, HypervisorError } from '../hypervisor.ts'
import { appliedWhen, changedParts, movedNic } from '../shape.ts'
import type { TaskContext, TaskHandler } from './task.ts'

type Outcome = TaskResult<'machine_update_nics'>['vms'][0]
type Params = TaskParams<'machine_update_nics'>

export const machine_update_nics: TaskHandler<'machine_update_nics'> = {
  run: async (context, params) => {
    const uuids = await context.once('vms', async () => (await context.hypervisor.listVms()).map(vm => vm.uuid))
    let ended = 0
    const outcomes = await Promise.allSettled(
      uuids.map(async uuid => {
        const outcome = await context.once(`moved_${uuid}`, () =>
          context.inVmLane(uuid, () => move(context, uuid, params)),
        )
        ended += 1
        context.progress((100 * ended) / uuids.length, 'move')
        return outcome
      }),
    )
    const vms: Outcome[] = []
    for (const outcome of outcomes) {
      if (outcome.status === 'rejected') throw outcome.reason
      if (outcome.value) vms.push(outcome.value)
    }
    return { vms }
  },
}

/** Null for a VM without such a NIC. */
async function move(context: TaskContext, uuid: string, { from, to }: Params): Promise<Outcome | null> {
  const { hypervisor, signal } = context
  const isHere = isAt(from)
  try {
    // As it was when this VM's turn came first: after a crash its NICs may have moved already.
    const before = await context.once(`before_${uuid}`, () => nicsOf(hypervisor, uuid, isHere))
    if (!before) return null
    const now = await hypervisor.shapeOf(uuid)
    const moved = before.filter(isHere).map(nic => nic.mac)
    const wanted = {
      ...now,
      nics: now.nics.map(nic =>
        moved.includes(nic.mac) && isHere(nic) ? movedNic(nic, { ...placeFor(nic, to), mac: nic.mac }) : nic,
      ),
    }
    const parts = changedParts({ ...now, nics: before }, wanted)
    await hypervisor.checkShape(uuid, wanted)
    const outcome = await whole(context, uuid, { now, wanted, parts })
    await context.tell([{ uuid, wanted: { only: parts, nics: wanted.nics } }])
    return { uuid, applied: appliedWhen(parts, outcome) }
  } catch (error) {
    signal.throwIfAborted()
    if (!(error instanceof HypervisorError)) throw error
    if (error.code === 'VmNotFound') return null
    // The task waits for a hypervisor that is away; one that answers has given up this VM alone.
    if (error.code === 'HypervisorUnavailable' && !(await answers(hypervisor))) throw error
    return { uuid, error: { code: error.code, message: error.message } }
  }
}

/** The NICs of a VM that Muster made and that has one to move. */
async function nicsOf(
  hypervisor: Hypervisor,
  uuid: string,
  isHere: (nic: NicSpec) => boolean,
): Promise<NicSpec[] | null> {
  const vm = await hypervisor.loadVm(uuid)
  if (vm?.created_by === undefined) return null
  const { nics } = await hypervisor.shapeOf(uuid)
  if (!nics.some(isHere)) return null
  if (vm.held_by === undefined) return nics
  throw new HypervisorError('VmBusy', `the VM ${uuid} is being migrated: move its NICs when that has ended`)
}

/** A change that fails is taken back at once; where that fails too, the VM's failure says so. */
async function whole(
  { hypervisor, signal }: TaskContext,
  uuid: string,
  { now, wanted, parts }: { now: VmShape; wanted: VmShape; parts: string[] },
) {
  try {
    return await hypervisor.reshapeVm(uuid, wanted, { parts })
  } catch (error) {
    signal.throwIfAborted()
    if (!(error instanceof HypervisorError) || error.code === 'VmNotFound') throw error
    await hypervisor.reshapeVm(uuid, now, { parts }).catch(undoing => {
      signal.throwIfAborted()
      const why = undoing instanceof Error ? undoing.message : String(undoing)
      const message = `${error.message}; what was begun could not be taken back (${why}): look at this server's drift`
      throw new HypervisorError(error.code, message, { cause: error })
    })
    throw error
  }
}

async function answers(hypervisor: Hypervisor): Promise<boolean> {
  return hypervisor.ping().then(
    () => true,
    () => false,
  )
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
