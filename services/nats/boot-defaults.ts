/** The boot parameters of servers to come, as the actor `default` keeps them: new servers are registered with them. */
import * as v from 'valibot'
import { BootFields, BootModule, DEFAULTS_ID } from '../../actors/contract/boot.ts'
import { key } from './buckets.ts'
import { DamagedError, type Entry, type Records } from './records.ts'

const Stored = v.object({
  snapshot: v.object({ context: v.object({ ...BootFields.entries, boot_modules: v.optional(v.array(BootModule)) }) }),
})
export type BootDefaults = v.InferOutput<typeof Stored>['snapshot']['context']

/**
 * From the leader; undefined while nobody has set any. A damaged record is told to `warn` and counts as none: nodes that register must
 * not wait for whoever repairs it. Throws UnavailableError.
 */
export async function loadBootDefaults(
  records: Pick<Records, 'get'>,
  warn: (problem: string, error: unknown) => void,
): Promise<BootDefaults | undefined> {
  try {
    const entry = await records.get('cn', key.actor('cn', DEFAULTS_ID))
    return entry && read(entry)
  } catch (error) {
    if (!(error instanceof DamagedError)) throw error
    warn(`the boot defaults are damaged, and the built-in ones are used: ${error.message}`, error)
    return undefined
  }
}

function read({ value }: Entry): BootDefaults {
  const stored = v.safeParse(Stored, value)
  if (stored.success) return stored.output.snapshot.context
  const wrong = stored.issues.map(issue => `${v.getDotPath(issue) ?? 'the record'}: ${issue.message}`)
  throw new DamagedError(`cn/${DEFAULTS_ID} is no record of them: ${wrong.join('; ')}`)
}
