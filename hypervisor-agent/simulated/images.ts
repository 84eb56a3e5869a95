/** Images of a simulated pool: their names and sizes; kept in a file where a folder is given, beside those it was made with. */
import { mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as v from 'valibot'
import { ImageName } from '../../actors/contract/ids.ts'
import { HypervisorError } from '../hypervisor.ts'
import type { ImageVolumes } from '../images/volumes.ts'
import { bytes, type Guest } from './guests.ts'

export interface SimulatedImage {
  format: string
  size_bytes: number
  allocated_bytes: number
  /** What a disk made from it holds. */
  content?: string
  /** The image it stands on. */
  origin?: string
}

export interface ImageStore {
  images: Map<string, SimulatedImage>
  save(): void
}

/** `given`: name -> size in MiB. */
export function imageStore(folder: string | undefined, given: Record<string, number>): ImageStore {
  const images = new Map(Object.entries(given).map(([name, mib]) => [name, wholeImage(mib)]))
  if (!folder) return { images, save: () => {} }
  mkdirSync(folder, { recursive: true })
  const file = join(folder, 'images.json')
  try {
    const kept = JSON.parse(readFileSync(file, 'utf8')) as Record<string, SimulatedImage>
    for (const [name, image] of Object.entries(kept)) images.set(name, image)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
  return {
    images,
    save: () => {
      writeFileSync(`${file}.new`, `${JSON.stringify(Object.fromEntries(images), null, 2)}\n`)
      renameSync(`${file}.new`, file)
    },
  }
}

export function wholeImage(sizeMib: number): SimulatedImage {
  return { format: 'qcow2', size_bytes: sizeMib * bytes.mib, allocated_bytes: sizeMib * bytes.mib }
}

type Call = <T>(name: keyof ImageVolumes, uuid: string | undefined, effect: () => T) => Promise<T>

export interface SimulatedPool {
  store: ImageStore
  guests: () => Iterable<Guest>
  freeBytes: () => number
  /** Passes delays and faults. */
  call: Call
}

export function simulatedImages({ store, guests, freeBytes, call }: SimulatedPool): ImageVolumes {
  const usersOf = (name: string) => [
    ...[...guests()].filter(({ spec }) => spec.disks.some(disk => disk.image === name)).map(({ spec }) => spec.uuid),
    ...[...store.images].filter(([, image]) => image.origin === name).map(([image]) => image),
  ]
  const checkName = (name: string) => {
    if (v.is(ImageName, name) && !vmDisk.test(name)) return
    throw new HypervisorError('InvalidArgument', `${name} is no name for an image`)
  }
  return {
    listImages: () =>
      call('listImages', undefined, () =>
        [...store.images].map(([name, { format, size_bytes, allocated_bytes }]) => ({
          ...{ name, format, size_bytes, allocated_bytes },
          used_by: usersOf(name),
        })),
      ),
    installImage: (name, file, { signal, progress }) =>
      call('installImage', undefined, () => {
        checkName(name)
        signal.throwIfAborted()
        if (store.images.has(name)) return
        const { size } = statSync(file.path)
        if (size > freeBytes()) {
          throw new HypervisorError(
            'InsufficientStorage',
            `the image needs ${size} bytes, the pool has ${freeBytes()} left`,
          )
        }
        progress(size)
        store.images.set(name, { format: file.format, size_bytes: file.capacityBytes, allocated_bytes: size })
        store.save()
      }),
    removeImage: name =>
      call('removeImage', undefined, () => {
        checkName(name)
        const users = usersOf(name)
        if (users.length > 0) throw new HypervisorError('ImageInUse', `image ${name} is used by ${users.join(', ')}`)
        store.images.delete(name)
        store.save()
      }),
  }
}

const vmDisk = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}-disk[0-9]{1,3}(-[0-9a-f]{8})?\.qcow2$/
