/** Streams from the server: a volume's content arrives whole and in order however slowly it is read, and a stream that fails says why. */
import * as assert from 'uvu/assert'
import { eventually } from '../../../test/eventually.ts'
import { suite } from '../../../test/suite.ts'
import { Hypervisor, type StorageVolume } from '../index.ts'
import { FakeServer } from './fake-server.ts'

const test = suite('downloads of a volume')
const pool = { name: 'images', uuid: Buffer.alloc(16) }
/** More than a connection holds unread. */
const content = Buffer.alloc(12_000_000, 'muster ')

test('a reader gets all bytes in their order, also one that pauses, and the server is told that all is there', () =>
  withVolume(async (volume, server) => {
    for (const slow of [false, true]) {
      const read: Buffer[] = []
      for await (const piece of volume.download()) {
        read.push(Buffer.from(piece))
        if (slow) await new Promise(resolve => setImmediate(resolve))
      }
      assert.ok(Buffer.concat(read).equals(content))
    }
    assert.equal(server.streamsEnded, ['finished', 'finished'])
  }))

test('what the server says in the middle of a stream is the error of the download', () =>
  withVolume(async (volume, server) => {
    server.streamLimitBytes = 300_000
    assert.match(await reason(all(volume.download())), /Input\/output error/)
  }))

test('a reader who stops ends the stream on the server, and the connection goes on', () =>
  withVolume(async (volume, server) => {
    for await (const piece of volume.download()) if (piece.length > 0) break
    await eventually(() => server.streamsEnded.includes('aborted'))
    assert.is((await all(volume.download())).length, content.length)
  }))

test('a connection that is lost in the middle fails the download', () =>
  withVolume(async (volume, server) => {
    const reading = async () => {
      for await (const piece of volume.download()) if (piece.length > 0) await server.drop()
    }
    assert.match(await reason(reading()), /libvirt/)
  }))

test('a server that sends nothing is given up', () =>
  withVolume(async (volume, server) => {
    server.content = Buffer.alloc(0)
    server.answers['storage_vol_download'] = undefined as never
    assert.match(await reason(all(volume.download({ deadlineMs: 50 }))), /did not answer/)
  }))

async function all(pieces: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const read: Buffer[] = []
  for await (const piece of pieces) read.push(Buffer.from(piece))
  return Buffer.concat(read)
}

async function withVolume(body: (volume: StorageVolume, server: FakeServer) => Promise<void>): Promise<void> {
  const server = new FakeServer()
  server.content = content
  server.answers['storage_pool_lookup_by_name'] = () => ({ pool })
  server.answers['storage_vol_lookup_by_name'] = () => ({ vol: { pool: 'images', name: 'a', key: '/images/a' } })
  server.answers['storage_vol_download'] = () => undefined
  await server.listen()
  const hypervisor = await Hypervisor.connect({ socketPath: server.socketPath, reconnect: false })
  try {
    await body(await (await hypervisor.lookupStoragePoolByName('images')).lookupVolume('a'), server)
  } finally {
    await hypervisor.close()
    await server.remove()
  }
}

async function reason(call: Promise<unknown>): Promise<string> {
  try {
    await call
  } catch (error) {
    return (error as Error).message
  }
  throw new Error('it should have failed')
}

test.run()
