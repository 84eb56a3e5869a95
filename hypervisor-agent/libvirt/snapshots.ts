/**
 * Snapshots inside the VM's own qcow2 files: libvirt takes disks and memory together, and can return to them (it cannot to external
 * ones). The description holds which task made one, because libvirt lists nothing else of ours.
 */
import { type Domain, type DomainSnapshot, isLibvirtError, type Hypervisor as Libvirt } from 'node-libvirt'
import * as v from 'valibot'
import { HypervisorError } from '../hypervisor.ts'
import type { KnownSnapshot } from '../snapshots.ts'
import { metadataNamespace, plainMetadataElement } from './vm-metadata.ts'
import { ownVolumes } from './volumes.ts'
import { xml } from './xml.ts'
import { type ReadSnapshot, readDomain, readSnapshot } from './xml-reading.ts'

/** Saving the memory of a large guest takes minutes. */
const snapshotDeadline = { deadlineMs: 30 * 60_000 }
const askEveryMs = 500

/** What Muster writes into the description of a snapshot it makes. */
const Note = v.object({ task_id: v.string(), size_bytes: v.optional(v.number()) })
type Note = v.InferOutput<typeof Note>

/** See `Snapshots.listSnapshots`. */
export async function listSnapshots(domain: Domain): Promise<KnownSnapshot[]> {
  const found = await Promise.all((await domain.listSnapshots()).map(known))
  return found
    .filter(one => one !== undefined)
    .sort((a, b) => a.created_at.localeCompare(b.created_at) || a.name.localeCompare(b.name))
}

/** See `Snapshots.createSnapshot`. */
export async function createSnapshot(
  domain: Domain,
  libvirt: Libvirt,
  { name, taskId }: { name: string; taskId: string },
  poolName: string,
): Promise<void> {
  const there = (await listSnapshots(domain)).find(one => one.name === name)
  if (there && there.created_by !== taskId) {
    throw new HypervisorError('SnapshotExists', `the VM ${domain.uuid} has a snapshot ${name} already`)
  }
  if (!there) {
    // A stopped VM's disks would take a second one of the same name, beside what an aborted try has left.
    await removeRemains(domain, name)
    const before = await allocated(libvirt, poolName, domain.uuid)
    try {
      await domain.createSnapshot(definition(name, { task_id: taskId }), {}, snapshotDeadline)
    } catch (error) {
      await goesOn(domain).catch(() => {})
      throw error
    }
    const grown = (await allocated(libvirt, poolName, domain.uuid)) - before
    await noteSize(domain, name, { task_id: taskId, size_bytes: Math.max(0, grown) })
    return goesOn(domain)
  }
  // libvirt lists a snapshot from its beginning, and goes on with one whose agent has died: it may still be taken, and may fail.
  await goesOn(domain, snapshotDeadline.deadlineMs)
  if (!(await find(domain, name))) await createSnapshot(domain, libvirt, { name, taskId }, poolName)
}

/** See `Snapshots.rollbackSnapshot`. `checkStart`: whether the VM may be started now. */
export async function rollbackSnapshot(
  domain: Domain,
  name: string,
  checkStart: (domain: Domain) => Promise<void>,
): Promise<void> {
  const snapshot = await find(domain, name)
  const read = snapshot && readSnapshot(await snapshot.getXml())
  if (!snapshot || !read || isOnlyTold(read))
    throw new HypervisorError('SnapshotNotFound', `the VM ${domain.uuid} has no snapshot ${name}`)
  const { isRunning } = read
  if (isRunning && !(await domain.isActive())) await checkStart(domain)
  const before = readDomain(await domain.getXml({ inactive: true }))
  try {
    await inTurn(() => snapshot.revert({}, snapshotDeadline))
  } catch (error) {
    // It says so where the machine would be another one for the memory: that is what was asked for.
    if (!isLibvirtError(error, 'SNAPSHOT_REVERT_RISKY')) throw error
    await snapshot.revert({ force: true }, snapshotDeadline)
  }
  // The definition of that time has come back, and with it what it was made of; all else that was written since is about the VM.
  if (before.metadata) {
    const { disks, nics } = readDomain(await domain.getXml({ inactive: true })).metadata ?? before.metadata
    const { nics: _, ...kept } = before.metadata
    const element = plainMetadataElement({ ...kept, disks, ...(nics ? { nics } : {}) })
    await domain.setMetadata('element', element, { uri: metadataNamespace, key: 'muster', affect: 'config' })
  }
  await domain.setMetadata('title', before.title ?? null, { affect: 'config' })
}

/** See `Snapshots.deleteSnapshot`. */
export async function deleteSnapshot(domain: Domain, name: string): Promise<void> {
  const snapshot = await find(domain, name)
  if (!snapshot) return removeRemains(domain, name)
  await inTurn(() => snapshot.delete({}, snapshotDeadline))
}

async function known(snapshot: DomainSnapshot): Promise<KnownSnapshot | undefined> {
  try {
    const [read, current] = [readSnapshot(await snapshot.getXml()), await snapshot.isCurrent()]
    const note = noteOf(read)
    if (isOnlyTold(read)) return undefined
    return {
      name: read.name,
      created_at: new Date(read.createdAtS * 1000).toISOString(),
      state: read.isRunning ? 'running' : 'stopped',
      memory: read.hasMemory,
      size_bytes: note?.size_bytes ?? null,
      parent: read.parent ?? null,
      current,
      ...(note ? { created_by: note.task_id } : {}),
    }
  } catch (error) {
    // It went while the list was read.
    if (isLibvirtError(error, 'NO_DOMAIN_SNAPSHOT')) return undefined
    throw error
  }
}

async function find(domain: Domain, name: string): Promise<DomainSnapshot | undefined> {
  try {
    return await domain.lookupSnapshot(name)
  } catch (error) {
    if (isLibvirtError(error, 'NO_DOMAIN_SNAPSHOT')) return undefined
    throw error
  }
}

/**
 * Removes from the disks what libvirt does not know: a libvirtd that dies between the disks and its own note leaves such. It is told of
 * a snapshot by this name, whether or not the disks have one, and asked to delete it. Left by a death in between it is none.
 */
async function removeRemains(domain: Domain, name: string): Promise<void> {
  const told = `<domainsnapshot>${xml`<name>${name}</name>`.text}<state>shutoff</state><creationTime>0</creationTime>${await domain.getXml({ inactive: true })}</domainsnapshot>`
  const remains = await domain.createSnapshot(told, { redefine: true })
  await remains.delete({}, snapshotDeadline)
}

const isOnlyTold = ({ createdAtS, description }: ReadSnapshot) => createdAtS === 0 && description === undefined

/**
 * A guest is paused while it is saved; one that a fault left so goes on. While libvirt still saves it, it refuses to let it go on: within
 * this time it is asked again until the guest runs.
 */
async function goesOn(domain: Domain, withinMs = 0): Promise<void> {
  for (const end = performance.now() + withinMs; ; ) {
    const { state, reason } = await domain.getState()
    if (state !== 'paused' || (reason !== 'snapshot' && reason !== 'save')) return
    try {
      return await domain.resume()
    } catch (error) {
      if (performance.now() >= end) throw error
      await new Promise(resolve => setTimeout(resolve, askEveryMs))
    }
  }
}

/**
 * libvirt lets a call wait 30 s for the one before it, and goes on with one whose agent has died: what waits for a snapshot that is still
 * taken, rolled back or deleted is asked again. A call that waits for anything else, as a guest that hangs, fails.
 */
async function inTurn(call: () => Promise<void>): Promise<void> {
  for (const end = performance.now() + snapshotDeadline.deadlineMs; ; ) {
    try {
      return await call()
    } catch (error) {
      const isWaiting = isLibvirtError(error, 'OPERATION_TIMEOUT') && /\(held by [^)]*Snapshot/.test(error.message)
      if (!isWaiting || performance.now() >= end) throw error
    }
  }
}

/** Bytes the VM's volumes take. */
async function allocated(libvirt: Libvirt, poolName: string, uuid: string): Promise<number> {
  const pool = await libvirt.lookupStoragePoolByName(poolName)
  let sum = 0
  for (const name of await ownVolumes(libvirt, poolName, uuid)) {
    sum += (await (await pool.lookupVolume(name)).getInfo()).allocationBytes
  }
  return sum
}

async function noteSize(domain: Domain, name: string, note: Note): Promise<void> {
  const text = await (await domain.lookupSnapshot(name)).getXml({ secure: true })
  const noted = text.replace(/<description>[^<]*<\/description>/, () => description(note))
  await domain.createSnapshot(noted, { redefine: true, current: true })
}

function definition(name: string, note: Note): string {
  return `<domainsnapshot>${xml`<name>${name}</name>`.text}${description(note)}</domainsnapshot>`
}

function description(note: Note): string {
  return xml`<description>${JSON.stringify(note)}</description>`.text
}

function noteOf({ description }: ReadSnapshot): Note | undefined {
  try {
    return v.parse(Note, JSON.parse(description ?? ''))
  } catch {
    return undefined
  }
}
