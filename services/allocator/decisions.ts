/** Decisions made lately, each with what it was made from, so that it can be asked why. In memory: a restart forgets them. */
import { createHash } from 'node:crypto'
import type { Decision } from '../../actors/allocation/decide.ts'
import { whyNot } from '../../actors/allocation/why-not.ts'
import { DECISION_KEPT_MS } from '../../actors/contract/allocation.ts'
import { told } from './told.ts'

/** Most decisions kept: each remembers every server of the fleet as it was. */
const KEPT_MAX = 256

export interface Decisions {
  /** Returns the id to ask with. */
  keep(question: object, decision: Decision): string
  /** All of a decision, or why it did not choose that server; undefined once it is forgotten. */
  explain(id: string, serverUuid?: string): object | undefined
}

interface Kept {
  at: number
  question: object
  decision: Decision
  from: Record<string, number>
}

/** `position`: the fleet's sequences; with the question they name what was decided on. */
export interface DecisionsOptions {
  position: () => Record<string, number>
  now: () => number
  id: () => string
}

export function createDecisions({ position, now, id: newId }: DecisionsOptions): Decisions {
  const kept = new Map<string, Kept>()
  return {
    keep: (question, decision) => {
      const at = now()
      for (const [id, old] of kept) {
        if (kept.size < KEPT_MAX && at - old.at <= DECISION_KEPT_MS) break
        kept.delete(id)
      }
      const id = newId()
      // The rows themselves never change, but the fleet puts others in their places.
      kept.set(id, { at, question, decision: { ...decision, rows: decision.rows.slice() }, from: position() })
      return id
    },
    explain: (id, serverUuid) => {
      const known = kept.get(id)
      if (!known || now() - known.at > DECISION_KEPT_MS) return undefined
      const { at, question, decision, from } = known
      const input = { question, fleet: from }
      const about = {
        id,
        decided_at: new Date(at).toISOString(),
        kept_until: new Date(at + DECISION_KEPT_MS).toISOString(),
        input_digest: createHash('sha256').update(JSON.stringify(input)).digest('hex'),
        ...input,
      }
      if (serverUuid === undefined) return { ...about, ...told(id, decision) }
      return { ...about, server_uuid: serverUuid, ...whyNot(decision, serverUuid) }
    },
  }
}
