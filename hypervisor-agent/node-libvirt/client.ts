/**
 * A connection that lasts: opens links, authenticates, opens the hypervisor's URI, and after a loss does so again with
 * growing pauses, registering the events once more before it says that it is back.
 */
import { EventEmitter } from 'node:events'
import { ConnectionError, LibvirtError } from './errors.ts'
import { Link, type Load } from './link.ts'
import type { EventName, ProcedureName, Procedures } from './protocol.ts'
import type { AuthListRet, ConnectSupportsFeatureRet } from './protocol-types.ts'

/** How to connect. Every deadline is in milliseconds; the values behind the names are the defaults. */
export interface ConnectOptions {
  /** Which hypervisor; `qemu:///system`. */
  uri?: string
  /** libvirtd's (or virtproxyd's) socket; `/run/libvirt/libvirt-sock`. */
  socketPath?: string
  readOnly?: boolean
  /** For one call without a deadline of its own, waiting in the queue included; 60,000. */
  callDeadlineMs?: number
  /** For the socket, and again for each step of opening; 10,000. */
  connectTimeoutMs?: number
  /** Unanswered calls at a time; 4, because the server takes five and one is kept free for closing. */
  maxInFlight?: number
  /** Calls that may wait beyond those; 1,000. */
  maxQueued?: number
  /** Ping after each interval of silence, give up after `count` unanswered ones; 5,000 and 5. False for none. */
  keepalive?: { intervalMs: number; count: number } | false
  /** Pauses before trying again after a loss, doubling from the first to the second; 100 and 5,000. False for never. */
  reconnect?: { minMs: number; maxMs: number } | false
}

export interface CallOptions {
  deadlineMs?: number
}

interface ClientEvents {
  event: [name: EventName, payload: unknown]
  disconnect: [error: ConnectionError]
  reconnect: []
  close: [error: ConnectionError]
}

const authentication = { none: 0, polkit: 2 } as const
const featureKeepalive = 10
const readOnlyFlag = 1

export class Client extends EventEmitter<ClientEvents> {
  readonly options: Required<ConnectOptions>
  #link: Link | undefined
  #closed = false
  #retry: NodeJS.Timeout | undefined
  /** What to do on each new link before it is used: the registrations of events. */
  #registrations: { procedure: ProcedureName; args: unknown }[] = []

  /** The first connection; rejects with ConnectionError or LibvirtError and does not try again. */
  static async connect(options: ConnectOptions): Promise<Client> {
    const client = new Client(options)
    await client.#open()
    return client
  }

  private constructor(options: ConnectOptions) {
    super()
    this.options = {
      uri: 'qemu:///system',
      socketPath: '/run/libvirt/libvirt-sock',
      readOnly: false,
      callDeadlineMs: 60_000,
      connectTimeoutMs: 10_000,
      maxInFlight: 4,
      maxQueued: 1_000,
      keepalive: { intervalMs: 5_000, count: 5 },
      reconnect: { minMs: 100, maxMs: 5_000 },
      ...options,
    }
  }

  get connected(): boolean {
    return this.#link !== undefined
  }

  get load(): Load {
    return this.#link?.load ?? { inFlight: 0, abandoned: 0, queued: 0 }
  }

  /** Any procedure of the protocol table, with the wire's own names and types. */
  async call<Name extends keyof Procedures>(
    procedure: Name,
    args: Procedures[Name]['args'],
    { deadlineMs = this.options.callDeadlineMs }: CallOptions = {},
  ): Promise<Procedures[Name]['ret']> {
    if (!this.#link) {
      const reason = this.#closed ? 'closed' : 'lost'
      throw new ConnectionError(reason, 'not connected to libvirt', { procedure })
    }
    return (await this.#link.call(procedure, args, deadlineMs)) as Procedures[Name]['ret']
  }

  /** A call that opens a stream to the server, followed by these bytes; see `Link.upload`. A loss of the connection fails it. */
  async upload<Name extends keyof Procedures>(
    procedure: Name,
    args: Procedures[Name]['args'],
    pieces: AsyncIterable<Uint8Array>,
    { deadlineMs = this.options.callDeadlineMs }: CallOptions = {},
  ): Promise<void> {
    if (!this.#link) {
      throw new ConnectionError(this.#closed ? 'closed' : 'lost', 'not connected to libvirt', { procedure })
    }
    await this.#link.upload(procedure, args, pieces, deadlineMs)
  }

  /** A call that opens a stream from the server; see `Link.download`. Best on a connection of its own. */
  async *download<Name extends keyof Procedures>(
    procedure: Name,
    args: Procedures[Name]['args'],
    { deadlineMs = this.options.callDeadlineMs }: CallOptions = {},
  ): AsyncGenerator<Buffer> {
    if (!this.#link) {
      throw new ConnectionError(this.#closed ? 'closed' : 'lost', 'not connected to libvirt', { procedure })
    }
    yield* this.#link.download(procedure, args, deadlineMs)
  }

  /** Makes a call now and again on every later connection, before that one counts as open. */
  async register<Name extends keyof Procedures>(procedure: Name, args: Procedures[Name]['args']): Promise<void> {
    await this.call(procedure, args)
    this.#registrations.push({ procedure, args })
  }

  /** Says goodbye and ends for good; open calls are rejected with `closed`. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    clearTimeout(this.#retry)
    const link = this.#link
    if (!link) return
    // The goodbye is a courtesy: a server that hangs must not keep anyone waiting.
    await link.call('connect_close', undefined, 1_000).catch(() => {})
    link.close()
  }

  async #open(): Promise<void> {
    const { connectTimeoutMs, readOnly, uri } = this.options
    const link = await Link.open(this.options)
    let broken: ConnectionError | undefined
    link.onEnd = error => {
      broken = error
    }
    link.onEvent = (name, payload) => {
      // A listener that throws must not look like a fault of the connection.
      queueMicrotask(() => this.emit('event', name, payload))
    }
    try {
      await authenticate(link, connectTimeoutMs)
      const asked = await link.call('connect_supports_feature', { feature: featureKeepalive }, connectTimeoutMs)
      await link.call('connect_open', { name: uri, flags: readOnly ? readOnlyFlag : 0 }, connectTimeoutMs)
      for (const { procedure, args } of this.#registrations) await link.call(procedure, args, connectTimeoutMs)
      if (broken) throw broken
      if (this.#closed) throw new ConnectionError('closed', 'closed while connecting')
      if ((asked as ConnectSupportsFeatureRet).supported && this.options.keepalive) {
        link.startKeepalive(this.options.keepalive)
      }
    } catch (error) {
      link.close()
      throw error
    }
    link.onEnd = error => this.#lost(error)
    this.#link = link
  }

  #lost(error: ConnectionError): void {
    this.#link = undefined
    if (this.#closed || this.options.reconnect === false) {
      this.#closed = true
      this.emit('close', error)
      return
    }
    this.emit('disconnect', error)
    this.#tryAgain(this.options.reconnect.minMs, this.options.reconnect.maxMs)
  }

  #tryAgain(pauseMs: number, maxMs: number): void {
    this.#retry = setTimeout(() => {
      this.#open().then(
        () => this.emit('reconnect'),
        () => {
          if (!this.#closed) this.#tryAgain(Math.min(pauseMs * 2, maxMs), maxMs)
        },
      )
    }, pauseMs)
  }
}

async function authenticate(link: Link, deadlineMs: number): Promise<void> {
  const { types } = (await link.call('auth_list', undefined, deadlineMs)) as AuthListRet
  if (types.length === 0 || types.includes(authentication.none)) return
  if (types.includes(authentication.polkit)) {
    await link.call('auth_polkit', undefined, deadlineMs)
    return
  }
  const error = { code: 45, domain: 0, level: 2, message: `libvirt wants authentication of kind ${types.join(', ')}` }
  throw new LibvirtError(error, 'auth_list')
}
