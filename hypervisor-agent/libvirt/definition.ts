/**
 * Making a VM's definition and volumes, and removing them. The definition comes first and is marked complete last, so that a
 * repeat after a crash finds whose work it continues, and no disk of anybody else is ever taken for its own.
 */
import { rm } from 'node:fs/promises'
import { type Domain, isLibvirtError, type Hypervisor as Libvirt } from 'node-libvirt'
import * as v from 'valibot'
import { VmSpec } from '../../actors/contract/vm.ts'
import { HypervisorError } from '../hypervisor.ts'
import { type DomainType, domainXml, type NicPlace } from './domain-xml.ts'
import { findNetwork } from './networks.ts'
import { metadataNamespace, plainMetadataElement, vmMetadata } from './vm-metadata.ts'
import { checkSpace, deleteVolumes, findImages, makeVolumes, ownVolumes, volumeName } from './volumes.ts'
import { readDomain, readPoolPath } from './xml-reading.ts'

export interface DefinitionOptions {
  domainType: DomainType
  pool: string
  consoleFolder: string
  nicTags: Record<string, string>
  bridges: () => Promise<string[]>
}

/** See `Hypervisor.defineVm`. */
export async function defineVm(
  libvirt: Libvirt,
  given: VmSpec,
  taskId: string,
  options: DefinitionOptions,
  { incoming }: { incoming: boolean },
): Promise<void> {
  const spec = checkedSpec(given)
  const there = await lookup(libvirt, spec.uuid)
  const metadata = there && readDomain(await there.getXml({ inactive: true })).metadata
  if (there && metadata?.task_id !== taskId) throw new HypervisorError('VmExists', `the VM ${spec.uuid} exists already`)
  if (metadata?.complete) return
  if (!there) await checkNameIsFree(libvirt, spec.name)

  const nics = await nicPlaces(libvirt, spec, options)
  const images = await findImages(libvirt, options.pool, spec)
  await checkSpace(libvirt, options.pool, spec)
  if (!there && (await ownVolumes(libvirt, options.pool, spec.uuid)).length > 0) {
    const message = `volumes of an earlier VM ${spec.uuid} are in pool ${options.pool}: destroy that VM first`
    throw new HypervisorError('VmExists', message)
  }
  const createdAtMs = metadata?.created_at ?? Date.now()
  const folder = readPoolPath(await (await libvirt.lookupStoragePoolByName(options.pool)).getXml()) ?? ''
  const text = domainXml(spec, {
    type: options.domainType,
    diskPaths: spec.disks.map(({ slot }, n) => `${folder}/${volumeName(spec.uuid, slot ?? n)}`),
    nics,
    consoleLog: consoleLog(options.consoleFolder, spec.uuid),
    metadata: vmMetadata(spec, { taskId, createdAtMs, complete: false }),
  })
  const domain = await libvirt.defineDomain(text)
  try {
    await makeVolumes(libvirt, options.pool, spec, images)
    await domain.setAutostart(spec.autoboot)
    if (incoming) return
    const complete = plainMetadataElement(vmMetadata(spec, { taskId, createdAtMs, complete: true }))
    await domain.setMetadata('element', complete, { uri: metadataNamespace, key: 'muster', affect: 'config' })
  } catch (error) {
    // A refusal leaves nothing behind; after a lost connection this fails too, and the repeat or the task's undo does it.
    if (isLibvirtError(error)) await removeVm(libvirt, spec.uuid, options).catch(() => {})
    throw error
  }
}

/** See `Hypervisor.removeVm`. Volumes that no definition names are removed too: an aborted creation leaves such. */
export async function removeVm(
  libvirt: Libvirt,
  uuid: string,
  options: Pick<DefinitionOptions, 'pool' | 'consoleFolder' | 'domainType'>,
): Promise<void> {
  const domain = await lookup(libvirt, uuid)
  if (domain) {
    await powerOff(domain, { graceful: false })
    const real = options.domainType === 'test' ? {} : { nvram: true, checkpointsMetadata: true }
    await domain.undefine({ managedSave: true, snapshotsMetadata: true, ...real }).catch(error => {
      // A transient domain, or an installer's, is gone with its stop.
      if (!isLibvirtError(error, 'NO_DOMAIN')) throw error
    })
  }
  await deleteVolumes(libvirt, options.pool, uuid)
  // virtlogd writes it as root: an agent of lesser rights leaves it to logrotate.
  await rm(consoleLog(options.consoleFolder, uuid), { force: true }).catch(() => {})
}

/** Stops it unless it is stopped. A domain that ended by itself meanwhile is success too. */
export async function powerOff(domain: Domain, { graceful }: { graceful: boolean }): Promise<void> {
  if (!(await domain.isActive())) return
  try {
    await domain.destroy({ graceful })
  } catch (error) {
    if (!isLibvirtError(error)) throw error
    const active = await domain.isActive().catch(() => false)
    if (active) throw error
  }
}

/** The domain of this UUID, if there is one. */
export async function lookup(libvirt: Libvirt, uuid: string): Promise<Domain | undefined> {
  try {
    return await libvirt.lookupDomainByUuid(uuid)
  } catch (error) {
    if (isLibvirtError(error, 'NO_DOMAIN')) return undefined
    throw error
  }
}

/** The contract is checked here once more: libvirt deletes folders when asked to define a domain called `..`. */
function checkedSpec(given: VmSpec): VmSpec {
  const checked = v.safeParse(VmSpec, given)
  if (checked.success) return { ...checked.output, uuid: checked.output.uuid.toLowerCase() }
  const issue = checked.issues[0]
  throw new HypervisorError('InvalidArgument', `${v.getDotPath(issue) ?? 'the VM'}: ${issue.message}`)
}

async function checkNameIsFree(libvirt: Libvirt, name: string): Promise<void> {
  try {
    const namesake = await libvirt.lookupDomainByName(name)
    throw new HypervisorError('VmExists', `the name ${name} belongs to VM ${namesake.uuid}`)
  } catch (error) {
    if (!isLibvirtError(error, 'NO_DOMAIN')) throw error
  }
}

/** Where each NIC plugs in. NetworkNotFound, NicTagNotFound, BridgeNotFound for the first that cannot. */
export async function nicPlaces(
  libvirt: Libvirt,
  spec: Pick<VmSpec, 'nics'>,
  options: Pick<DefinitionOptions, 'nicTags' | 'bridges'>,
): Promise<NicPlace[]> {
  const places: NicPlace[] = []
  for (const nic of spec.nics) {
    if (nic.network) {
      if (!(await findNetwork(libvirt, nic.network))) {
        throw new HypervisorError('NetworkNotFound', `there is no network ${nic.network}`)
      }
      places.push({ network: nic.network })
      continue
    }
    const bridge = nic.bridge ?? (nic.nic_tag === undefined ? undefined : options.nicTags[nic.nic_tag])
    if (bridge === undefined) {
      const message = nic.nic_tag
        ? `the server has no bridge for nic tag ${nic.nic_tag}`
        : `NIC ${nic.mac} names no network, nic tag or bridge`
      throw new HypervisorError('NicTagNotFound', message)
    }
    if (!(await options.bridges()).includes(bridge)) {
      throw new HypervisorError('BridgeNotFound', `the server has no Open vSwitch bridge ${bridge}`)
    }
    places.push({ bridge, ...(nic.vlan_id === undefined ? {} : { vlan: nic.vlan_id }) })
  }
  return places
}

function consoleLog(folder: string, uuid: string): string {
  return `${folder}/${uuid.toLowerCase()}-console.log`
}
