/** What several system tests do through REST: VMs of the lab's image by CNAPI, and waits on what listings say. */
import { eventually } from '../../eventually.ts'
import type { Lab } from './lab.ts'
import type { Answer, Muster } from './muster.ts'

export interface VmRow {
  uuid: string
  alias?: string
  state: string
}

/** Creates a VM that boots the lab's image and waits for its task; answers its uuid. Sizes in MiB. */
export async function createGuest(
  muster: Muster,
  lab: Lab,
  { alias, disks = [], nics = [] }: { alias: string; disks?: number[]; nics?: { vlan_id: number }[] },
): Promise<string> {
  const answer = await muster.request('POST', `/servers/${muster.serverUuid}/vms`, {
    alias,
    ram: 96,
    vcpus: 1,
    disks: [{ size: 1024, image_uuid: lab.image }, ...disks.map(size => ({ size }))],
    nics: nics.map(nic => ({ ...nic, bridge: lab.bridge })),
  })
  await muster.completed(answer)
  const uuid = answer.body.vm_uuid ?? (await vmByAlias(muster, alias)).uuid
  return uuid
}

/** A verb of VmStart, VmStop, VmReboot, VmKill. */
export function act(muster: Muster, uuid: string, verb: string, body: object = {}): Promise<Answer> {
  return muster.request('POST', `/servers/${muster.serverUuid}/vms/${uuid}/${verb}`, body)
}

export function destroy(muster: Muster, uuid: string): Promise<Answer> {
  return muster.request('DELETE', `/servers/${muster.serverUuid}/vms/${uuid}`)
}

export async function vms(muster: Muster): Promise<VmRow[]> {
  return (await muster.request('GET', `/servers/${muster.serverUuid}/vms`)).body as VmRow[]
}

export async function vmByAlias(muster: Muster, alias: string): Promise<VmRow> {
  const found = (await vms(muster)).find(vm => vm.alias === alias)
  if (!found) throw new Error(`VmList shows no VM called ${alias}`)
  return found
}

/** The domain libvirt knows by a uuid or a name is shut off; answers after how many ms. */
export async function shutOff(lab: Lab, domain: string, withinMs = 60_000): Promise<number> {
  const began = performance.now()
  await eventually(async () => (await lab.virsh('domstate', domain)).trim() === 'shut off', {
    withinMs,
    everyMs: 100,
    what: `${domain} is shut off`,
  })
  return performance.now() - began
}
