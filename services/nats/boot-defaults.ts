/** The boot parameters of servers to come, as the actor `default` keeps them: new servers are registered with them. */
import * as v from 'valibot'
import { BootFields, BootModule, DEFAULTS_ID } from '../../actors/contract/boot.ts'
import { key } from './buckets.ts'
import type { Records } from './records.ts'

const Stored = v.object({
  snapshot: v.object({ context: v.object({ ...BootFields.entries, boot_modules: v.optional(v.array(BootModule)) }) }),
})
export type BootDefaults = v.InferOutput<typeof Stored>['snapshot']['context']

/** From the leader; undefined while nobody has set any. Throws UnavailableError. */
export async function loadBootDefaults(records: Records): Promise<BootDefaults | undefined> {
  const entry = await records.get('cn', key.actor('cn', DEFAULTS_ID))
  return entry && v.parse(Stored, entry.value).snapshot.context
}
