/** How one agent tells another over a stream that it cannot go on. */
import * as v from 'valibot'
import { ERRORS, type ErrorCode } from '../../actors/contract/errors.ts'
import { HypervisorError } from '../hypervisor.ts'

const Refusal = v.object({ error: v.object({ code: v.string(), message: v.string() }) })

/** The word for an error. */
export function refusalOf(error: unknown): v.InferOutput<typeof Refusal> {
  const code = error instanceof HypervisorError ? error.code : 'MigrationInterrupted'
  return { error: { code, message: error instanceof Error ? error.message : String(error) } }
}

/** The error in a word, if it is one. */
export function refusalIn(word: unknown): HypervisorError | undefined {
  const read = v.safeParse(Refusal, word)
  if (!read.success) return undefined
  const { code, message } = read.output.error
  const isKnown = Object.hasOwn(ERRORS, code) && !here.has(code)
  const known = isKnown ? (code as ErrorCode) : 'MigrationInterrupted'
  return new HypervisorError(known, `the other server: ${message}`)
}

/** Of one's own node only: a task waits for its own hypervisor, and would for that of another. */
const here: ReadonlySet<string> = new Set<ErrorCode>(['HypervisorUnavailable'])
