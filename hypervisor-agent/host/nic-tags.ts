/**
 * Which bridge each nic tag of this node leads to: what NIC_TAGS says until somebody changes it over the API; from then on what a
 * file in the state folder says.
 */
import { join } from 'node:path'
import * as v from 'valibot'
import { BridgeName, NicTag } from '../../actors/contract/ids.ts'
import { readIfThere, removeDurable, writeDurable } from '../durable-file.ts'

const Kept = v.pipe(
  v.unknown(),
  // valibot takes a list for a record without entries.
  v.check(value => !Array.isArray(value), 'it is a list'),
  v.record(NicTag, BridgeName),
)

export interface NicTags {
  /** Nic tag -> bridge. One object for the agent's life, changed in place: the hypervisor holds it too. */
  readonly byTag: Record<string, string>
  /** Durable when it resolves. */
  replace(tags: Readonly<Record<string, string>>): Promise<void>
  /** Forgets what was changed: the configuration counts again. */
  reset(): Promise<void>
}

/** Throws where the file holds something else: a node without its nic tags must not start guests on the wrong network. */
export async function openNicTags(options: {
  stateDir: string
  configured: Readonly<Record<string, string>>
}): Promise<NicTags> {
  const file = join(options.stateDir, 'nic-tags.json')
  const byTag: Record<string, string> = {}
  const set = (tags: Readonly<Record<string, string>>) => {
    for (const tag of Object.keys(byTag)) delete byTag[tag]
    Object.assign(byTag, tags)
  }
  const text = await readIfThere(file)
  try {
    set(text === undefined ? options.configured : v.parse(Kept, JSON.parse(text)))
  } catch (cause) {
    const { message } = cause as Error
    throw new Error(`${file} cannot be used (${message}): repair it, or remove it so that NIC_TAGS counts`, { cause })
  }
  return {
    byTag,
    replace: async tags => {
      await writeDurable(file, `${JSON.stringify(tags, null, 2)}\n`)
      set(tags)
    },
    reset: async () => {
      await removeDurable(file)
      set(options.configured)
    },
  }
}
