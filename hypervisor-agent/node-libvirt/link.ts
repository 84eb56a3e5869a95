/**
 * One unix socket to libvirtd for as long as it lasts: calls and their replies, at most `maxInFlight` unanswered at a
 * time and the rest in a bounded queue, keepalive, and events as they come. It never comes back; `client.ts` opens the next.
 *
 * The server handles five requests of one connection at a time and no more, so a call whose deadline has passed keeps
 * its place until the server answers after all: freeing it here would only make later calls wait there, unseen.
 */
import { createConnection, type Socket } from 'node:net'
import { ConnectionError, LibvirtError } from './errors.ts'
import { encodePacket, PACKET_STATUS, PACKET_TYPES, type Packet, PacketReader } from './packet.ts'
import { type EventName, eventByNumber, type ProcedureName, procedureOf, programs, protocol } from './protocol.ts'
import type { Error as WireError } from './protocol-types.ts'
import { Streams } from './streams.ts'
import { decode, encode } from './xdr.ts'

export interface LinkOptions {
  socketPath: string
  connectTimeoutMs: number
  maxInFlight: number
  maxQueued: number
}

/** How busy a connection is: unanswered calls, those of them whose caller has gone, and calls not yet sent. */
export interface Load {
  inFlight: number
  abandoned: number
  queued: number
}

interface Call {
  procedure: ProcedureName
  payload: Buffer
  ret: string | null
  timer: NodeJS.Timeout | undefined
  /** Undefined once the caller has been told that the deadline passed. */
  settle: { resolve: (value: unknown) => void; reject: (error: Error) => void } | undefined
  /** Told when a call without a caller gives its slot back. */
  release: () => void
  /** Told the serial it is sent under: a stream goes on under it. */
  sent?: (serial: number) => void
}

const keepalive = { program: 0x6b656570, version: 1, ping: 1, pong: 2 } as const

export class Link {
  /** Called for every event that the protocol table knows. */
  onEvent: (name: EventName, payload: unknown) => void = () => {}
  /** Called once when the link has ended, with the reason. */
  onEnd: (error: ConnectionError) => void = () => {}
  #socket: Socket
  #options: LinkOptions
  #reader = new PacketReader()
  #inFlight = new Map<number, Call>()
  #streams: Streams
  #queue: Call[] = []
  #serial = 0
  #ended: ConnectionError | undefined
  #pinging: NodeJS.Timeout | undefined
  #pingsUnanswered = 0

  /** Connects the socket; rejects with ConnectionError `unreachable`. */
  static open(options: LinkOptions): Promise<Link> {
    return new Promise((resolve, reject) => {
      const socket = createConnection(options.socketPath)
      const fail = (cause: unknown) => {
        clearTimeout(timer)
        socket.destroy()
        const why = cause instanceof Error ? cause.message : String(cause)
        reject(new ConnectionError('unreachable', `cannot connect to libvirt: ${why}`, { cause }))
      }
      const timer = setTimeout(() => fail(new Error('the socket did not accept in time')), options.connectTimeoutMs)
      socket.once('error', fail)
      socket.once('connect', () => {
        clearTimeout(timer)
        socket.removeListener('error', fail)
        resolve(new Link(socket, options))
      })
    })
  }

  private constructor(socket: Socket, options: LinkOptions) {
    this.#socket = socket
    this.#options = options
    this.#streams = new Streams({
      socket,
      isEnded: () => this.#ended !== undefined,
      call: (procedure, args, deadlineMs, sent) => this.call(procedure, args, deadlineMs, sent),
    })
    socket.on('data', chunk => this.#receive(chunk))
    socket.on('error', cause =>
      this.#end(new ConnectionError('lost', `libvirt connection failed: ${cause.message}`, { cause })),
    )
    socket.on('close', () => this.#end(new ConnectionError('lost', 'libvirt closed the connection')))
  }

  get load(): Load {
    let abandoned = 0
    for (const call of this.#inFlight.values()) if (!call.settle) abandoned += 1
    return { inFlight: this.#inFlight.size, abandoned, queued: this.#queue.length }
  }

  /** Sends a call; `args` must fit the procedure's layout. The deadline counts from now, waiting in the queue included. */
  call(
    procedure: ProcedureName,
    args: unknown,
    deadlineMs: number,
    sent: (serial: number) => void = () => {},
  ): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (this.#ended) {
        reject(new ConnectionError(this.#ended.reason, this.#ended.message, { procedure, cause: this.#ended }))
        return
      }
      if (this.#inFlight.size >= this.#options.maxInFlight && this.#queue.length >= this.#options.maxQueued) {
        reject(new ConnectionError('queue_full', `${this.#queue.length} calls wait for libvirt already`, { procedure }))
        return
      }
      const layout = procedureOf(procedure)
      const call: Call = {
        procedure,
        payload: layout.args ? encode(layout.args, args) : Buffer.alloc(0),
        ret: layout.ret,
        timer: setTimeout(() => this.#expire(call, deadlineMs), deadlineMs),
        settle: { resolve, reject },
        release: () => {},
        sent,
      }
      this.#queue.push(call)
      this.#pump()
    })
  }

  /** See `Streams.upload`. */
  upload(
    procedure: ProcedureName,
    args: unknown,
    pieces: AsyncIterable<Uint8Array>,
    deadlineMs: number,
  ): Promise<void> {
    return this.#streams.upload(procedure, args, pieces, deadlineMs)
  }

  /** See `Streams.download`. */
  download(procedure: ProcedureName, args: unknown, deadlineMs: number): AsyncGenerator<Buffer> {
    return this.#streams.download(procedure, args, deadlineMs)
  }

  /** Pings every `intervalMs` of silence; ends the link after `count` pings without a sign of life. */
  startKeepalive({ intervalMs, count }: { intervalMs: number; count: number }): void {
    this.#pinging = setInterval(() => {
      if (this.#pingsUnanswered >= count) {
        this.#end(new ConnectionError('lost', `libvirt did not answer ${count} keepalive pings`))
        return
      }
      this.#pingsUnanswered += 1
      this.#send(keepalive.program, keepalive.version, keepalive.ping, PACKET_TYPES.message, 0, Buffer.alloc(0))
    }, intervalMs)
  }

  /** Ends the link; calls that are still open are rejected with `closed`. */
  close(): void {
    this.#end(new ConnectionError('closed', 'the connection to libvirt was closed'))
  }

  #pump(): void {
    while (this.#inFlight.size < this.#options.maxInFlight) {
      const call = this.#queue.shift()
      if (!call) return
      this.#serial = (this.#serial % 0xffffffff) + 1
      this.#inFlight.set(this.#serial, call)
      call.sent?.(this.#serial)
      const { program, number } = procedureOf(call.procedure)
      this.#send(program, protocol.version, number, PACKET_TYPES.call, this.#serial, call.payload)
    }
  }

  #send(program: number, version: number, procedure: number, type: number, serial: number, payload: Buffer): void {
    this.#socket.write(encodePacket({ program, version, procedure, type, serial, status: PACKET_STATUS.ok, payload }))
  }

  #expire(call: Call, deadlineMs: number): void {
    const waiting = this.#queue.indexOf(call)
    if (waiting >= 0) this.#queue.splice(waiting, 1)
    const { procedure } = call
    const message = `libvirt did not answer ${procedure} within ${deadlineMs} ms`
    const sent = waiting < 0
    const released = sent
      ? new Promise<void>(resolve => {
          call.release = resolve
        })
      : Promise.resolve()
    call.settle?.reject(new ConnectionError('deadline', message, { procedure, sent, released }))
    call.settle = undefined
  }

  #receive(chunk: Buffer): void {
    this.#pingsUnanswered = 0
    try {
      for (const packet of this.#reader.push(chunk)) this.#take(packet)
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause)
      this.#end(new ConnectionError('protocol', `libvirt sent something unreadable: ${why}`, { cause }))
    }
  }

  #take(packet: Packet): void {
    if (packet.program === keepalive.program) {
      if (packet.procedure !== keepalive.ping) return
      this.#send(keepalive.program, keepalive.version, keepalive.pong, PACKET_TYPES.message, 0, Buffer.alloc(0))
      return
    }
    if (!programs.includes(packet.program)) return
    if (packet.type === PACKET_TYPES.reply) this.#answer(packet)
    if (packet.type === PACKET_TYPES.stream) this.#streams.take(packet)
    if (packet.type === PACKET_TYPES.message) {
      const event = eventByNumber(packet.procedure)
      if (event) this.onEvent(event.name, decode(event.layout, packet.payload))
    }
  }

  #answer({ serial, status, payload }: Packet): void {
    const call = this.#inFlight.get(serial)
    if (!call) return
    this.#inFlight.delete(serial)
    clearTimeout(call.timer)
    call.release()
    if (call.settle) {
      if (status === PACKET_STATUS.ok) {
        // Only this call is to blame for a reply that cannot be read: the packet itself was whole.
        try {
          call.settle.resolve(call.ret ? decode(call.ret, payload) : undefined)
        } catch (cause) {
          const message = `cannot read libvirt's reply to ${call.procedure}`
          call.settle.reject(new ConnectionError('protocol', message, { procedure: call.procedure, sent: true, cause }))
        }
      } else {
        call.settle.reject(new LibvirtError(decode('error', payload) as WireError, call.procedure))
      }
    }
    this.#pump()
  }

  #end(error: ConnectionError): void {
    if (this.#ended) return
    this.#ended = error
    clearInterval(this.#pinging)
    const sent = [...this.#inFlight.values()]
    for (const call of [...sent, ...this.#queue]) {
      clearTimeout(call.timer)
      call.release()
      const { procedure } = call
      const options = { procedure, sent: sent.includes(call), cause: error }
      call.settle?.reject(new ConnectionError(error.reason, error.message, options))
    }
    this.#streams.end(error)
    this.#inFlight.clear()
    this.#queue = []
    this.#socket.destroy()
    this.onEnd(error)
  }
}
