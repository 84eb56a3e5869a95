/** Packing images and giving them to an image service: checksums, repeats, refusals, and services that lead elsewhere. */
import { createHash, randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import * as assert from 'uvu/assert'
import { HypervisorError } from '../../hypervisor-agent/hypervisor.ts'
import { type Packed, pack } from '../../hypervisor-agent/images/pack.ts'
import { publish } from '../../hypervisor-agent/images/publish.ts'
import { suite } from '../suite.ts'

const test = suite('packing and publishing images')
const { signal } = new AbortController()
const content = Buffer.concat([randomBytes(200_000), Buffer.alloc(400_000), Buffer.from('the end')])
const folder = mkdtempSync(join(tmpdir(), 'muster-pack-'))
const path = join(folder, 'packed')
const sha = (algorithm: string, bytes: Buffer) => createHash(algorithm).update(bytes).digest('hex')

interface Asked {
  method: string
  url: URL
  body: Buffer
}
let asked: Asked[] = []
let answer: (request: Asked, response: ServerResponse) => void
let web: Server
let service = ''

test.before(async () => {
  web = createServer((request: IncomingMessage, response) => {
    const pieces: Buffer[] = []
    request.on('data', piece => pieces.push(piece))
    request.on('end', () => {
      const { method = '', url = '' } = request
      const one = { method, url: new URL(url, service), body: Buffer.concat(pieces) }
      asked.push(one)
      answer(one, response)
    })
  })
  await new Promise<void>(resolve => web.listen(0, '127.0.0.1', resolve))
  service = `http://127.0.0.1:${(web.address() as AddressInfo).port}`
})
test.after(() => {
  web.close()
  web.closeAllConnections()
  rmSync(folder, { recursive: true, force: true })
})

async function* pieces(): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < content.length; at += 65_536) yield content.subarray(at, at + 65_536)
}
const packed = (compression: 'none' | 'gzip' | 'xz') => pack(pieces(), { path, compression, signal })
const json = (response: ServerResponse, status: number, body: object) =>
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))

async function given(): Promise<Packed> {
  asked = []
  const file = await packed('gzip')
  await publish({ service: `${service}/`, manifest: { uuid: 'made-here', name: 'web' }, path, file }, signal)
  return file
}

async function refused(): Promise<HypervisorError> {
  try {
    await given()
  } catch (error) {
    assert.instance(error, HypervisorError)
    assert.is((error as HypervisorError).code, 'ImageServiceFailed')
    return error as HypervisorError
  }
  throw new Error('it should have been refused')
}

test('a packed file has the size and checksums that are said, in each compression', async () => {
  for (const compression of ['none', 'gzip', 'xz'] as const) {
    const told = await packed(compression)
    const file = readFileSync(path)
    assert.equal(told, { compression, size: file.length, sha1: sha('sha1', file), sha256: sha('sha256', file) })
    if (compression === 'none') assert.ok(file.equals(content))
    if (compression === 'gzip') assert.ok(gunzipSync(file).equals(content))
    if (compression !== 'none') assert.ok(file.length < 300_000, `${compression}: ${file.length}`)
  }
  assert.is((await pack(pieces(), { compression: 'none', signal })).sha1, sha('sha1', content))
})

test('a source that fails leaves no file', async () => {
  async function* broken(): AsyncGenerator<Uint8Array> {
    yield content.subarray(0, 1000)
    throw new HypervisorError('HypervisorUnavailable', 'gone')
  }
  for (const compression of ['none', 'gzip', 'xz'] as const) {
    const error = await pack(broken(), { path, compression, signal }).then(
      () => undefined,
      (reason: unknown) => reason,
    )
    assert.is((error as HypervisorError).code, 'HypervisorUnavailable', `${compression}: ${error}`)
    assert.throws(() => readFileSync(path))
  }
})

test('a service is given manifest, file with checksum, and the word that it is whole, in that order', async () => {
  answer = (_, response) => json(response, 200, {})
  const file = await given()
  assert.equal(
    asked.map(({ method, url }) => [method, url.pathname, url.searchParams.get('action')]),
    [
      ['POST', '/images/made-here', 'import'],
      ['PUT', '/images/made-here/file', null],
      ['POST', '/images/made-here', 'activate'],
    ],
  )
  assert.is(JSON.parse(String(asked[0]?.body)).name, 'web')
  const put = asked[1] as Asked
  assert.is(put.url.searchParams.get('sha1'), sha('sha1', put.body))
  assert.is(put.url.searchParams.get('compression'), 'gzip')
  assert.is(put.body.length, file.size)
  assert.ok(gunzipSync(put.body).equals(content))
})

test('what a service has already is success, so that a repeat after a crash ends well', async () => {
  answer = ({ method, url }, response) => {
    const code = url.searchParams.get('action') === 'import' ? 'ImageUuidAlreadyExists' : 'ImageAlreadyActivated'
    if (method === 'PUT') json(response, 200, {})
    else json(response, 409, { code, message: 'it is there' })
  }
  await given()
  assert.is(asked.length, 3)
})

test('an image that a service has for good is success if it is this one, and a failure if it is another of its name', async () => {
  let there: object = {}
  answer = ({ method, url }, response) => {
    const code = url.searchParams.get('action') === 'import' ? 'ImageUuidAlreadyExists' : 'ImageAlreadyActivated'
    if (method === 'GET') json(response, 200, there)
    else json(response, 409, { code, message: 'it is there' })
  }
  const { sha1 } = await packed('gzip')
  there = { uuid: 'made-here', files: [{ sha1 }] }
  await given()
  for (const other of [{ files: [{ sha1: 'f'.repeat(40) }] }, { files: [] }]) {
    there = { uuid: 'made-here', ...other }
    assert.match((await refused()).message, /it has a file with SHA-1/)
  }
})

test('a refusal is told with the service’s words, and nothing is asked after it', async () => {
  answer = (_, response) => json(response, 403, { code: 'NotImageOwner', message: 'not yours' })
  assert.match((await refused()).message, /403.*not yours/)
  assert.is(asked.length, 1)
})

test('a file that arrived as another one is not made usable', async () => {
  answer = ({ method }, response) => json(response, 200, method === 'PUT' ? { files: [{ sha1: 'f'.repeat(40) }] } : {})
  assert.match((await refused()).message, /SHA-1 ffff/)
  assert.not.ok(asked.some(({ url }) => url.searchParams.get('action') === 'activate'))
})

test('a service that leads elsewhere is not followed', async () => {
  answer = (_, response) => response.writeHead(302, { location: `${service}/secret` }).end()
  await refused()
  assert.is(asked.length, 1)
})

test.run()
