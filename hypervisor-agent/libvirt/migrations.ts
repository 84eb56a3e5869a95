/**
 * See `Migrations`: holding a VM and moving the files of its disks through libvirt, so that the agent needs no access to the pool's folder.
 * Bytes go over a connection of their own, which may wait for the network without anything else waiting.
 */
import type { Domain, Hypervisor as Libvirt, StoragePool, StorageVolume } from 'node-libvirt'
import { HypervisorError } from '../hypervisor.ts'
import type { Migrations } from '../migrations.ts'
import { targetOf } from '../shape.ts'
import { lookup } from './definition.ts'
import { volumeXml } from './domain-xml.ts'
import { refreshPool } from './pool-volumes.ts'
import { metadataNamespace, plainMetadataElement, type VmMetadata } from './vm-metadata.ts'
import { deleteVolume, vmVolume } from './volumes.ts'
import { readDomain, readVolume } from './xml-reading.ts'

export interface MigrationParts {
  /** Does it on the domain of this VM, which must exist. */
  act<T>(doing: string, uuid: string, action: (domain: Domain, libvirt: Libvirt) => Promise<T>): Promise<T>
  /** A connection for this transfer alone. */
  connect(): Promise<Libvirt>
  /** Fails in Muster's words. */
  failure(doing: string, error: unknown): Error
  pool: string
  /** This VM has changed. */
  forget(uuid: string): void
}

/** The flattened copy of a disk, in the form of the VM's volumes: what is left of one goes with them. */
const copySuffix = '-f1a77e4e.qcow2'
const copyDeadline = { deadlineMs: 6 * 3600_000 }
/** libvirt sends or takes nothing for so long, ms. */
const silenceMs = 120_000

export function libvirtMigrations({ act, connect, failure, pool: poolName, forget }: MigrationParts): Migrations {
  /** Changes what is remembered with the definition; libvirt tells of no such change. */
  const remember = async (domain: Domain, metadata: VmMetadata) => {
    await domain.setMetadata('element', plainMetadataElement(metadata), {
      uri: metadataNamespace,
      key: 'muster',
      affect: 'config',
    })
    forget(domain.uuid)
  }
  const withoutCopies = async (domain: Domain, libvirt: Libvirt) => {
    const pool = await libvirt.lookupStoragePoolByName(poolName)
    for (const { name } of await pool.listVolumes()) {
      if (isOf(domain.uuid, name) && name.endsWith(copySuffix)) await deleteVolume(pool, name)
    }
  }

  /** The volume of the nth disk, on a connection of its own that is closed with the transfer. */
  async function open(uuid: string, n: number) {
    const libvirt = await connect()
    try {
      const domain = await lookup(libvirt, uuid)
      if (!domain) throw new HypervisorError('VmNotFound', `there is no VM ${uuid}`)
      if (await domain.isActive()) throw new HypervisorError('VmNotStopped', `the VM ${uuid} is running`)
      const { metadata, disks } = readDomain(await domain.getXml({ inactive: true }))
      const pool = await libvirt.lookupStoragePoolByName(poolName)
      const { path = '' } = bySlot(disks)[n] ?? {}
      const volume = (await pool.listVolumes()).find(({ key }) => key === path)
      if (!volume) throw new HypervisorError('HypervisorError', `disk ${n} of VM ${uuid} is no volume of this pool`)
      return { libvirt, pool, volume, metadata }
    } catch (error) {
      await libvirt.close()
      throw failure(`open disk ${n} of VM ${uuid}`, error)
    }
  }

  return {
    holdVm: (uuid, migration, { live } = { live: false }) =>
      act('hold', uuid, async domain => {
        if (!live && (await domain.isActive())) {
          throw new HypervisorError('VmNotStopped', `the VM ${uuid} is running`)
        }
        const metadata = await metadataOf(domain)
        if (metadata.held && metadata.held.by !== migration) {
          throw new HypervisorError('VmBusy', `migration ${metadata.held.by} holds the VM ${uuid}`)
        }
        const held = metadata.held ?? { by: migration, autoboot: await domain.getAutostart() }
        await remember(domain, { ...metadata, held })
        await domain.setAutostart(false)
      }),
    releaseVm: (uuid, migration) =>
      act('release', uuid, async (domain, libvirt) => {
        await withoutCopies(domain, libvirt)
        const { held, ...metadata } = await metadataOf(domain)
        if (held?.by !== migration) return
        await domain.setAutostart(held.autoboot)
        await remember(domain, metadata)
      }),
    completeVm: uuid =>
      act('complete', uuid, async (domain, libvirt) => {
        const metadata = await metadataOf(domain)
        if (metadata.complete) return
        // What was written over them is seen after this: how large they are, what they take.
        await refreshPool(await libvirt.lookupStoragePoolByName(poolName))
        await remember(domain, { ...metadata, complete: true })
      }),
    readDisk: async (uuid, n, bytes) => {
      const { libvirt, pool, volume } = await open(uuid, n)
      return reading(libvirt, pool, volume, bytes)
    },
    writeDisk: async (uuid, n, pieces) => {
      const { libvirt, volume, metadata } = await open(uuid, n)
      try {
        if (metadata?.complete !== false) {
          throw new HypervisorError('VmBusy', `the disks of VM ${uuid} are its own already`)
        }
        await volume.upload(pieces, { deadlineMs: silenceMs })
      } catch (error) {
        throw failure(`write disk ${n} of VM ${uuid}`, error)
      } finally {
        await libvirt.close()
      }
    },
  }

  async function* reading(libvirt: Libvirt, pool: StoragePool, volume: StorageVolume, bytes: number | undefined) {
    let copy: StorageVolume | undefined
    try {
      const { backingPath, capacityBytes } = readVolume(await volume.getXml())
      if (backingPath !== undefined) {
        const name = volume.name.replace(/(-[0-9a-f]{8})?\.qcow2$/, copySuffix)
        await deleteVolume(pool, name)
        copy = await pool.cloneVolume(volumeXml({ name, capacityBytes }), volume, {}, copyDeadline)
      }
      const wanted = { deadlineMs: silenceMs, ...(bytes === undefined ? {} : { bytes }) }
      yield* (copy ?? volume).download(wanted)
    } catch (error) {
      throw failure(`read ${volume.name}`, error)
    } finally {
      if (copy) await deleteVolume(pool, copy.name).catch(() => {})
      await libvirt.close()
    }
  }
}

async function metadataOf(domain: Domain): Promise<VmMetadata> {
  const { metadata } = readDomain(await domain.getXml({ inactive: true }))
  if (metadata) return metadata
  throw new HypervisorError('MigrationNotSupported', `the VM ${domain.uuid} was not made by Muster`)
}

const isOf = (uuid: string, volume: string): boolean => vmVolume.exec(volume)?.[1] === uuid.toLowerCase()

/** In the order the guest sees them. */
function bySlot<D extends { target: string }>(disks: D[]): D[] {
  const slot = ({ target }: D) => Array.from({ length: 256 }, (_, n) => targetOf(n)).indexOf(target)
  return [...disks].sort((a, b) => slot(a) - slot(b))
}
