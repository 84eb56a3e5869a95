/** Streams to the server: a volume's content arrives whole and in order, and a stream that fails says why. */
import * as assert from 'uvu/assert'
import { eventually } from '../../../test/eventually.ts'
import { suite } from '../../../test/suite.ts'
import { Hypervisor, type StorageVolume } from '../index.ts'
import { FakeServer } from './fake-server.ts'

const test = suite('uploads to a volume')
const pool = { name: 'images', uuid: Buffer.alloc(16) }
const content = Buffer.alloc(1_000_000, 'muster ')

async function* inPieces(size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < content.length; at += size) yield content.subarray(at, at + size)
}

for (const size of [1_000, 400_000]) {
  test(`a volume gets all bytes in their order, given in pieces of ${size}`, () =>
    withVolume(async (volume, server) => {
      await volume.upload(inPieces(size))
      assert.ok(server.streamed.equals(content))
      assert.equal(server.streamsEnded, ['finished'])
    }))
}

test('what the server says in the middle of a stream is the error of the upload', () =>
  withVolume(async (volume, server) => {
    server.streamLimitBytes = 300_000
    assert.match(await reason(volume.upload(inPieces(1_000))), /No space left on device/)
    assert.not.ok(server.streamsEnded.includes('finished'))
  }))

test('a source that fails ends the stream on the server, and the connection goes on', () =>
  withVolume(async (volume, server) => {
    async function* failing(): AsyncGenerator<Uint8Array> {
      yield content.subarray(0, 1_000)
      throw new Error('the disk is broken')
    }
    assert.match(await reason(volume.upload(failing())), /the disk is broken/)
    await eventually(() => server.streamsEnded.includes('aborted'))
    server.streamed = Buffer.alloc(0)
    await volume.upload(inPieces(400_000))
    assert.ok(server.streamed.equals(content))
  }))

test('a connection that is lost in the middle fails the upload', () =>
  withVolume(async (volume, server) => {
    async function* cut(): AsyncGenerator<Uint8Array> {
      yield content
      await server.drop()
      yield content
      await new Promise(() => {})
    }
    assert.match(await reason(volume.upload(cut())), /libvirt/)
  }))

async function withVolume(body: (volume: StorageVolume, server: FakeServer) => Promise<void>): Promise<void> {
  const server = new FakeServer()
  server.answers['storage_pool_lookup_by_name'] = () => ({ pool })
  server.answers['storage_vol_lookup_by_name'] = () => ({ vol: { pool: 'images', name: 'a', key: '/images/a' } })
  server.answers['storage_vol_upload'] = () => undefined
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
