/** What a simulated guest holds, how it is kept, prepared and made an image of: the parts that look into guests, put together. */
import type { VmSpec } from '../../actors/contract/vm.ts'
import type { GuestScripts } from '../guest-scripts.ts'
import type { ImageCapture } from '../images/capture.ts'
import type { Snapshots } from '../snapshots.ts'
import { type GuestScriptParts, simulatedGuestScripts } from './guest-scripts.ts'
import type { Guest } from './guests.ts'
import { type CaptureParts, simulatedCapture } from './image-capture.ts'
import type { ImageStore } from './images.ts'
import { contentOf, type SimulatedContent, type SnapshotParts, simulatedSnapshots } from './snapshots.ts'

/** `call` passes delays and faults. */
export type ImagingParts = Omit<SnapshotParts & CaptureParts & GuestScriptParts, 'call'> & {
  call<T>(name: keyof (Snapshots & ImageCapture & GuestScripts), uuid: string | undefined, effect: () => T): Promise<T>
}

export function simulatedImaging(parts: ImagingParts): Snapshots & ImageCapture & GuestScripts {
  return { ...simulatedSnapshots(parts), ...simulatedCapture(parts), ...simulatedGuestScripts(parts) }
}

/** What a test sees and does inside guests. */
export interface ContentWorld {
  /** What the guest has on its disk and in its memory; a fresh boot's memory is empty. */
  content(uuid: string): { disk: string; memory: string }
  write(uuid: string, text: { disk?: string; memory?: string }): void
  /** From now on a QEMU guest agent runs in the guest whenever it runs, or none does. */
  setGuestAgent(uuid: string, isThere: boolean): void
}

export function contentWorld(need: (uuid: string) => Guest, save: () => void): ContentWorld {
  return {
    content: uuid => {
      const { disk, memory } = contentOf(need(uuid))
      return { disk, memory: memory.text }
    },
    write: (uuid, text) => {
      const guest = need(uuid)
      const { disk, memory } = contentOf(guest)
      guest.content = { disk: text.disk ?? disk, memory: { boot: guest.boots, text: text.memory ?? memory.text } }
      save()
    },
    setGuestAgent: (uuid, isThere) => {
      need(uuid).guest_agent = isThere
      save()
    },
  }
}

/** What a new guest holds: that of the image its first disk is made from. */
export function firstContent(store: ImageStore, spec: VmSpec): { content?: SimulatedContent } {
  const disk = store.images.get(spec.disks[0]?.image ?? '')?.content
  return disk === undefined ? {} : { content: { disk, memory: { boot: 0, text: '' } } }
}
