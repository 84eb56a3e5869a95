/**
 * Fetches a large file by its checksum into a folder of its own. What has come stays there: after a broken connection, and after a
 * crash of the agent, the rest is asked for. Nothing is taken for whole before all of it, as it is on disk, fits its checksums.
 */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { open, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import * as v from 'valibot'
import { DIGESTS, type Digests } from '../../actors/contract/image.ts'
import { pause } from '../abort.ts'
import { makeFolder, readIfThere, writeDurable } from '../durable-file.ts'
import { HypervisorError } from '../hypervisor.ts'
import { FetchError, type Fetcher, shownUrl } from '../install/fetch.ts'

export interface Wanted {
  url: string
  digests: Digests
  /** Bytes of the file, where they are known. */
  sizeBytes?: number
  /** Most bytes it may have. */
  maxBytes: number
}

export interface DownloadOptions {
  /** Holds what has come so far, with a note of what it is. */
  folder: string
  signal: AbortSignal
  /** Bytes on disk, of how many in all where that is known. */
  progress?: (bytes: number, of: number | undefined) => void
  /** Before a connection that broke is tried again, ms; grows with each try in vain. */
  retryMs?: number
}

/** Tries in a row that bring nothing. */
const triesInVain = 5

/** Which file the bytes on disk are of. */
const Note = v.object({
  url: v.string(),
  digests: v.record(v.string(), v.string()),
  /** As the server said. */
  version: v.optional(v.string()),
  size: v.optional(v.number()),
})
type Note = v.InferOutput<typeof Note>

/** Resolves with the path of the whole file. ImageSourceInvalid, ImageChecksumMismatch (then nothing is kept), InsufficientStorage. */
export async function download(web: Fetcher, wanted: Wanted, options: DownloadOptions): Promise<string> {
  const { folder, signal, progress = () => {} } = options
  await makeFolder(folder)
  const path = join(folder, 'data')
  const noteFile = join(folder, 'data.json')
  const maxBytes = Math.min(wanted.maxBytes, wanted.sizeBytes ?? Number.POSITIVE_INFINITY)
  const identity = { url: wanted.url, digests: given(wanted.digests) }
  let note = await readNote(noteFile)
  // An address may be asked with other checksums only after its content has changed.
  if (!note || note.url !== identity.url || JSON.stringify(note.digests) !== JSON.stringify(identity.digests)) {
    await startAnew(identity)
  }
  // What was there before this connection, or came in several, may be pieces of different files: that earns a second try.
  const isBegun = (await sizeOf(path)) > 0

  for (let tries = 1; ; tries++) {
    const isPatched = (await fetchAll()) || isBegun
    const size = await sizeOf(path)
    const differs = await difference(path, wanted, size, signal)
    if (!differs) return path
    await startAnew(identity)
    if (!isPatched || tries > 1)
      throw new HypervisorError(
        'ImageChecksumMismatch',
        `${shownUrl(wanted.url)} is not what was asked for: ${differs}`,
      )
  }

  /** Until the server has no more to give. Answers whether the file was put together from several answers. */
  async function fetchAll(): Promise<boolean> {
    let inVain = 0
    for (let answers = 1; ; answers++) {
      const before = await sizeOf(path)
      if (before > 0 && before === (wanted.sizeBytes ?? note?.size)) return answers > 2
      try {
        await fetchRest(before)
        return answers > 1
      } catch (error) {
        signal.throwIfAborted()
        if (!(error instanceof FetchError)) throw onDisk(error, wanted.url)
        inVain = (await sizeOf(path)) > before ? 0 : inVain + 1
        if (!error.transient || inVain >= triesInVain) {
          throw new HypervisorError('ImageSourceInvalid', error.message, { cause: error })
        }
        await pause((options.retryMs ?? 1_000) * (inVain + 1), signal)
      }
    }
  }

  async function fetchRest(before: number): Promise<void> {
    const version = note?.version
    const rest = await web.rest(wanted.url, { from: before, signal, ...(version && before > 0 ? { version } : {}) })
    if (rest.whole) return
    const from = rest.from === before ? before : 0
    if (rest.from !== from) throw new FetchError(`${shownUrl(wanted.url)} answers with a part nobody asked for`)
    if ((rest.size ?? 0) > maxBytes) {
      throw new FetchError(`${shownUrl(wanted.url)} has ${rest.size} bytes, more than the ${maxBytes} allowed`)
    }
    if (rest.version !== version || rest.size !== note?.size) {
      const { version, size } = rest
      await takeNote({ ...identity, ...(version ? { version } : {}), ...(size === undefined ? {} : { size }) })
    }
    const file = await open(path, from > 0 ? 'r+' : 'w', 0o640)
    try {
      let at = from
      for await (const piece of rest.pieces(maxBytes - from)) {
        await file.write(piece, 0, piece.length, at)
        at += piece.length
        progress(at, rest.size ?? wanted.sizeBytes)
      }
      await file.sync()
    } finally {
      await file.close()
    }
  }

  async function startAnew(fresh: Note): Promise<void> {
    await rm(path, { force: true })
    await takeNote(fresh)
  }
  async function takeNote(fresh: Note): Promise<void> {
    await writeDurable(noteFile, `${JSON.stringify(fresh, null, 2)}\n`)
    note = fresh
  }
}

function given(digests: Digests): Record<string, string> {
  return Object.fromEntries(DIGESTS.flatMap(name => (digests[name] ? [[name, digests[name]]] : [])))
}

async function readNote(file: string): Promise<Note | undefined> {
  const text = await readIfThere(file)
  if (text === undefined) return undefined
  try {
    return v.parse(Note, JSON.parse(text))
  } catch {
    // What cannot be told is fetched again.
    return undefined
  }
}

async function sizeOf(path: string): Promise<number> {
  return (await stat(path).catch(() => undefined))?.size ?? 0
}

/** In what the file on disk is not the one wanted. */
async function difference(
  path: string,
  wanted: Wanted,
  size: number,
  signal: AbortSignal,
): Promise<string | undefined> {
  if (wanted.sizeBytes !== undefined && size !== wanted.sizeBytes)
    return `it has ${size} bytes, not ${wanted.sizeBytes}`
  const expected = given(wanted.digests)
  const hashes = Object.keys(expected).map(name => ({ name, hash: createHash(name) }))
  if (size > 0) {
    for await (const piece of createReadStream(path, { signal })) for (const { hash } of hashes) hash.update(piece)
  }
  for (const { name, hash } of hashes) {
    const found = hash.digest('hex')
    if (found !== expected[name]) return `its ${name.toUpperCase()} is ${found}, not ${expected[name]}`
  }
  return undefined
}

/** A full disk in Muster's words. */
function onDisk(error: unknown, url: string): unknown {
  if ((error as NodeJS.ErrnoException)?.code !== 'ENOSPC') return error
  return new HypervisorError('InsufficientStorage', `there is no room for ${shownUrl(url)} in the state folder`, {
    cause: error,
  })
}
