/**
 * A running guest from one agent to another. The agents exchange one word each: what the source's hypervisor has for the target's, and its
 * answer with a token for each connection that is to come. Then the two hypervisors talk through the agents: each listens and connects on
 * its own loopback only, and a connection here becomes a stream there.
 */
import { createConnection, createServer, type Server, type Socket } from 'node:net'
import { pipeline } from 'node:stream/promises'
import * as v from 'valibot'
import { StreamToken } from '../../actors/contract/migration.ts'
import { HypervisorError } from '../hypervisor.ts'
import type { LiveOffer, LiveRoom } from '../live-migrations.ts'
import { closed, frames, nextWord, sendWord } from './frames.ts'
import { refusalIn, refusalOf } from './refusals.ts'

const Offer = v.object({ definition: v.string(), cookie: v.string() })
const Way = v.array(StreamToken)
/** `ways`: tokens of streams to the target's ports; absent where its hypervisor listens on none. */
const Answer = v.object({ cookie: v.string(), ways: v.optional(v.object({ memory: Way, disks: Way })) })
type Answer = v.InferOutput<typeof Answer>

const loopback = '127.0.0.1'
/** One that waits for the other is silent for hours; a peer that is gone is noticed after about this, ms. */
const keepAliveMs = 30_000

/** The source's side. Rejects with what the target says against it. */
export async function offerLive(socket: Socket, offer: LiveOffer): Promise<Answer> {
  try {
    await sendWord(socket, offer)
    const word = await nextWord(frames(socket))
    const refused = refusalIn(word)
    if (refused) throw refused
    return v.parse(Answer, word)
  } finally {
    socket.destroy()
  }
}

/** The target's side: `prepare` makes room, `openWays` opens streams to its ports. */
export async function answerLive(
  socket: Socket,
  prepare: (offer: LiveOffer) => Promise<LiveRoom>,
  openWays: (ports: NonNullable<LiveRoom['ports']>) => Promise<Answer['ways']>,
): Promise<void> {
  try {
    const offer = v.parse(Offer, await nextWord(frames(socket)))
    const { cookie, ports } = await prepare(offer)
    await sendWord(socket, { cookie, ...(ports ? { ways: await openWays(ports) } : {}) })
    await closed(socket)
  } catch (error) {
    if (!socket.destroyed) await sendWord(socket, refusalOf(error)).catch(() => {})
    throw error
  }
}

export interface Passage {
  /** As the target's, with ports of this node that lead to its own. */
  room: LiveRoom
  /** Lets nothing new in. What has been sent arrives: a hypervisor is done with it when its own node has taken the last of it. */
  end(): void
  /** Cuts what goes through it. */
  close(): void
}

/** On the source: ports of the loopback whose connections go on to the target, each with a token of its own. */
export async function openPassage(
  { cookie, ways }: Answer,
  connect: (token: string) => Promise<Socket>,
): Promise<Passage> {
  if (!ways) return { room: { cookie }, end: () => {}, close: () => {} }
  const open = new Set<Socket>()
  const servers: Server[] = []
  const listen = (tokens: string[]) => {
    const left = [...tokens]
    const server = createServer({ pauseOnConnect: true }, socket => {
      socket.on('error', () => {})
      const token = left.shift()
      if (token === undefined) {
        socket.destroy()
        return
      }
      open.add(socket)
      connect(token)
        .then(onward => joined(socket, onward))
        .catch(() => socket.destroy())
        .finally(() => open.delete(socket))
    })
    servers.push(server)
    return new Promise<number>((resolve, reject) => {
      server.once('error', reject)
      server.listen({ host: loopback, port: 0 }, () => {
        const address = server.address()
        if (address === null || typeof address === 'string') throw new TypeError('a TCP server has a port')
        resolve(address.port)
      })
    })
  }
  const end = () => {
    for (const server of servers) server.close()
  }
  const close = () => {
    end()
    for (const socket of open) socket.destroy()
  }
  try {
    const ports = { memory: await listen(ways.memory), disks: await listen(ways.disks) }
    return { room: { cookie, ports }, end, close }
  } catch (error) {
    close()
    throw new HypervisorError('MigrationInterrupted', `cannot listen on ${loopback}`, { cause: error })
  }
}

/** On the target: a stream that ends in a port of this node. */
export function leadTo(port: number): (socket: Socket) => Promise<void> {
  return socket => {
    const onward = createConnection({ host: loopback, port })
    onward.on('error', () => {})
    return joined(socket, onward)
  }
}

/** Passes on what comes, both ways, until both have ended or one is gone. */
async function joined(one: Socket, other: Socket): Promise<void> {
  for (const socket of [one, other]) {
    // One who has said all may still be told something.
    socket.allowHalfOpen = true
    socket.setNoDelay(true)
    socket.setKeepAlive(true, keepAliveMs)
  }
  try {
    await Promise.all([pipeline(one, other), pipeline(other, one)])
  } finally {
    one.destroy()
    other.destroy()
  }
}
