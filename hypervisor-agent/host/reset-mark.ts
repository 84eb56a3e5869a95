/** Remembers that a node was reset, so that it shows as not set up until it is prepared again. */
import { join } from 'node:path'
import { readIfThere, removeDurable, writeDurable } from '../durable-file.ts'

export interface ResetMark {
  isSet(): boolean
  set(): Promise<void>
  clear(): Promise<void>
}

export async function openResetMark(stateDir: string): Promise<ResetMark> {
  const file = join(stateDir, 'reset')
  let isSet = (await readIfThere(file)) !== undefined
  return {
    isSet: () => isSet,
    set: async () => {
      await writeDurable(file, '')
      isSet = true
    },
    clear: async () => {
      if (isSet) await removeDurable(file)
      isSet = false
    },
  }
}
