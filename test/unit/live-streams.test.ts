/** A running guest between two agents: the offer is answered or refused, and what the two hypervisors say crosses both nodes unchanged. */
import { once } from 'node:events'
import { type AddressInfo, createConnection, createServer, type Server, type Socket } from 'node:net'
import * as assert from 'uvu/assert'
import { HypervisorError } from '../../hypervisor-agent/hypervisor.ts'
import type { LiveOffer, LiveRoom } from '../../hypervisor-agent/live-migrations.ts'
import { offerLive, openPassage, type Passage } from '../../hypervisor-agent/streams/live.ts'
import { openReceptions, type Receptions } from '../../hypervisor-agent/streams/receptions.ts'
import { connectStream, openStreams, type Streams } from '../../hypervisor-agent/streams/streams.ts'
import { eventually } from '../eventually.ts'
import { suite } from '../suite.ts'

const test = suite('running guests between agents')
const never = new AbortController().signal
const token = 'a1'.repeat(32)
const uuid = '0c9f8d8e-7b5b-4a53-9c52-1a2f2f0a0009'
const offer = { definition: '<domain/>', cookie: 'b2ZmZXI=' }

interface Target {
  receptions: Receptions
  streams: Streams
  connect(which: string): Promise<Socket>
  /** Connections that its hypervisor has got: on the port for the memory, and on that for disks. */
  memory: Socket[]
  disks: Socket[]
  offers: LiveOffer[]
}

/** A node whose hypervisor echoes what it is sent. `prepare`: what it answers to an offer in place of its ports. */
async function withTarget(body: (target: Target) => Promise<void>, prepare?: () => Promise<LiveRoom>): Promise<void> {
  const streams = openStreams({ host: '127.0.0.1', port: 0 })
  const [memory, disks]: [Socket[], Socket[]] = [[], []]
  const servers = [await echo(memory), await echo(disks)] as const
  const offers: LiveOffer[] = []
  const ports = { memory: portOf(servers[0]), disks: portOf(servers[1]) }
  const receptions = openReceptions(streams, {
    writeDisk: () => Promise.reject(new Error('no disk is written')),
    prepareLive: async (_, given) => {
      offers.push(given)
      return prepare ? prepare() : { cookie: 'cm9vbQ==', ports }
    },
  })
  const { host, port } = await receptions.expectLive({ uuid, disks: 2, token })
  const connect = (which: string) => connectStream({ host, port, token: which }, createConnection, never)
  try {
    await body({ receptions, streams, connect, memory, disks, offers })
  } finally {
    await streams.close()
    for (const socket of [...memory, ...disks]) socket.destroy()
    for (const server of servers) server.close()
  }
}

async function echo(connections: Socket[]): Promise<Server> {
  const server = createServer(socket => {
    connections.push(socket)
    socket.on('error', () => {})
    socket.pipe(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return server
}
const portOf = (server: Server) => (server.address() as AddressInfo).port

async function passageTo({ connect }: Target): Promise<Passage> {
  return openPassage(await offerLive(await connect(token), offer), connect)
}
const portsOf = ({ room }: Passage) => room.ports as { memory: number; disks: number }

/** What comes back when this is sent and no more. */
async function echoed(port: number, sent: Buffer): Promise<Buffer> {
  const socket = createConnection({ host: '127.0.0.1', port })
  socket.end(sent)
  const read: Buffer[] = []
  for await (const piece of socket) read.push(piece as Buffer)
  return Buffer.concat(read)
}

test('an offer reaches the hypervisor, its answer the source, and bytes cross both ways, memory and each disk apart', () =>
  withTarget(async target => {
    const passage = await passageTo(target)
    assert.equal([target.offers, passage.room.cookie], [[offer], 'cm9vbQ=='])
    const { memory, disks } = portsOf(passage)
    const big = Buffer.alloc(5_000_000, 'muster ')
    const back = await Promise.all([echoed(disks, big), echoed(disks, Buffer.from('b')), echoed(memory, big)])
    assert.ok(back[0].equals(big) && back[2].equals(big))
    assert.is(back[1].toString(), 'b')
    assert.equal([target.memory.length, target.disks.length], [1, 2])
    passage.close()
  }))

test('no connection goes through beyond one for the memory and one for each disk', () =>
  withTarget(async target => {
    const passage = await passageTo(target)
    const { memory, disks } = portsOf(passage)
    for (const port of [memory, disks, disks]) await echoed(port, Buffer.from('x'))
    for (const port of [memory, disks]) {
      const more = createConnection({ host: '127.0.0.1', port })
      more.on('error', () => {})
      await once(more, 'close')
    }
    assert.equal([target.memory.length, target.disks.length], [1, 2])
    passage.close()
  }))

test('the token of the offer opens nothing twice', () =>
  withTarget(async target => {
    await offerLive(await target.connect(token), offer)
    assert.is(await codeOf(target.connect(token).then(socket => offerLive(socket, offer))), 'MigrationInterrupted')
    assert.is(target.offers.length, 1)
  }))

test('what the target says against it is the source\u2019s error', () =>
  withTarget(
    async ({ connect }) => {
      const refused = await offerLive(await connect(token), offer).catch(error => error)
      assert.is(refused.code, 'InsufficientMemory')
      assert.match(refused.message, /the other server: .*1 MiB free/)
    },
    () => Promise.reject(new HypervisorError('InsufficientMemory', 'the server has 1 MiB free')),
  ))

test('a hypervisor of the target that is away is no hypervisor of the source that is away', () =>
  withTarget(
    async ({ connect }) => {
      const refused = await offerLive(await connect(token), offer).catch(error => error)
      assert.is(refused.code, 'MigrationInterrupted')
      assert.match(refused.message, /the other server: .*libvirt is lost/)
    },
    () => Promise.reject(new HypervisorError('HypervisorUnavailable', 'the connection to libvirt is lost')),
  ))

test('a hypervisor that listens nowhere needs no passage', () =>
  withTarget(
    async target => {
      assert.equal((await passageTo(target)).room, { cookie: '' })
    },
    async () => ({ cookie: '' }),
  ))

test('an offer that is none is refused before anything is prepared', () =>
  withTarget(async target => {
    const refused = offerLive(await target.connect(token), { definition: 5 } as never)
    assert.is(await codeOf(refused), 'MigrationInterrupted')
    assert.equal(target.offers, [])
  }))

test('what a hypervisor has sent arrives when it is done, however slowly the other one takes it', () =>
  withTarget(async target => {
    const passage = await passageTo(target)
    const socket = createConnection({ host: '127.0.0.1', port: portsOf(passage).memory })
    socket.on('error', () => {})
    await eventually(() => target.memory[0], { what: 'the way is open' })
    const taker = target.memory[0] as Socket
    taker.unpipe()
    let taken = 0
    taker.on('data', piece => {
      taken += piece.length
    })
    taker.pause()
    const memory = Buffer.alloc(4_000_000, 'muster ')
    socket.end(memory)
    await once(socket, 'finish')
    passage.end()
    const ended = once(taker, 'end')
    taker.resume()
    await ended
    assert.is(taken, memory.length)
  }))

for (const who of ['source', 'target'] as const) {
  test(`what the ${who} cuts ends on both sides`, () =>
    withTarget(async target => {
      const passage = await passageTo(target)
      const { memory } = portsOf(passage)
      const socket = createConnection({ host: '127.0.0.1', port: memory })
      socket.on('error', () => {})
      socket.write('memory')
      await once(socket, 'data')
      const gone = once(socket, 'close')
      if (who === 'source') passage.close()
      else await target.receptions.end(token)
      await gone
      await eventually(() => target.memory[0]?.closed === true, { what: 'the hypervisor hears of it' })
      passage.close()
    }))
}

test('a migration that was ended lets nothing in any more', () =>
  withTarget(async target => {
    const passage = await passageTo(target)
    await target.receptions.end(token)
    for (const port of Object.values(portsOf(passage))) {
      const socket = createConnection({ host: '127.0.0.1', port })
      socket.on('error', () => {})
      await once(socket, 'close')
    }
    assert.equal([target.memory, target.disks], [[], []])
    passage.close()
  }))

const codeOf = (call: Promise<unknown>) =>
  call.then(
    () => undefined,
    error => error.code,
  )

test.run()
