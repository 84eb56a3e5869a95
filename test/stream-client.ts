/** A caller of a guest's stream (docs/guest-streams.md): shows the token, sends lines, and gathers what comes until the end. */
import { connect, type Socket } from 'node:net'
import { eventually } from './eventually.ts'

export interface StreamAddress {
  host: string
  port: number
  token: string
}

export interface StreamEnd {
  code?: number
  image?: string
  error?: { code: string; message: string }
}

export interface StreamClient {
  socket: Socket
  send(line: { type: string; data?: string | Uint8Array }): void
  /** What came so far: `data`, `stdout` and `stderr` joined, other lines as they are. */
  text(type: string): Buffer
  // biome-ignore lint/suspicious/noExplicitAny: a test says what it expects of a line
  others(): any[]
  /** The last line; undefined where the connection was closed without one. */
  ended(withinMs?: number): Promise<StreamEnd | undefined>
}

/** `token` replaces the address's. */
export function openStream({ host, port, token: given }: StreamAddress, token: string = given): StreamClient {
  const socket = connect({ host, port })
  let held = ''
  let isClosed = false
  // biome-ignore lint/suspicious/noExplicitAny: as above
  const lines: any[] = []
  socket.on('error', () => {})
  socket.on('close', () => {
    isClosed = true
  })
  socket.setEncoding('utf8')
  socket.on('data', (piece: string) => {
    const parts = (held + piece).split('\n')
    held = parts.pop() ?? ''
    for (const part of parts) lines.push(JSON.parse(part))
  })
  socket.write(`${token}\n`)
  return {
    socket,
    send: ({ type, data }) => {
      const sent = data === undefined ? {} : { data: Buffer.from(data as string).toString('base64') }
      socket.write(`${JSON.stringify({ type, ...sent })}\n`)
    },
    text: type => Buffer.concat(lines.filter(line => line.type === type).map(line => Buffer.from(line.data, 'base64'))),
    others: () => lines.filter(line => !['data', 'stdout', 'stderr', 'end'].includes(line.type)),
    ended: async (withinMs = 10_000) => {
      await eventually(() => isClosed, { withinMs, what: 'the stream being closed' })
      return lines.find(line => line.type === 'end')
    },
  }
}
