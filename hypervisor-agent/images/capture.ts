/** What the agent needs of a hypervisor to make an image of a VM: part of `Hypervisor`, with the same rules. */
export interface ImageCapture {
  /**
   * Copies the first disk of a stopped VM into the pool as image `name`: whole, or only what differs from image `origin`, which its disk
   * stands on. Until the copy is whole the image is not listed; a whole one is left as it is, and is success. VmNotStopped,
   * ImageHasNoOrigin, InsufficientStorage, StorageNotReadable.
   */
  captureImage(uuid: string, image: { name: string; origin?: string }): Promise<void>
  /** The bytes of an image's file, from the first one. ImageNotFound. */
  readImage(name: string): Promise<AsyncIterable<Uint8Array>>
}
