/** Streams of a node: a token opens one of them, once, and disks that cross one arrive whole or are refused. */
import { once } from 'node:events'
import { createConnection } from 'node:net'
import * as assert from 'uvu/assert'
import { receiveDisks, sendDisks } from '../../hypervisor-agent/streams/disks.ts'
import { connectStream, openStreams, type Streams } from '../../hypervisor-agent/streams/streams.ts'
import { suite } from '../suite.ts'

const test = suite('streams between agents')
const never = new AbortController().signal

async function withStreams(body: (streams: Streams) => Promise<void>): Promise<void> {
  const streams = openStreams({ host: '127.0.0.1', port: 0 })
  try {
    await body(streams)
  } finally {
    await streams.close()
  }
}

async function* content(text: string): AsyncGenerator<Uint8Array> {
  for (const letter of text) yield Buffer.alloc(300_000, letter)
}

test('disks arrive as they were sent, and the token opens nothing twice', () =>
  withStreams(async streams => {
    const got: string[] = []
    const lengths: number[] = []
    const write = async (n: number, pieces: AsyncIterable<Uint8Array>) => {
      for await (const piece of pieces) {
        lengths[n] = (lengths[n] ?? 0) + piece.length
        got[n] = (got[n] ?? '') + String.fromCharCode(piece[0] ?? 0)
      }
    }
    const at = await streams.open({ lifetimeMs: 10_000, serve: socket => receiveDisks(socket, 2, write) })
    const sources = ['abcde', 'xyz'].map(text => async () => content(text))
    const digests = await sendDisks(await connectStream(at, createConnection, never), sources, () => {})
    assert.equal(lengths, [1_500_000, 900_000])
    assert.equal(
      got.map(text => [...new Set(text)].join('')),
      ['abcde', 'xyz'],
    )
    assert.equal(
      digests.map(({ bytes }) => bytes),
      lengths,
    )
    const again = sendDisks(await connectStream(at, createConnection, never), sources, () => {})
    assert.is(await codeOf(again), 'MigrationInterrupted')
  }))

test('what the receiver cannot write is the sender\u2019s error', () =>
  withStreams(async streams => {
    const write = async () => {
      throw new Error('the pool is full')
    }
    const at = await streams.open({ lifetimeMs: 10_000, serve: socket => receiveDisks(socket, 1, write) })
    const socket = await connectStream(at, createConnection, never)
    const failed = await sendDisks(socket, [async () => content('abcdefghij')], () => {}).catch(error => error)
    assert.match(failed.message, /the pool is full/)
  }))

test('another token, a revoked one and one that lapsed are cut off', () =>
  withStreams(async streams => {
    let served = 0
    const serve = async () => {
      served += 1
    }
    const revoked = await streams.open({ lifetimeMs: 10_000, serve })
    await streams.revoke(revoked.token)
    const lapsed = await streams.open({ lifetimeMs: 1, serve })
    // Its lifetime is a timer of the service; one that is set later fires later.
    await new Promise(resolve => setTimeout(resolve, 20))
    for (const token of ['f'.repeat(64), revoked.token, lapsed.token, 'GET / HTTP/1.1'.padEnd(64)]) {
      const socket = await connectStream({ ...revoked, token }, createConnection, never)
      socket.resume()
      if (!socket.destroyed) await once(socket, 'close')
    }
    assert.is(served, 0)
  }))

async function codeOf(call: Promise<unknown>): Promise<unknown> {
  return call.then(
    () => undefined,
    error => error.code,
  )
}

test.run()
