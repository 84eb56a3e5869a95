/**
 * The address where others reach streams of this node: another agent that sends disks, or a caller who is connected with a guest. Bulk
 * bytes go here over TCP and never over NATS. A connection first sends its token and a line feed; a token opens one stream, once, and
 * lapses. It listens when the first stream is opened.
 */
import { randomBytes, timingSafeEqual } from 'node:crypto'
import { createServer, type Server, type Socket } from 'node:net'
import { HypervisorError } from '../hypervisor.ts'

export interface StreamsOptions {
  /** Where it listens, and what callers are told. */
  host: string
  /** 0: any that is free. */
  port: number
}

export interface StreamWish {
  /** 64 hex digits; absent: a new one. The same token again replaces a stream that nobody has opened. */
  token?: string
  /** How long it may stay unopened, ms. */
  lifetimeMs: number
  /** Gets the connection, with what came after the token still to be read. It is closed when this ends, whichever way. */
  serve(socket: Socket): Promise<void>
}

export interface Streams {
  /** Waits for one connection that shows the token. */
  open(wish: StreamWish): Promise<{ host: string; port: number; token: string }>
  /** The token opens nothing any more; a stream that is open is closed, and has ended when this resolves. */
  revoke(token: string): Promise<void>
  close(): Promise<void>
}

/** Streams that may wait to be opened. */
const waitingMax = 256
/** Connections that have not shown a token yet, and how long they have for it, ms. */
const strangersMax = 64
const introductionMs = 10_000
/** How long closing waits for what was cut off, ms. */
const closeLimitMs = 500
const tokenForm = /^[0-9a-f]{64}$/

export function openStreams({ host, port }: StreamsOptions): Streams {
  const waiting = new Map<string, StreamWish & { timer: NodeJS.Timeout }>()
  const open = new Map<string, { socket: Socket; ended: Promise<void> }>()
  let listening: Promise<Server> | undefined
  let strangers = 0
  let isClosed = false

  function listen(): Promise<Server> {
    listening ??= new Promise<Server>((resolve, reject) => {
      const server = createServer({ pauseOnConnect: true }, meet)
      server.once('error', error => {
        listening = undefined
        reject(
          new HypervisorError('TaskFailed', `cannot listen on ${host}:${port}: ${error.message}`, { cause: error }),
        )
      })
      server.listen({ host, port }, () => resolve(server))
      server.unref()
    })
    return listening
  }

  function meet(socket: Socket): void {
    socket.on('error', () => {})
    if (isClosed || strangers >= strangersMax) {
      socket.destroy()
      return
    }
    strangers += 1
    introduced(socket)
      .finally(() => {
        strangers -= 1
      })
      .then(
        token => serve(socket, token),
        () => socket.destroy(),
      )
  }

  function serve(socket: Socket, token: string): void {
    const known = [...waiting.keys()].find(one => timingSafeEqual(Buffer.from(one), Buffer.from(token)))
    const wish = known === undefined ? undefined : waiting.get(known)
    if (!wish) {
      socket.destroy()
      return
    }
    clearTimeout(wish.timer)
    waiting.delete(token)
    const ended = wish
      .serve(socket)
      .catch(() => {})
      .finally(() => {
        socket.destroy()
        open.delete(token)
      })
    open.set(token, { socket, ended })
  }

  return {
    open: async ({ token = randomBytes(32).toString('hex'), ...wish }) => {
      if (isClosed) throw new HypervisorError('TaskFailed', 'the agent stops')
      const before = waiting.get(token)
      if (!before && waiting.size >= waitingMax) {
        throw new HypervisorError('TooManyWaiting', `${waiting.size} streams of this node wait to be opened already`)
      }
      const address = (await listen()).address()
      if (address === null || typeof address === 'string') throw new TypeError('a TCP server has a port')
      clearTimeout(before?.timer)
      const timer = setTimeout(() => waiting.delete(token), wish.lifetimeMs)
      timer.unref()
      waiting.set(token, { ...wish, timer })
      return { host, port: address.port, token }
    },
    revoke: async token => {
      clearTimeout(waiting.get(token)?.timer)
      waiting.delete(token)
      const served = open.get(token)
      served?.socket.destroy()
      await served?.ended
    },
    close: async () => {
      isClosed = true
      for (const { timer } of waiting.values()) clearTimeout(timer)
      waiting.clear()
      const served = [...open.values()]
      for (const { socket } of served) socket.destroy()
      const all = Promise.all(served.map(({ ended }) => ended))
      // One that hangs in the hypervisor ends with the process.
      await Promise.race([all, new Promise(resolve => setTimeout(resolve, closeLimitMs).unref())])
      const server = await listening?.catch(() => undefined)
      server?.close()
    },
  }
}

/** The token a connection begins with. What follows it stays in the socket. */
function introduced(socket: Socket): Promise<string> {
  return new Promise((resolve, reject) => {
    let read = Buffer.alloc(0)
    const timer = setTimeout(() => done(undefined), introductionMs)
    const done = (token: string | undefined) => {
      clearTimeout(timer)
      socket.off('readable', look)
      socket.off('close', gone)
      if (token !== undefined) resolve(token)
      else reject(new Error('no token'))
    }
    const gone = () => done(undefined)
    const look = () => {
      for (;;) {
        // Byte by byte would be slow for more than a token's length; it never is more.
        const piece: Buffer | null = socket.read(Math.min(65 - read.length, socket.readableLength) || 1)
        if (piece === null) return
        read = Buffer.concat([read, piece])
        if (read.length < 65) continue
        const token = read.subarray(0, 64).toString('latin1')
        return done(read[64] === 0x0a && tokenForm.test(token) ? token : undefined)
      }
    }
    socket.on('readable', look)
    socket.on('close', gone)
    look()
  })
}

/** Connects to another node's stream. Rejects with MigrationInterrupted when nobody is there. */
export function connectStream(
  { host, port, token }: { host: string; port: number; token: string },
  connect: (options: { host: string; port: number }) => Socket,
  signal: AbortSignal,
): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port })
    const fail = (error: Error) => {
      clearTimeout(timer)
      socket.destroy()
      reject(new HypervisorError('MigrationInterrupted', `cannot reach ${host}:${port}: ${error.message}`))
    }
    const timer = setTimeout(() => fail(new Error('no answer')), introductionMs)
    const aborted = () => socket.destroy(new Error('aborted'))
    if (signal.aborted) aborted()
    signal.addEventListener('abort', aborted, { once: true })
    socket.once('close', () => signal.removeEventListener('abort', aborted))
    socket.once('error', fail)
    socket.once('connect', () => {
      clearTimeout(timer)
      socket.off('error', fail)
      socket.on('error', () => {})
      socket.write(`${token}\n`)
      resolve(socket)
    })
  })
}
