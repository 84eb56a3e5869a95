/** A libvirtd that says what the test tells it to: for torn frames, silence, and replies at the wrong moment. */
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { encodePacket, PACKET_STATUS, PACKET_TYPES, type Packet, PacketReader } from '../packet.ts'
import { protocol } from '../protocol.ts'
import { decode, encode } from '../xdr.ts'

export interface Request {
  procedure: string
  args: unknown
  reply: (value?: unknown) => void
  fail: (error: { code: number; message: string }) => void
}

const names = new Map(Object.entries(protocol.procedures).map(([name, { number }]) => [number, name]))
const keepaliveProgram = 0x6b656570

export class FakeServer {
  readonly folder = mkdtempSync(join(tmpdir(), 'fake-libvirtd-'))
  readonly socketPath = join(this.folder, 'sock')
  /** What opening a connection asks, answered as libvirtd does; a test may replace rows. */
  readonly answers: Record<string, (args: unknown) => unknown> = {
    auth_list: () => ({ types: [0] }),
    connect_supports_feature: () => ({ supported: 1 }),
    connect_open: () => undefined,
    connect_close: () => undefined,
    connect_domain_event_callback_register_any: () => ({ callbackID: 1 }),
  }
  /** Every request so far, by procedure name. */
  readonly asked: string[] = []
  /** Requests without a row in `answers`, waiting for the test. */
  readonly waiting: Request[] = []
  /** Content of the streams, one after the other, and how many ended in order or were given up. */
  streamed = Buffer.alloc(0)
  streamsEnded: ('finished' | 'aborted')[] = []
  /** What a stream from the server sends, in packets of this size; then it waits to be told that all is there. */
  content = Buffer.alloc(0)
  contentPieceBytes = 100_000
  /** Refuses a stream when so many bytes of it have come. */
  streamLimitBytes = Number.POSITIVE_INFINITY
  /** Keepalive packets: pings received and pongs received. */
  pings = 0
  pongs = 0
  answersPings = true
  /** Bytes per write; 0 for whole packets. */
  tearing = 0
  #server: Server | undefined
  #sockets = new Set<Socket>()

  async listen(): Promise<void> {
    const server = createServer(socket => this.#serve(socket))
    await new Promise<void>(resolve => server.listen(this.socketPath, resolve))
    this.#server = server
  }

  /** Cuts every connection; with `stop` nothing listens any more. */
  async drop({ stop = false } = {}): Promise<void> {
    const closed = stop ? new Promise(resolve => this.#server?.close(resolve)) : undefined
    for (const socket of this.#sockets) socket.destroy()
    await closed
  }

  async remove(): Promise<void> {
    if (this.#server?.listening) await this.drop({ stop: true })
    rmSync(this.folder, { recursive: true, force: true })
  }

  get connections(): number {
    return this.#sockets.size
  }

  event(name: string, payload: unknown): void {
    const { number, event } = protocol.procedures[name]!
    const packet = { ...header, procedure: number, type: PACKET_TYPES.message, payload: encode(event!, payload) }
    for (const socket of this.#sockets) this.#write(socket, packet)
  }

  ping(): void {
    const packet = { ...header, program: keepaliveProgram, procedure: 1, type: PACKET_TYPES.message }
    for (const socket of this.#sockets) this.#write(socket, packet)
  }

  raw(bytes: Buffer): void {
    for (const socket of this.#sockets) socket.write(bytes)
  }

  #serve(socket: Socket): void {
    this.#sockets.add(socket)
    socket.on('close', () => this.#sockets.delete(socket))
    socket.on('error', () => {})
    const reader = new PacketReader()
    socket.on('data', chunk => {
      for (const packet of reader.push(chunk)) this.#take(socket, packet)
    })
  }

  #take(socket: Socket, packet: Packet): void {
    if (packet.program === keepaliveProgram) {
      if (packet.procedure === 2) this.pongs += 1
      if (packet.procedure !== 1) return
      this.pings += 1
      if (this.answersPings) this.#write(socket, { ...packet, procedure: 2 })
      return
    }
    if (packet.type === PACKET_TYPES.stream) {
      this.#takeStream(socket, packet)
      return
    }
    const procedure = names.get(packet.procedure)!
    const { args: argsLayout, ret } = protocol.procedures[procedure]!
    const reply = (value?: unknown) => {
      const payload = ret ? encode(ret, value) : Buffer.alloc(0)
      this.#write(socket, { ...packet, type: PACKET_TYPES.reply, payload })
    }
    const fail = (error: { code: number; message: string }) => {
      const payload = errorPayload(error)
      this.#write(socket, { ...packet, type: PACKET_TYPES.reply, status: PACKET_STATUS.error, payload })
    }
    const args = argsLayout ? decode(argsLayout, packet.payload) : undefined
    this.asked.push(procedure)
    const answer = this.answers[procedure]
    if (answer) reply(answer(args))
    if (answer && procedure === 'storage_vol_download') this.#sendContent(socket, packet)
    if (!answer) this.waiting.push({ procedure, args, reply, fail })
  }

  /** All of it, and an empty piece at its end; or up to its limit, and a refusal. */
  #sendContent(socket: Socket, packet: Packet): void {
    const stream = { ...packet, type: PACKET_TYPES.stream }
    const status = PACKET_STATUS.continue
    for (let at = 0; at < this.content.length; at += this.contentPieceBytes) {
      if (at >= this.streamLimitBytes) {
        const payload = errorPayload({ code: 38, message: 'Input/output error' })
        this.#write(socket, { ...stream, status: PACKET_STATUS.error, payload })
        return
      }
      this.#write(socket, { ...stream, status, payload: this.content.subarray(at, at + this.contentPieceBytes) })
    }
    this.#write(socket, { ...stream, status, payload: Buffer.alloc(0) })
  }

  #takeStream(socket: Socket, packet: Packet): void {
    this.streamed = Buffer.concat([this.streamed, packet.payload])
    if (packet.status === PACKET_STATUS.error) this.streamsEnded.push('aborted')
    if (packet.status === PACKET_STATUS.ok) {
      this.streamsEnded.push('finished')
      this.#write(socket, { ...packet, payload: Buffer.alloc(0) })
    } else if (this.streamed.length > this.streamLimitBytes) {
      const payload = errorPayload({ code: 38, message: 'No space left on device' })
      this.#write(socket, { ...packet, status: PACKET_STATUS.error, payload })
    }
  }

  #write(socket: Socket, packet: Packet): void {
    const bytes = encodePacket(packet)
    const size = this.tearing || bytes.length
    for (let at = 0; at < bytes.length; at += size) socket.write(bytes.subarray(at, at + size))
  }
}

function errorPayload({ code, message }: { code: number; message: string }): Buffer {
  const none = { dom: null, str1: null, str2: null, str3: null, int1: 0, int2: 0, net: null }
  return encode('error', { code, message, domain: 10, level: 2, ...none })
}

const header: Packet = {
  program: protocol.program,
  version: protocol.version,
  procedure: 0,
  type: 0,
  serial: 0,
  status: PACKET_STATUS.ok,
  payload: Buffer.alloc(0),
}
