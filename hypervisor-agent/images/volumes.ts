/** What the agent needs of a hypervisor's storage pool for images: part of `Hypervisor`, with the same rules. */
import type { ImageFile } from './unpack.ts'

export interface ImageVolumes {
  /** Images of the pool that are whole. Disks made for VMs are none. */
  listImages(): Promise<ImageVolume[]>
  /**
   * Copies a file into the pool as an image. One that was left half is made anew; a whole one is left as it is, and is success. Until the copy is
   * whole the image is not listed and no VM can be made from it. InsufficientStorage, ImageInvalid, InvalidArgument for the name of a VM's disk.
   */
  installImage(name: string, file: ImageFile, options: InstallImageOptions): Promise<void>
  /** ImageInUse, naming the VMs. An absent image is success; what is left of a half one goes too. */
  removeImage(name: string): Promise<void>
}

export interface InstallImageOptions {
  /** Ends the copying; what was copied is removed. */
  signal: AbortSignal
  /** Bytes copied. */
  progress(bytes: number): void
}

export interface ImageVolume {
  name: string
  format: string
  /** What its disk holds, and what it takes. */
  size_bytes: number
  allocated_bytes: number
  path?: string
  /** VMs whose disks stand on it, by uuid; a volume that is no VM's disk by its name. */
  used_by: string[]
}
