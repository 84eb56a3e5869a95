/** What an actor's record remembers of commands, so that a repeat is answered as the first was. */
import type { Rejection } from '../../actors/contract/errors.ts'
import type { Command } from '../../actors/contract/messages.ts'
import {
  type ActorRecord,
  KEY_AGE_MAX_MS,
  KEYS_MAX,
  OLD_ACTORS_MAX,
  REPLIES_PER_SENDER_MAX,
  SENDER_AGE_MAX_MS,
  SENDER_LIFE_MS,
  type StoredReply,
} from '../../actors/contract/record.ts'

/** The part of a record that does, and the owner's clock (ms since the epoch). Changed in place. */
export interface Memory {
  at: number
  replies: ActorRecord['replies']
  keys: ActorRecord['keys']
}

/** The reply that a repeat of this command is answered with. */
export function repeated(memory: Memory, { sender, sequence }: Command): StoredReply | undefined {
  if (sender === undefined || sequence === undefined) return undefined
  return heardOf(memory, sender)?.replies[String(sequence)]
}

/** What is kept of a sender. An actor that was forgotten and made anew numbers from 1 again: its earlier life does not count. */
function heardOf(memory: Memory, sender: string): ActorRecord['replies'][string] | undefined {
  const kept = memory.replies[sender]
  return kept && memory.at - kept.at < SENDER_LIFE_MS ? kept : undefined
}

/** A late copy of a command that was answered long ago: its reply is gone, and applying it again would double it. */
export function isBelowFloor(memory: Memory, { sender, sequence }: Command): boolean {
  const floor = sender === undefined ? undefined : heardOf(memory, sender)?.floor
  return floor !== undefined && sequence !== undefined && sequence < floor
}

/** Keeps a reply for repeats: by Idempotency-Key, and by (sender, sequence) until the sender's floor has passed it. */
export function remember(memory: Memory, { sender, sequence, floor, key }: Command, stored: StoredReply): void {
  if (key) {
    const young = Object.entries(memory.keys).filter(([, { at }]) => memory.at - at < KEY_AGE_MAX_MS)
    // An object lists keys that look like numbers first: the order in it is not that of their coming.
    const kept = young.sort(([, a], [, b]) => a.at - b.at).slice(-(KEYS_MAX - 1))
    memory.keys = { ...Object.fromEntries(kept), [key.value]: { fingerprint: key.fingerprint, at: memory.at, stored } }
  }
  if (sender === undefined || sequence === undefined) return
  const heard = heardOf(memory, sender)
  const lowest = Math.max(floor ?? sequence, heard?.floor ?? 0)
  const earlier = Object.entries(heard?.replies ?? {}).filter(([at]) => Number(at) >= lowest)
  const replies = Object.fromEntries([...earlier, [String(sequence), stored] as const].slice(-REPLIES_PER_SENDER_MAX))
  const rest = Object.entries(memory.replies).filter(([name]) => name !== sender)
  const old = rest.filter(([name, { at }]) => isActor(name) && memory.at - at >= SENDER_AGE_MAX_MS)
  const kept = new Set(
    old
      .sort(([, a], [, b]) => b.at - a.at)
      .slice(0, OLD_ACTORS_MAX)
      .map(([name]) => name),
  )
  const others = rest.filter(([name, { at }]) => kept.has(name) || memory.at - at < SENDER_AGE_MAX_MS)
  memory.replies = { ...Object.fromEntries(others), [sender]: { floor: lowest, at: memory.at, replies } }
}

/** Actors repeat their effects for as long as they are not acknowledged, be it after an outage of hours: `<kind>:<id>`. */
const isActor = (sender: string) => sender.includes(':')

/** A promise that an effect's receiver refused: those who repeat its command hear the refusal. */
export function takeBack(memory: Memory, sequence: number, refusal: Rejection): void {
  const answered = (stored: StoredReply): StoredReply =>
    stored.after?.includes(sequence) ? { reply: { error: refusal } } : stored
  memory.replies = mapValues(memory.replies, sender => ({ ...sender, replies: mapValues(sender.replies, answered) }))
  memory.keys = mapValues(memory.keys, keyed => ({ ...keyed, stored: answered(keyed.stored) }))
}

function mapValues<T>(of: Record<string, T>, change: (value: T) => T): Record<string, T> {
  return Object.fromEntries(Object.entries(of).map(([name, value]) => [name, change(value)]))
}
