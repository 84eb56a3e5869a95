/** Images and agents over REST: what is sent on to the node, what is refused at the door, and in which words. */
import * as assert from 'uvu/assert'
import { fakeGateway, SERVER, TASK } from '../fake-backend.ts'
import { preparedBackend } from '../gateway-samples.ts'
import { suite } from '../suite.ts'

const test = suite('gateway: images and agents')
const path = `/servers/${SERVER}`
const sha256 = 'A'.repeat(64)
const url = 'http://images.example.com/a'

function made() {
  const backend = preparedBackend()
  const { ask } = fakeGateway(backend)
  const sent = () => backend.calls.find(({ verb }) => verb === 'task_add')?.params as Record<string, unknown>
  return { ask, backend, sent }
}

test('ensure-image by POST becomes a task with what was said, digests in lower case, peers left out', async () => {
  const { ask, sent } = made()
  const body = { image_uuid: 'debian-12', zfs_storage_pool_name: 'zones', imgapiPeers: [{}], url, sha256 }
  const { status, body: answer } = await ask('POST', `${path}/ensure-image`, { body })
  assert.is(status, 200)
  assert.is(answer.id, sent()['task_id'])
  assert.is(sent()['task'], 'image_ensure_present')
  const { imgapiPeers: _, ...rest } = body
  assert.equal(sent()['params'], { ...rest, sha256: sha256.toLowerCase() })
})

test('ensure-image by GET, as the document has it, does the same', async () => {
  const { ask, sent } = made()
  const { status } = await ask(
    'GET',
    `${path}/ensure-image?image_uuid=debian-12&url=${url}&sha1=${'b'.repeat(40)}&size=7`,
  )
  assert.is(status, 200)
  assert.equal(sent()['params'], { image_uuid: 'debian-12', url, sha1: 'b'.repeat(40), size: 7 })
})

test('a manifest\u2019s files say the checksum too', async () => {
  const { ask, sent } = made()
  const files = [{ sha1: 'c'.repeat(40), size: 5, compression: 'gzip', stor: 'local' }]
  await ask('POST', `${path}/ensure-image`, { body: { image_uuid: 'a', url, files } })
  assert.equal(sent()['params'], { image_uuid: 'a', url, sha1: 'c'.repeat(40), size: 5, compression: 'gzip' })
})

const refused: [string, object, string][] = [
  ['no image', {}, 'image_uuid'],
  ['a name that is a path', { image_uuid: '../etc/passwd' }, 'image_uuid'],
  ['an address of another kind', { image_uuid: 'a', url: 'file:///etc/passwd', sha256 }, 'url'],
  ['an address without a checksum', { image_uuid: 'a', url }, 'sha256'],
  ['a checksum that is none', { image_uuid: 'a', url, sha256: 'abc' }, 'sha256'],
  ['an unknown compression', { image_uuid: 'a', url, sha256, compression: 'rar' }, 'compression'],
  ['an unknown format', { image_uuid: 'a', url, sha256, format: 'vmdk' }, 'format'],
  ['peers that are no list', { image_uuid: 'a', imgapiPeers: 'x' }, 'imgapiPeers'],
]
for (const [what, body, field] of refused) {
  test(`ensure-image refuses ${what}, and nothing is sent`, async () => {
    const { ask, sent } = made()
    const answer = await ask('POST', `${path}/ensure-image`, { body })
    assert.is(answer.status, 400, answer.text)
    assert.is(answer.body.code, 'InvalidParameters')
    assert.is(answer.body.errors[0].field, field)
    assert.is(sent(), undefined)
  })
}

test('ensure-image is strict: an unknown parameter is 409', async () => {
  const { ask } = made()
  assert.is((await ask('POST', `${path}/ensure-image`, { body: { image_uuid: 'a', pool: 'x' } })).status, 409)
})

test('ImageGet shows what the node says, and an image it does not have is CNAPI\u2019s 404', async () => {
  const { ask, backend } = made()
  const image = { uuid: 'a', name: 'a', format: 'qcow2', size: 1, allocated_bytes: 1, used_by: 0 }
  backend.outcome = { status: 'complete', history: [{ name: 'finish', timestamp: '', event: image }] } as never
  const found = await ask('GET', `${path}/images/a?jobid=x`)
  assert.equal([found.status, found.body], [200, image])
  const other = made()
  other.backend.outcome = { status: 'failure', error: { code: 'ImageNotFound', message: 'no' } }
  const absent = await other.ask('GET', `${path}/images/a`)
  assert.equal([absent.status, absent.body.code], [404, 'ResourceNotFound'])
})

test('an image in use is not deleted, and the answer says by whom', async () => {
  const { ask, backend } = made()
  backend.outcome = { status: 'failure', error: { code: 'ImageInUse', message: 'image a is used by b' } }
  const answer = await ask('DELETE', `${path}/images/a`)
  assert.equal([answer.status, answer.body.code, answer.body.message], [409, 'ImageInUse', 'image a is used by b'])
})

test('install-agent takes an address with its checksum, or an image of the image service', async () => {
  for (const body of [
    { url, sha256: sha256.toLowerCase() },
    { image_uuid: TASK, package_name: 'firewaller' },
  ]) {
    const { ask, sent } = made()
    assert.is((await ask('POST', `${path}/install-agent`, { body })).status, 200)
    assert.equal([sent()['task'], sent()['params']], ['agent_install', body])
  }
  for (const [body, field] of [
    [{}, 'image_uuid'],
    [{ url }, 'sha256'],
    [{ url, sha256, package_name: '../x' }, 'package_name'],
  ] as const) {
    const { ask, sent } = made()
    const answer = await ask('POST', `${path}/install-agent`, { body })
    assert.equal([answer.status, answer.body.errors?.[0]?.field, sent()], [400, field, undefined])
  }
})

test('uninstall-agents asks a new enough agent only, and says which is needed', async () => {
  const { ask, backend, sent } = made()
  const body = { agents: ['firewaller'] }
  backend.put.server({ agents: [{ name: 'cn-agent', version: '2.7.9' }] })
  const old = await ask('POST', `${path}/uninstall-agents`, { body })
  assert.is(old.status, 412)
  assert.is(
    old.body.message,
    `cn-agent (v2.7.9) on server ${SERVER} does not support "agents_uninstall": require at least cn-agent v2.8.0`,
  )
  backend.put.server({ agents: [] })
  assert.is((await ask('POST', `${path}/uninstall-agents`, { body })).status, 412, 'no version is no crash')
  backend.put.server({ agents: [{ name: 'cn-agent', version: '2.10.0' }] })
  assert.is((await ask('POST', `${path}/uninstall-agents`, { body })).status, 200)
  assert.equal([sent()['task'], sent()['params']], ['agents_uninstall', body])
})

test.run()
