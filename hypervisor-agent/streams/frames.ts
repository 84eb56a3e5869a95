/**
 * Frames on a stream between agents: a kind, a length, a payload. Words are JSON, pieces are bytes of a disk; a piece of no bytes ends a
 * disk. A connection that ends between frames has ended in the middle all the same: the last word is always said.
 */
import type { Socket } from 'node:net'
import { HypervisorError } from '../hypervisor.ts'

export type Frame = { word: unknown } | { piece: Buffer }

const headerBytes = 5
const wordKind = 1
const pieceKind = 2
/** Largest payload of a frame. */
const payloadMaxBytes = 1024 * 1024
/** The other side says and takes nothing for so long: it is gone, ms. Reading a disk back takes a while. */
const silenceMs = 120_000

export async function sendWord(socket: Socket, word: unknown): Promise<void> {
  await send(socket, wordKind, Buffer.from(JSON.stringify(word)))
}

/** Sent as fast as the other side takes it. */
export async function sendPiece(socket: Socket, piece: Uint8Array): Promise<void> {
  for (let at = 0; at < piece.length; at += payloadMaxBytes) {
    await send(socket, pieceKind, piece.subarray(at, at + payloadMaxBytes))
  }
}

export const sendEndOfDisk = (socket: Socket): Promise<void> => send(socket, pieceKind, new Uint8Array())

async function send(socket: Socket, kind: number, payload: Uint8Array): Promise<void> {
  if (socket.destroyed) throw interrupted()
  const head = Buffer.alloc(headerBytes)
  head.writeUInt8(kind, 0)
  head.writeUInt32BE(payload.length, 1)
  socket.cork()
  socket.write(head)
  const takesMore = socket.write(payload)
  socket.uncork()
  if (!takesMore) await drained(socket)
}

function drained(socket: Socket): Promise<void> {
  return new Promise((resolve, reject) => {
    const done = (act: () => void) => () => {
      clearTimeout(timer)
      socket.off('drain', taken)
      socket.off('close', gone)
      act()
    }
    const taken = done(resolve)
    const gone = done(() => reject(interrupted()))
    const timer = setTimeout(() => socket.destroy(), silenceMs)
    socket.once('drain', taken)
    socket.once('close', gone)
  })
}

/** Frames as they come. Throws MigrationInterrupted when the connection ends, or the other side says nothing for too long. */
export async function* frames(socket: Socket): AsyncGenerator<Frame> {
  let held: Buffer = Buffer.alloc(0)
  socket.setTimeout(silenceMs, () => socket.destroy())
  try {
    for await (const chunk of socket) {
      held = held.length === 0 ? (chunk as Buffer) : Buffer.concat([held, chunk as Buffer])
      for (;;) {
        if (held.length < headerBytes) break
        const length = held.readUInt32BE(1)
        const kind = held.readUInt8(0)
        if (length > payloadMaxBytes || (kind !== wordKind && kind !== pieceKind)) throw unreadable()
        if (held.length < headerBytes + length) break
        const payload = held.subarray(headerBytes, headerBytes + length)
        held = held.subarray(headerBytes + length)
        yield kind === wordKind ? { word: wordOf(payload) } : { piece: payload }
      }
    }
  } catch (error) {
    throw error instanceof HypervisorError ? error : interrupted(error)
  }
  throw interrupted()
}

/** The word that comes next; MigrationInterrupted where none does. */
export async function nextWord(coming: AsyncGenerator<Frame>): Promise<unknown> {
  const { value, done } = await coming.next()
  if (done || !value || !('word' in value)) throw new HypervisorError('MigrationInterrupted', 'a word was expected')
  return value.word
}

/** The other side closes when it has heard the last word. */
export function closed(socket: Socket): Promise<void> {
  return new Promise(resolve => {
    if (socket.destroyed || socket.readableEnded) return resolve()
    socket.once('close', () => resolve())
    socket.once('end', () => resolve())
    socket.resume()
  })
}

function wordOf(payload: Buffer): unknown {
  try {
    return JSON.parse(payload.toString())
  } catch {
    throw unreadable()
  }
}

const unreadable = () => new HypervisorError('MigrationInterrupted', 'the other server sends something unreadable')
const interrupted = (cause?: unknown) =>
  new HypervisorError('MigrationInterrupted', 'the connection between the servers has ended', { cause })
