/**
 * What settles a difference between a VM and its record. Adopted, the record takes what was found; enforced, the VM is changed by the verb
 * that would change it anyway, so that its task says what is live and what comes with the next boot. Pure.
 */
import { type Rejection, rejection } from '../actors/contract/errors.ts'
import { type FoundVm, slotOf } from '../actors/contract/found.ts'
import type { NicSpec, VmVerb } from '../actors/contract/vm.ts'
import type { VmChanges, Wanted } from '../actors/contract/vm-changes.ts'
import type { Difference, WantedVm } from './drift.ts'

export type Settlement =
  | { adopt: Wanted }
  /** The state as it was found. */
  | { reported: true }
  | { verb: VmVerb; params: Record<string, unknown> }
  | { error: Rejection }

export function adoption({ field, found }: Difference, { definition }: FoundVm): Settlement {
  if (field === 'state') return { reported: true }
  if (field === 'name') return refused('the name of a VM is given at its creation: rename it back on its node')
  if (field.endsWith('.port'))
    return refused('a port follows its NIC: enforce it, or change the NIC with VmUpdate (update_nics)')
  const only = [field]
  if (field.startsWith('disks.')) {
    const disk = field.slice('disks.'.length)
    const { file } = (found ?? {}) as { file?: string }
    if (file !== undefined) return elsewhere(disk, file)
    const image_uuid = definition.disks.find(({ image }) => image !== undefined)?.image ?? null
    return { adopt: { only, disks: definition.disks, image_uuid } }
  }
  if (field.startsWith('nics.')) return { adopt: { only, nics: definition.nics } }
  return { adopt: { only, [field]: found } }
}

/** `difference`: also one whose sides are equal, of a running guest that does not have it yet. */
export function enforcement(difference: Pick<Difference, 'field' | 'wanted' | 'found'>, vm: WantedVm): Settlement {
  const { field, wanted, found } = difference
  const [kind] = field.split('.')
  if (kind === 'disks') return ofDisk(difference)
  if (kind === 'nics') return ofNic(difference, vm)
  const settle = Object.hasOwn(fields, field) ? fields[field as keyof typeof fields] : undefined
  return settle?.(wanted, found) ?? refused(`nothing can make the ${field} of a VM what it should be`)
}

const update = (changes: VmChanges): Settlement => ({ verb: 'update', params: { changes, ignored: [] } })

const fields: Record<string, (wanted: unknown, found: unknown) => Settlement> = {
  state: wanted => {
    const verb = { running: 'start', stopped: 'stop' } as const
    const known = verb[wanted as keyof typeof verb]
    if (!known) return refused(`a VM is not made ${wanted}: adopt what was found`)
    return { verb: known, params: { idempotent: true } }
  },
  name: () => refused('a VM is not renamed: rename it back on its node'),
  ram: wanted => update({ memory_mib: wanted as number }),
  vcpus: wanted => update({ vcpus: wanted as number }),
  autoboot: wanted => update({ autoboot: wanted as boolean }),
  cpu_cap: wanted => update({ cpu_cap: wanted as number | null }),
  quota: wanted => update({ quota_gib: wanted as number | null }),
  alias: wanted => update({ alias: (wanted as string | null) ?? '' }),
  owner_uuid: wanted =>
    wanted === null ? refused('an owner cannot be taken away: adopt it') : update({ owner_uuid: wanted as string }),
  tags: (wanted, found) => {
    const remove_tags = Object.keys((found ?? {}) as object).filter(name => !Object.hasOwn(wanted as object, name))
    return update({ set_tags: wanted as Record<string, unknown>, remove_tags })
  },
}

type Disk = { size_mib: number; image?: string; file?: string } | null

/** Data is nobody's to make up or throw away here. */
function ofDisk({ field, wanted, found }: Pick<Difference, 'field' | 'wanted' | 'found'>): Settlement {
  const disk = field.slice('disks.'.length)
  const [is, should] = [found as Disk, wanted as Disk]
  if (slotOf(disk) < 0) return refused(`${disk} is no disk of Muster's`)
  if (is?.file !== undefined) return elsewhere(disk, is.file)
  if (!is) return refused(`disk ${disk} is gone with its data: adopt that, then add one with VmUpdate (add_disks)`)
  if (!should)
    return refused(`what is on disk ${disk} would be lost: adopt it, or remove it with VmUpdate (remove_disks)`)
  if (is.image !== should.image) return refused(`disk ${disk} is of another image: adopt it, or reprovision the VM`)
  if (is.size_mib > should.size_mib) return refused(`disk ${disk} has grown, and a disk cannot shrink: adopt it`)
  return update({ update_disks: [{ disk, size_mib: should.size_mib }] })
}

/** An overlay of a backup, or a disk that somebody plugged in: which bytes count is for them to say. */
function elsewhere(disk: string, file: string): Settlement {
  return refused(
    `disk ${disk} is in ${file}, which Muster did not make: bring it back into its volume on the node, or remove it with VmUpdate (remove_disks)`,
  )
}

function ofNic(
  { field, wanted, found }: Pick<Difference, 'field' | 'wanted' | 'found'>,
  { context }: WantedVm,
): Settlement {
  const mac = field.slice('nics.'.length, 'nics.'.length + macLength)
  // Named as it is wanted already: the task gives its port what it should have.
  if (field.endsWith('.port')) return update({ update_nics: [{ mac }] })
  const nic = context.nics.find(one => one.mac.toLowerCase() === mac) as NicSpec | undefined
  if (!nic || !wanted) return update({ remove_nics: [mac] })
  if (!found) return update({ add_nics: [nic] })
  const { network, nic_tag, bridge, vlan_id } = nic
  if (network !== undefined) return update({ update_nics: [{ mac, network }] })
  const place = { ...(nic_tag === undefined ? {} : { nic_tag }), ...(bridge === undefined ? {} : { bridge }) }
  return update({ update_nics: [{ mac, ...place, vlan_id: vlan_id ?? 0 }] })
}

const macLength = '52:54:00:12:34:56'.length
const refused = (message: string): Settlement => ({ error: rejection('InvalidArgument', message) })
