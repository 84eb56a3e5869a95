/** Snapshots of simulated guests: what a disk and the memory hold is one text each, so that a test can see both come back. */
import type { VmSpec } from '../../actors/contract/vm.ts'
import { HypervisorError } from '../hypervisor.ts'
import type { KnownSnapshot, Snapshots } from '../snapshots.ts'
import type { Guest } from './guests.ts'

/** A snapshot as it is kept with its guest. */
export interface SimulatedSnapshot {
  name: string
  task_id: string
  /** ms since the epoch. */
  created_at: number
  parent: string | null
  /** What the guest was made of. */
  shape: Pick<VmSpec, 'memory_mib' | 'vcpus' | 'nics'>
  disk: string
  /** Null for one of a stopped guest. */
  memory: string | null
}

/** What is in a guest. The memory belongs to one boot. */
export interface SimulatedContent {
  disk: string
  memory: { boot: number; text: string }
}

export interface SnapshotParts {
  call<T>(name: keyof Snapshots, uuid: string, effect: () => T): Promise<T>
  need(uuid: string): Guest
  save(): void
  tell(change: { uuid: string; what: string }): void
  now(): number
  start(guest: Guest): void
  stop(guest: Guest): void
}

const bytesPerMib = 1024 * 1024

export function simulatedSnapshots({ call, need, save, tell, now, start, stop }: SnapshotParts): Snapshots {
  function create(guest: Guest, name: string, taskId: string): void {
    const kept = snapshotsOf(guest)
    const same = kept.find(one => one.name === name)
    if (same?.task_id === taskId) return
    if (same) throw new HypervisorError('SnapshotExists', `the VM ${guest.spec.uuid} has a snapshot ${name} already`)
    const { disk, memory } = contentOf(guest)
    kept.push({
      name,
      task_id: taskId,
      created_at: now(),
      parent: guest.snapshot ?? null,
      shape: { memory_mib: guest.spec.memory_mib, vcpus: guest.spec.vcpus, nics: guest.spec.nics },
      disk,
      memory: guest.state === 'running' ? memory.text : null,
    })
    guest.snapshot = name
    save()
  }

  function rollback(guest: Guest, name: string): void {
    const wanted = snapshotsOf(guest).find(one => one.name === name)
    if (!wanted) throw new HypervisorError('SnapshotNotFound', `the VM ${guest.spec.uuid} has no snapshot ${name}`)
    stop(guest)
    guest.spec = { ...guest.spec, ...wanted.shape }
    if (wanted.memory === null) guest.state = 'stopped'
    else start(guest)
    guest.content = { disk: wanted.disk, memory: { boot: guest.boots, text: wanted.memory ?? '' } }
    guest.snapshot = name
    save()
    tell({ uuid: guest.spec.uuid, what: 'defined' })
  }

  function remove(guest: Guest, name: string): void {
    const kept = snapshotsOf(guest)
    const gone = kept.find(one => one.name === name)
    if (!gone) return
    for (const child of kept) if (child.parent === name) child.parent = gone.parent
    if (guest.snapshot === name) guest.snapshot = gone.parent
    guest.snapshots = kept.filter(one => one !== gone)
    save()
  }

  return {
    listSnapshots: uuid => call('listSnapshots', uuid, () => listed(need(uuid))),
    createSnapshot: (uuid, { name, taskId }) => call('createSnapshot', uuid, () => create(need(uuid), name, taskId)),
    rollbackSnapshot: (uuid, name) => call('rollbackSnapshot', uuid, () => rollback(need(uuid), name)),
    deleteSnapshot: (uuid, name) => call('deleteSnapshot', uuid, () => remove(need(uuid), name)),
  }
}

/** What a guest's disk and memory hold; a fresh boot has an empty memory. */
export function contentOf(guest: Guest): SimulatedContent {
  const { disk, memory } = guest.content ?? { disk: '', memory: { boot: 0, text: '' } }
  return { disk, memory: memory.boot === guest.boots ? memory : { boot: guest.boots, text: '' } }
}

function snapshotsOf(guest: Guest): SimulatedSnapshot[] {
  guest.snapshots ??= []
  return guest.snapshots
}

function listed(guest: Guest): KnownSnapshot[] {
  return snapshotsOf(guest).map(({ name, task_id, created_at, parent, memory }) => ({
    name,
    created_at: new Date(created_at).toISOString(),
    state: memory === null ? 'stopped' : 'running',
    memory: memory !== null,
    size_bytes: memory === null ? 0 : guest.spec.memory_mib * bytesPerMib,
    parent,
    current: guest.snapshot === name,
    created_by: task_id,
  }))
}
