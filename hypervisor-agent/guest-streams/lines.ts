/**
 * What goes over a guest's stream (docs/guest-streams.md): one JSON object a line, both ways; bytes are base64 in `data`. A caller that
 * leaves, sends something unreadable or takes nothing for a while ends it.
 */
import type { Socket } from 'node:net'
import { HypervisorError } from '../hypervisor.ts'

export interface Lines {
  /** As fast as the other side takes it. */
  send(line: object): Promise<void>
  /** Lines as they come, from where the last reader stopped. Throws when the caller has left. */
  received(): AsyncGenerator<Line>
  /** Bytes up to `{"type": "end"}`. */
  upload(maxBytes: number): AsyncGenerator<Buffer>
  /** Rejects when the caller, of whom nothing more is expected, has left. */
  left(): Promise<never>
  /** Sends the last line and sees it off. */
  end(line: object): Promise<void>
}

export interface Line {
  type: string
  data?: Buffer
}

/** Longest line of a caller, bytes. */
const lineMaxBytes = 1024 * 1024
/** A caller that takes nothing for so long has gone, and one that is told the end is waited for so long, ms. */
const silenceMs = 30_000
const goodbyeMs = 2_000
/** Bytes of a piece, so that its line is well below the longest. */
export const pieceMaxBytes = 256 * 1024

export function openLines(socket: Socket): Lines {
  const read = readLines(socket)

  async function send(line: object): Promise<void> {
    if (socket.destroyed || socket.writableEnded) throw gone()
    if (!socket.write(`${JSON.stringify(line)}\n`)) await drained(socket)
  }

  async function* received(): AsyncGenerator<Line> {
    for (;;) {
      const { value, done } = await read.next()
      if (done) throw gone()
      yield value
    }
  }

  return {
    send,
    received,
    left: async () => {
      for await (const _ of received());
      throw gone()
    },
    upload: async function* (maxBytes) {
      let size = 0
      for await (const { type, data } of received()) {
        if (type === 'end') return
        if (type !== 'data' || !data) throw unreadable('a line of type data or end is expected')
        size += data.length
        if (size > maxBytes) throw new HypervisorError('PayloadTooLarge', `more than ${maxBytes} bytes were sent`)
        yield data
      }
    },
    end: async line => {
      await send(line).catch(() => {})
      if (socket.destroyed) return
      await new Promise<void>(resolve => {
        const timer = setTimeout(resolve, goodbyeMs)
        socket.once('close', () => {
          clearTimeout(timer)
          resolve()
        })
        socket.end()
        // What still comes is thrown away; unread bytes would tear the connection before the caller has read the end.
        socket.resume()
      })
    },
  }
}

async function* readLines(socket: Socket): AsyncGenerator<Line> {
  let held = Buffer.alloc(0)
  try {
    for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
      held = held.length === 0 ? (chunk as Buffer<ArrayBuffer>) : Buffer.concat([held, chunk as Buffer])
      for (;;) {
        const at = held.indexOf(0x0a)
        if (at < 0) break
        const text = held.toString('utf8', 0, at)
        held = held.subarray(at + 1)
        if (text.trim() !== '') yield lineOf(text)
      }
      if (held.length > lineMaxBytes) throw unreadable('a line is too long')
    }
  } catch (error) {
    throw error instanceof HypervisorError ? error : gone(error)
  }
  throw gone()
}

function lineOf(text: string): Line {
  try {
    const { type, data } = JSON.parse(text) as { type?: unknown; data?: unknown }
    if (typeof type !== 'string') throw new TypeError('a line has no type')
    return { type, ...(typeof data === 'string' ? { data: Buffer.from(data, 'base64') } : {}) }
  } catch {
    throw unreadable('a line is no JSON object with a type')
  }
}

function drained(socket: Socket): Promise<void> {
  return new Promise((resolve, reject) => {
    const done = (settle: () => void) => () => {
      clearTimeout(timer)
      socket.off('drain', taken)
      socket.off('close', left)
      settle()
    }
    const taken = done(resolve)
    const left = done(() => reject(gone()))
    const timer = setTimeout(() => socket.destroy(), silenceMs)
    socket.once('drain', taken)
    socket.once('close', left)
  })
}

const gone = (cause?: unknown) => new HypervisorError('TaskCancelled', 'the caller has left', { cause })
const unreadable = (what: string) => new HypervisorError('InvalidContent', what)
