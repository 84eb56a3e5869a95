/**
 * Streams beside the calls of one connection: bytes to the server, or from it, under the serial of the call that opened them. Packets of
 * several streams and calls take turns on the socket.
 */
import type { Socket } from 'node:net'
import { ConnectionError, LibvirtError } from './errors.ts'
import { encodePacket, PACKET_STATUS, PACKET_TYPES, type Packet } from './packet.ts'
import { type ProcedureName, protocol } from './protocol.ts'
import type { Error as WireError } from './protocol-types.ts'
import { decode } from './xdr.ts'

/** The connection that carries them. */
export interface Carrier {
  socket: Socket
  isEnded(): boolean
  /** `sent` is told the serial of the call. */
  call(procedure: ProcedureName, args: unknown, deadlineMs: number, sent: (serial: number) => void): Promise<unknown>
}

/** The server's last word on a stream: that it has taken everything, or why not. */
interface Stream {
  procedure: ProcedureName
  settle: { resolve: () => void; reject: (error: Error) => void }
  /** Bytes that come from the server; none: it has sent all. */
  take?: (piece: Buffer) => void
}

/** Largest piece of a stream in one packet: every server takes 256 KiB less the header. */
const streamPieceBytes = 128 * 1024
/** What may wait to be read of a stream from the server before its socket is paused. */
const streamHeldBytes = 4 * 1024 * 1024

export class Streams {
  #carrier: Carrier
  #open = new Map<number, Stream>()

  constructor(carrier: Carrier) {
    this.#carrier = carrier
  }

  /**
   * A call that opens a stream to the server, then its pieces (of at most `streamPieceBytes`), no faster than the socket takes
   * them. Resolves when the server has confirmed the whole; `deadlineMs` holds for the call and again for that confirmation.
   * A source that throws, and a caller who aborts it so, ends the stream on the server too.
   */
  async upload(
    procedure: ProcedureName,
    args: unknown,
    pieces: AsyncIterable<Uint8Array>,
    deadlineMs: number,
  ): Promise<void> {
    let serial = 0
    let refused: Error | undefined
    const taken = new Promise<void>((resolve, reject) => {
      const fail = (error: Error) => {
        refused = error
        reject(error)
      }
      const sent = (at: number) => {
        serial = at
        this.#open.set(at, { procedure, settle: { resolve, reject: fail } })
      }
      this.#carrier
        .call(procedure, args, deadlineMs, sent)
        .then(() => this.#feed(procedure, serial, pieces, () => refused))
        .then(
          () => {
            const late = setTimeout(
              () =>
                fail(
                  new ConnectionError('deadline', `libvirt did not confirm ${procedure}`, { procedure, sent: true }),
                ),
              deadlineMs,
            )
            taken.catch(() => {}).finally(() => clearTimeout(late))
          },
          error => {
            if (!refused && !this.#carrier.isEnded() && serial > 0) this.#send(procedure, serial, PACKET_STATUS.error)
            fail(error)
          },
        )
    })
    try {
      await taken
    } finally {
      this.#open.delete(serial)
    }
  }

  /**
   * A call that opens a stream from the server: its pieces as they come, which pauses the whole connection while they are not read.
   * `deadlineMs` holds for the call and for every piece. A reader who stops ends the stream on the server too.
   */
  async *download(procedure: ProcedureName, args: unknown, deadlineMs: number): AsyncGenerator<Buffer> {
    const pieces: Buffer[] = []
    let held = 0
    let serial = 0
    let isEnded = false
    let failed: Error | undefined
    let wake = () => {}
    const over = () => {
      isEnded = true
      wake()
    }
    const fail = (error: Error) => {
      failed = error
      wake()
    }
    const take = (piece: Buffer) => {
      pieces.push(piece)
      held += piece.length
      if (held > streamHeldBytes) this.#carrier.socket.pause()
      wake()
    }
    const until = async (seen: () => boolean) => {
      const late = setTimeout(
        () => fail(new ConnectionError('deadline', `${procedure} sends nothing`, { procedure, sent: true })),
        deadlineMs,
      )
      try {
        while (!seen() && !failed) {
          await new Promise<void>(resolve => {
            wake = resolve
          })
        }
      } finally {
        clearTimeout(late)
      }
      if (failed) throw failed
    }
    await this.#carrier.call(procedure, args, deadlineMs, at => {
      serial = at
      this.#open.set(at, { procedure, settle: { resolve: over, reject: fail }, take })
    })
    try {
      for (;;) {
        await until(() => pieces.length > 0)
        const piece = pieces.shift()!
        held -= piece.length
        if (held <= streamHeldBytes) this.#carrier.socket.resume()
        if (piece.length === 0) break
        yield piece
      }
      this.#send(procedure, serial, PACKET_STATUS.ok)
      await until(() => isEnded)
    } finally {
      this.#carrier.socket.resume()
      if (!isEnded && !failed && !this.#carrier.isEnded()) this.#send(procedure, serial, PACKET_STATUS.error)
      this.#open.delete(serial)
    }
  }

  async #feed(
    procedure: ProcedureName,
    serial: number,
    pieces: AsyncIterable<Uint8Array>,
    refused: () => Error | undefined,
  ): Promise<void> {
    for await (const piece of pieces) {
      for (let at = 0; at < piece.length; at += streamPieceBytes) {
        const error = refused()
        if (error) throw error
        const part = Buffer.from(piece.subarray(at, at + streamPieceBytes))
        if (!this.#send(procedure, serial, PACKET_STATUS.continue, part)) await this.#drained()
      }
    }
    const error = refused()
    if (error) throw error
    this.#send(procedure, serial, PACKET_STATUS.ok)
  }

  #send(procedure: ProcedureName, serial: number, status: number, payload = Buffer.alloc(0)): boolean {
    const { number } = protocol.procedures[procedure]!
    const { program, version } = protocol
    const type = PACKET_TYPES.stream
    return this.#carrier.socket.write(
      encodePacket({ program, version, procedure: number, type, serial, status, payload }),
    )
  }

  /** Resolves when the socket takes more, or has ended. */
  #drained(): Promise<void> {
    return new Promise(resolve => {
      const done = () => {
        this.#carrier.socket.off('drain', done)
        this.#carrier.socket.off('close', done)
        resolve()
      }
      if (this.#carrier.socket.destroyed) return resolve()
      this.#carrier.socket.once('drain', done)
      this.#carrier.socket.once('close', done)
    })
  }

  /** A packet of a stream. Late ones of a stream that is over are dropped. */
  take({ serial, status, payload }: Packet): void {
    const stream = this.#open.get(serial)
    if (!stream) return
    if (status === PACKET_STATUS.continue) stream.take?.(payload)
    if (status === PACKET_STATUS.ok) stream.settle.resolve()
    if (status === PACKET_STATUS.error) {
      stream.settle.reject(new LibvirtError(decode('error', payload) as WireError, stream.procedure))
    }
  }

  /** The connection has ended. */
  end(error: ConnectionError): void {
    for (const { procedure, settle } of this.#open.values()) {
      settle.reject(new ConnectionError(error.reason, error.message, { procedure, sent: true, cause: error }))
    }
    this.#open.clear()
  }
}
