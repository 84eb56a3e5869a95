/**
 * Disks from one agent to another: each with its length and SHA-256 at its end, so that both sides know what arrived; the receiver
 * answers when everything is written. What is on the disks is read back later (`machine_migrate_adopt`).
 */
import { createHash } from 'node:crypto'
import type { Socket } from 'node:net'
import * as v from 'valibot'
import { DiskDigest } from '../../actors/contract/migration.ts'
import { HypervisorError } from '../hypervisor.ts'
import { closed, type Frame, frames, nextWord, sendEndOfDisk, sendPiece, sendWord } from './frames.ts'
import { refusalIn, refusalOf } from './refusals.ts'

/** The sender's side. `sent` hears of bytes as they go. */
export async function sendDisks(
  socket: Socket,
  disks: (() => Promise<AsyncIterable<Uint8Array>>)[],
  sent: (bytes: number) => void,
): Promise<DiskDigest[]> {
  const answers = frames(socket)
  const refused = { error: undefined as HypervisorError | undefined }
  // A receiver that cannot go on says why at once, not when all is sent.
  const answer = nextWord(answers).then(
    word => {
      refused.error = refusalIn(word)
      return word
    },
    error => {
      refused.error = error
      throw error
    },
  )
  answer.catch(() => {})
  try {
    const digests: DiskDigest[] = []
    await sendWord(socket, { disks: disks.length })
    for (const disk of disks) {
      const digest = digester()
      for await (const piece of await disk()) {
        if (refused.error) throw refused.error
        digest.add(piece)
        await sendPiece(socket, piece)
        sent(piece.length)
      }
      await sendEndOfDisk(socket)
      digests.push(digest.end())
      await sendWord(socket, digests.at(-1))
    }
    await answer
    if (refused.error) throw refused.error
    return digests
  } catch (error) {
    throw refused.error ?? error
  } finally {
    socket.destroy()
  }
}

/** The receiver's side: writes each disk, compares, and answers. */
export async function receiveDisks(
  socket: Socket,
  count: number,
  write: (n: number, pieces: AsyncIterable<Uint8Array>) => Promise<void>,
): Promise<void> {
  const coming = frames(socket)
  try {
    const { disks } = v.parse(v.object({ disks: v.number() }), await nextWord(coming))
    if (disks !== count) throw new HypervisorError('MigrationCorrupted', `${disks} disks come instead of ${count}`)
    for (let n = 0; n < count; n++) {
      const digest = digester()
      await write(n, noted(pieces(coming), digest))
      const told = v.parse(DiskDigest, await nextWord(coming))
      const { sha256, bytes } = digest.end()
      if (told.sha256 !== sha256 || told.bytes !== bytes) {
        throw new HypervisorError('MigrationCorrupted', `disk ${n} arrived with another checksum`)
      }
    }
    await sendWord(socket, { received: count })
    await closed(socket)
  } catch (error) {
    if (!socket.destroyed) await sendWord(socket, refusalOf(error)).catch(() => {})
    throw error
  }
}

/** The length and SHA-256 of what is read. */
export async function digestOf(pieces: AsyncIterable<Uint8Array>, read: (bytes: number) => void): Promise<DiskDigest> {
  const digest = digester()
  for await (const piece of pieces) {
    digest.add(piece)
    read(piece.length)
  }
  return digest.end()
}

function digester() {
  const hash = createHash('sha256')
  let bytes = 0
  return {
    add: (piece: Uint8Array) => {
      hash.update(piece)
      bytes += piece.length
    },
    end: (): DiskDigest => ({ bytes, sha256: hash.digest('hex') }),
  }
}

async function* pieces(coming: AsyncGenerator<Frame>): AsyncGenerator<Buffer> {
  for (;;) {
    const { value, done } = await coming.next()
    if (done || !value || !('piece' in value)) throw new HypervisorError('MigrationInterrupted', 'a disk broke off')
    if (value.piece.length === 0) return
    yield value.piece
  }
}

async function* noted(source: AsyncIterable<Buffer>, digest: ReturnType<typeof digester>) {
  for await (const piece of source) {
    digest.add(piece)
    yield piece
  }
}
