/**
 * What happens to one queue as events: each transition by its name, then `queue` with the state after it. An event's id is
 * `<revision>.<transitions so far>`; what a returning reader missed is told from the record's last transitions, and when these do not
 * reach back far enough a `gap` event says how many are lost.
 */
import type { Queue, QueueChange } from './backend.ts'
import type { StreamEvent } from './event-stream.ts'

export interface Position {
  revision: number
  /** Transitions so far; undefined when the reader gave a revision alone. */
  count: number | undefined
}

/** Reads a Last-Event-ID; undefined for what is none of ours. */
export function parsePosition(id: string | undefined): Position | undefined {
  const [, revision, count] = /^(\d{1,15})(?:\.(\d{1,15}))?$/.exec(id ?? '') ?? []
  if (revision === undefined) return undefined
  return { revision: Number(revision), count: count === undefined ? undefined : Number(count) }
}

/** Turns changes of a queue into events. `from`: where the reader stopped; a new reader begins with the state as it is. */
export function createTeller(from: Position | undefined, shown: (queue: Queue) => unknown) {
  let seen = from
  return ({ queue, revision }: QueueChange): StreamEvent[] => {
    if (seen && revision <= seen.revision) return []
    const before = seen
    // A queue that was forgotten begins to count again.
    seen = { revision, count: queue?.count ?? 0 }
    if (!queue) return [{ id: `${revision}.0`, event: 'forgotten', data: {} }]
    const state = { id: `${revision}.${queue.count}`, event: 'queue', data: shown(queue) }
    if (!before) return [state]
    const missed = missedOf(queue, before)
    if (missed.transitions.length === 0 && missed.lost === 0) return []
    // Ids inside a change are of the revision before: who stops there still has to hear of this one.
    const id = (transitions: number) => `${revision - 1}.${transitions}`
    const first = missed.transitions[0]?.count ?? queue.count + 1
    return [
      ...(missed.lost === 0 ? [] : [{ id: id(first - 1), event: 'gap', data: { lost: missed.lost } }]),
      ...missed.transitions.map(transition => ({
        id: id(transition.count),
        event: transition.event,
        data: transition,
      })),
      state,
    ]
  }
}

/** Transitions after a position as far as they are known, and how many are not; null: nobody knows how many. */
function missedOf({ count, recent }: Queue, before: Position): { transitions: Queue['recent']; lost: number | null } {
  if (before.count === undefined || before.count > count) return { transitions: recent, lost: null }
  const after = before.count
  const transitions = recent.filter(transition => transition.count > after)
  return { transitions, lost: count - after - transitions.length }
}
