/**
 * Tasks an agent has accepted, one fsynced JSON file each, so that an agent that dies knows what it owes. An entry stays until its
 * end was answered; the last ended ones are kept as history, with their end, in case it is asked for again.
 */
import { readdir, rename } from 'node:fs/promises'
import { join } from 'node:path'
import * as v from 'valibot'
import { TaskOffer, TaskReport } from '../actors/contract/messages.ts'
import { makeFolder, readIfThere, removeDurable, writeDurable } from './durable-file.ts'

/** `marks`: what the task did that must not be done or decided twice. `undoing`: the failure after which it is being undone. */
export const JournalEntry = v.object({
  offer: TaskOffer,
  accepted_at: v.number(),
  began_at: v.nullable(v.number()),
  marks: v.record(v.string(), v.unknown()),
  undoing: v.nullable(v.object({ code: v.string(), message: v.string() })),
  ended: v.nullable(TaskReport),
})
export type JournalEntry = v.InferOutput<typeof JournalEntry>

type Patch = Partial<JournalEntry>

/** How many ended tasks are remembered. */
export const historyMax = 16

export interface Journal {
  /** Entries not closed, oldest first. */
  open(): JournalEntry[]
  find(id: string): JournalEntry | undefined
  /** The entry of a closed task, if it is among the last ones. */
  remembered(id: string): JournalEntry | undefined
  history(): JournalEntry[]
  /** Durable when it resolves. A known id is left as it is. */
  add(offer: TaskOffer, at: number): Promise<JournalEntry>
  /** Changes an entry; durable when it resolves. Changes of one entry happen one after the other; `patch` may depend on the one before. */
  change(id: string, patch: Patch | ((entry: JournalEntry) => Patch)): Promise<void>
  /** Moves an entry to the history. */
  close(id: string): Promise<void>
  /** Resolves when no write is under way. */
  settled(): Promise<void>
}

/** Opens the journal in this folder. `onDamaged` hears of files that cannot be read; they are put aside. */
export async function openJournal(folder: string, onDamaged: (file: string, error: unknown) => void): Promise<Journal> {
  await makeFolder(folder)
  const historyFile = join(folder, 'history.json')
  const entries = new Map<string, JournalEntry>()
  for (const name of (await readdir(folder)).filter(name => name.endsWith('.json') && name !== 'history.json')) {
    const entry = await load(join(folder, name), JournalEntry, onDamaged)
    if (entry) entries.set(entry.offer.id, entry)
  }
  const past = (await load(historyFile, v.array(JournalEntry), onDamaged)) ?? []
  // A crash between writing the history and removing the entry leaves both: its end was answered, so it is closed.
  for (const { offer } of past) {
    if (entries.get(offer.id)?.ended) {
      entries.delete(offer.id)
      await removeDurable(fileOf(offer.id))
    }
  }

  /** Writes of one id in order; `null` is the history file. */
  const lines = new Map<string | null, Promise<void>>()
  function inLine(id: string | null, write: () => Promise<void>): Promise<void> {
    const mine = (lines.get(id) ?? Promise.resolve()).then(write, write)
    lines.set(id, mine)
    const forget = () => {
      if (lines.get(id) === mine) lines.delete(id)
    }
    mine.then(forget, forget)
    return mine
  }

  function fileOf(id: string): string {
    return join(folder, `${id}.json`)
  }
  const save = (entry: JournalEntry) => writeDurable(fileOf(entry.offer.id), `${JSON.stringify(entry, null, 2)}\n`)

  return {
    settled: async () => {
      while (lines.size > 0) await Promise.allSettled(lines.values())
    },
    open: () => [...entries.values()].sort((a, b) => a.accepted_at - b.accepted_at),
    find: id => entries.get(id),
    remembered: id => past.find(entry => entry.offer.id === id),
    history: () => [...past],
    add: async (offer, at) => {
      await inLine(offer.id, async () => {
        if (entries.has(offer.id)) return
        const entry = { offer, accepted_at: at, began_at: null, marks: {}, undoing: null, ended: null }
        await save(entry)
        entries.set(offer.id, entry)
      })
      return entries.get(offer.id) as JournalEntry
    },
    change: (id, given) =>
      inLine(id, async () => {
        const entry = entries.get(id)
        if (!entry) throw new Error(`task ${id} is not in the journal`)
        const patch = typeof given === 'function' ? given(entry) : given
        await save({ ...entry, ...patch })
        Object.assign(entry, patch)
      }),
    close: id =>
      inLine(id, async () => {
        const entry = entries.get(id)
        if (!entry) return
        await inLine(null, async () => {
          const next = [...past.filter(other => other.offer.id !== id), entry].slice(-historyMax)
          await writeDurable(historyFile, `${JSON.stringify(next, null, 2)}\n`)
          past.splice(0, past.length, ...next)
        })
        await removeDurable(fileOf(id))
        entries.delete(id)
      }),
  }
}

async function load<S extends v.GenericSchema>(
  file: string,
  schema: S,
  onDamaged: (file: string, error: unknown) => void,
): Promise<v.InferOutput<S> | undefined> {
  const text = await readIfThere(file)
  if (text === undefined) return undefined
  try {
    return v.parse(schema, JSON.parse(text))
  } catch (error) {
    await rename(file, `${file}.damaged`)
    onDamaged(file, error)
    return undefined
  }
}
