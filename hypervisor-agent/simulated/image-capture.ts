/** Images made of simulated guests: what their disk holds, as one text. */
import { HypervisorError } from '../hypervisor.ts'
import type { ImageCapture } from '../images/capture.ts'
import { bytes, type Guest } from './guests.ts'
import type { ImageStore } from './images.ts'
import { contentOf } from './snapshots.ts'

export interface CaptureParts {
  call<T>(name: keyof ImageCapture, uuid: string | undefined, effect: () => T): Promise<T>
  need(uuid: string): Guest
  store: ImageStore
  freeBytes(): number
}

export function simulatedCapture({ call, need, store, freeBytes }: CaptureParts): ImageCapture {
  function capture(guest: Guest, name: string, origin: string | undefined): void {
    if (store.images.has(name)) return
    const { uuid, disks } = guest.spec
    if (guest.state === 'running') throw new HypervisorError('VmNotStopped', `the VM ${uuid} is running`)
    const [disk] = disks
    if (!disk) throw new HypervisorError('InvalidArgument', `the VM ${uuid} has no disk`)
    if (origin !== undefined && (disk.image !== origin || !store.images.has(origin))) {
      throw new HypervisorError('ImageHasNoOrigin', `the disk does not stand on image ${origin}`)
    }
    const size_bytes = disk.size_mib * bytes.mib
    const allocated_bytes = Math.floor(size_bytes / (origin === undefined ? 8 : 64))
    if (allocated_bytes > freeBytes()) {
      throw new HypervisorError(
        'InsufficientStorage',
        `the image needs ${allocated_bytes} bytes, ${freeBytes()} are left`,
      )
    }
    const content = contentOf(guest).disk
    store.images.set(name, { format: 'qcow2', size_bytes, allocated_bytes, content, ...(origin ? { origin } : {}) })
    store.save()
  }

  return {
    captureImage: (uuid, { name, origin }) => call('captureImage', uuid, () => capture(need(uuid), name, origin)),
    readImage: name =>
      call('readImage', undefined, () => {
        const image = store.images.get(name)
        if (!image) throw new HypervisorError('ImageNotFound', `the pool has no image ${name}`)
        return pieces(JSON.stringify({ content: image.content ?? '', origin: image.origin ?? null }))
      }),
  }
}

async function* pieces(text: string): AsyncGenerator<Uint8Array> {
  yield Buffer.from(text)
}
