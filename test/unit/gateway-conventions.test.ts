/** What every route has in common (cnapi-behaviour §1.1-1.2): parameters, bodies, media types, headers, gates, keys. */
import { gzipSync } from 'node:zlib'
import * as assert from 'uvu/assert'
import { fakeGateway, OTHER_SERVER, refusing, SERVER, VM } from '../fake-backend.ts'
import { preparedBackend } from '../gateway-samples.ts'
import { suite } from '../suite.ts'

const test = suite('HTTP conventions')
const gateway = () => fakeGateway(preparedBackend())
const vms = `/servers/${SERVER}/vms`
const stop = `${vms}/${VM}/stop`
const uuidForm = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/

test('an answer carries Server, x-request-id, x-response-time, x-server-name and its type', async () => {
  const { headers } = await gateway().ask('GET', '/ping')
  assert.is(headers.get('server'), 'muster/1.2.3')
  assert.match(headers.get('x-request-id') ?? '', uuidForm)
  assert.match(headers.get('x-response-time') ?? '', /^\d+$/)
  assert.is(headers.get('x-server-name'), 'here')
  assert.is(headers.get('content-type'), 'application/json')
})

test('a request id is taken from request-id, else x-request-id, echoed, and goes with the command', async () => {
  const { ask, backend } = gateway()
  const first = await ask('POST', stop, { headers: { 'request-id': '12345', 'x-request-id': 'other' } })
  assert.is(first.headers.get('x-request-id'), '12345')
  const second = await ask('POST', stop, { headers: { 'x-request-id': 'not a uuid' } })
  assert.is(second.headers.get('x-request-id'), 'not a uuid')
  assert.equal(
    backend.calls.map(({ options }) => options.reqId),
    ['12345', 'not a uuid'],
  )
  const long = await ask('GET', '/ping', { headers: { 'x-request-id': 'x'.repeat(5000) } })
  assert.is(long.headers.get('x-request-id')?.length, 256)
})

test('204 has neither body nor content type; 200 without a body has no content type', async () => {
  const { ask } = gateway()
  const beat = await ask('POST', `/servers/${SERVER}/events/heartbeat`, { body: {} })
  assert.equal([beat.status, beat.text, beat.headers.get('content-type')], [204, '', null])
  const registered = await ask('POST', `/servers/${SERVER}/sysinfo`, { body: { sysinfo: {} } })
  assert.equal([registered.status, registered.text, registered.headers.get('content-type')], [200, '', null])
})

test('the first of path, query and body wins', async () => {
  const { ask, backend } = gateway()
  await ask('POST', `${stop}?timeout=1`, { body: { timeout: 2, force: true, uuid: OTHER_SERVER, server_uuid: 'x' } })
  const [call] = backend.calls
  assert.is(call?.id, VM)
  assert.equal(call?.params['params'], { timeout: 1, force: true })
})

test('JSON, forms and empty bodies are accepted, compressed or not', async () => {
  const { ask, backend } = gateway()
  const form = { 'content-type': 'application/x-www-form-urlencoded' }
  assert.is((await ask('POST', stop, { body: 'force=TRUE&timeout=5', headers: form })).status, 200)
  assert.is((await ask('POST', stop)).status, 200)
  assert.is(
    (
      await ask('POST', stop, {
        body: '{"force":false}',
        headers: { 'content-type': 'Application/JSON; charset=utf-8' },
      })
    ).status,
    200,
  )
  assert.equal(
    backend.calls.map(({ params }) => params['params']),
    [{ force: true, timeout: 5 }, {}, { force: false }],
  )
})

test('a gzipped body is read, and a bomb is refused before it is unpacked', async () => {
  const { app, backend } = gateway()
  const send = (bytes: Buffer) =>
    app.request(stop, {
      method: 'POST',
      body: bytes,
      headers: {
        'content-type': 'application/json',
        'content-encoding': 'gzip',
        'content-length': String(bytes.length),
      },
    })
  assert.is((await send(gzipSync('{"force":true}'))).status, 200)
  assert.equal(backend.calls[0]?.params['params'], { force: true })
  assert.is((await send(gzipSync(Buffer.alloc(50 * 1024 * 1024, ' ')))).status, 413)
  assert.is((await send(Buffer.from('not gzip'))).status, 400)
})

test('other body types are 415, also without a type', async () => {
  const { ask } = gateway()
  for (const type of ['text/plain', 'application/xml', 'multipart/form-data; boundary=x', '']) {
    const { status, body } = await ask('POST', stop, { body: 'x', headers: { 'content-type': type } })
    assert.equal([status, body.code], [415, 'UnsupportedMediaType'], type)
  }
  const encoded = await ask('POST', stop, { body: '{}', headers: { 'content-encoding': 'br' } })
  assert.is(encoded.status, 415)
})

test('malformed JSON is 400 InvalidContent and says Invalid JSON', async () => {
  for (const text of ['{"a":', '[1]', '"text"', 'null', '12', `{"a":${'['.repeat(5000)}${']'.repeat(5000)}}`]) {
    const { status, body } = await gateway().ask('POST', stop, { body: text })
    assert.equal([status, body.code], [400, 'InvalidContent'], text.slice(0, 20))
    assert.match(body.message, /^Invalid JSON: /)
  }
})

test('brackets inside of strings are no nesting', async () => {
  const { ask } = gateway()
  const text = JSON.stringify({ ram: 1, tags: { a: `\\"${'['.repeat(5000)}` } })
  assert.is((await ask('POST', vms, { body: text })).status, 200)
})

test('a body over 1 MiB is 413, whether its length is told or not', async () => {
  const { ask, app } = gateway()
  const big = JSON.stringify({ a: 'x'.repeat(1024 * 1024) })
  assert.is((await ask('POST', stop, { body: big })).status, 413)
  const chunked = { 'content-type': 'application/json', 'transfer-encoding': 'chunked' }
  const response = await app.request(stop, { method: 'POST', body: big, headers: chunked })
  assert.is(response.status, 413)
  assert.is(((await response.json()) as { code: string }).code, 'PayloadTooLarge')
  const small = await app.request(stop, { method: 'POST', body: '{"force":true}', headers: chunked })
  assert.is(small.status, 200)
})

test('a body that ends early is 400, and no failure of ours', async () => {
  const { app, errors } = gateway()
  const body = new ReadableStream({ start: controller => controller.error(new Error('aborted')) })
  const headers = { 'content-type': 'application/json', 'transfer-encoding': 'chunked' }
  const response = await app.request(stop, { method: 'POST', body, headers, duplex: 'half' } as RequestInit)
  assert.is(response.status, 400)
  assert.is(errors.length, 0)
})

test('text/plain gives JSON text for objects and the bare message for errors', async () => {
  const { ask } = gateway()
  const good = await ask('GET', '/ping', { headers: { accept: 'text/plain' } })
  assert.is(good.headers.get('content-type'), 'text/plain')
  assert.is(good.body.ready, true)
  const bad = await ask('GET', `/servers/${VM}`, { headers: { accept: 'text/plain' } })
  assert.equal([bad.status, bad.text], [404, `Server ${VM} not found`])
})

test('the best acceptable type is chosen by weight, and none is 406', async () => {
  const { ask } = gateway()
  const types: [string, string | null][] = [
    ['*/*', 'application/json'],
    ['application/*', 'application/json'],
    ['text/html, application/json;q=0.5', 'application/json'],
    ['text/plain, application/json;q=0.5', 'text/plain'],
    ['text/*', 'text/plain'],
    ['application/json;q=0, */*', 'text/plain'],
    ['image/png', null],
    ['application/json;q=0', null],
  ]
  for (const [accept, type] of types) {
    const { status, headers, body } = await ask('GET', '/ping', { headers: { accept } })
    if (type) assert.equal([status, headers.get('content-type')], [200, type], accept)
    else assert.equal([status, body.code], [406, 'NotAcceptable'], accept)
  }
})

test('an unknown path is 404 and names it; another method is 405 with Allow, HEAD and OPTIONS too', async () => {
  const { ask } = gateway()
  const lost = await ask('GET', '/no/such?x=1')
  assert.equal([lost.status, lost.body], [404, { code: 'ResourceNotFound', message: '/no/such does not exist' }])
  for (const method of ['DELETE', 'PUT', 'PATCH', 'OPTIONS']) {
    const { status, body, headers } = await ask(method, vms)
    assert.equal([status, body.code, body.message], [405, 'MethodNotAllowedError', `${method} is not allowed`])
    assert.is(headers.get('allow'), 'GET, POST')
  }
  const head = await ask('HEAD', vms)
  assert.equal([head.status, head.headers.get('allow')], [405, 'GET, POST'])
})

test('a trailing slash makes no difference', async () => {
  const { ask, backend } = gateway()
  assert.is((await ask('GET', '/servers/')).status, 200)
  assert.is((await ask('GET', '/host/one.example.com/')).status, 204)
  assert.is((await ask('POST', '/host/two.example.com/', { body: { memory: 1, disks: [], networks: [] } })).status, 201)
  assert.is((await ask('GET', '/host/one.example.com/network/net0/')).status, 204)
  assert.is(backend.calls.filter(({ kind }) => kind === 'host').length, 1)
})

test('gates come in order: server id, server, vm id, running, vm, unknown parameters, parameters', async () => {
  const { ask, backend } = gateway()
  const codes: [string, number, string][] = [
    ['/servers/zzz?bogus=1', 409, 'Invalid server_uuid'],
    [`/servers/${VM}/vms/zzz`, 404, `Server ${VM} not found`],
    [`/servers/${SERVER}/vms/zzz`, 409, 'Invalid vm_uuid'],
    [`/servers/${SERVER}/vms/${SERVER}`, 404, `VM ${SERVER} not found`],
    [`/servers/${SERVER}?bogus=1`, 409, 'bogus is not an explicitly defined parameter'],
    ['/servers?limit=x&bogus=1', 409, 'bogus is not an explicitly defined parameter'],
  ]
  for (const [path, status, message] of codes) {
    const answer = await ask('GET', path)
    assert.equal([answer.status, answer.body.message], [status, message], path)
  }
  backend.put.server({ status: 'unknown' })
  const order: [string, number, string][] = [
    [`${vms}/zzz/stop`, 409, 'Invalid vm_uuid'],
    [`${vms}/${SERVER}/stop`, 409, 'Operation attempted on server which is not running'],
    [`${stop}?timeout=x`, 409, 'Operation attempted on server which is not running'],
  ]
  for (const [path, status, message] of order) {
    const answer = await ask('POST', path)
    assert.equal([answer.status, answer.body.message], [status, message], path)
  }
})

test('a VM of another server is not found, nor is a destroyed one, unless the request may be a repeat', async () => {
  const { ask, backend } = gateway()
  backend.put.vm({ server_uuid: OTHER_SERVER })
  assert.is((await ask('POST', stop)).status, 404)
  backend.put.vm({ state: 'destroyed', present: false })
  assert.is((await ask('DELETE', `${vms}/${VM}`)).status, 404)
  assert.is((await ask('DELETE', `${vms}/${VM}`, { headers: { 'idempotency-key': 'again' } })).status, 200)
})

test('what the view does not have yet is asked of the leader before it is refused', async () => {
  const { ask, backend } = gateway()
  const server = backend.servers.get(SERVER)
  backend.servers.get = () => (server ? { ...server, status: 'unknown' } : undefined)
  backend.vms.get = () => undefined
  assert.is((await ask('POST', stop)).status, 200)
})

test('UUIDs in any case are the same', async () => {
  const { ask, backend } = gateway()
  const mixed = 'ABCDEFab-1111-4111-8111-111111111111'
  backend.put.server({ uuid: mixed.toLowerCase() })
  backend.put.vm({ uuid: 'ffffffff-3333-4333-8333-333333333333', server_uuid: mixed.toLowerCase() })
  const { status } = await ask('POST', `/servers/${mixed}/vms/FFFFFFFF-3333-4333-8333-333333333333/stop`)
  assert.is(status, 200)
  assert.is(backend.calls[0]?.id, 'ffffffff-3333-4333-8333-333333333333')
})

test('all failed rules are told at once, in the order of the table', async () => {
  const { status, body } = await gateway().ask('POST', stop, {
    body: { jobid: 1, force: 'yes', timeout: -1, idempotent: null },
  })
  assert.is(status, 400)
  assert.equal(body, {
    code: 'InvalidParameters',
    message: 'Request parameters failed validation',
    errors: [
      { field: 'jobid', code: 'Invalid', message: 'value was not a string' },
      { field: 'idempotent', code: 'Invalid', message: "value was not 'true' or 'false'" },
      { field: 'force', code: 'Invalid', message: "value was not 'true' or 'false'" },
      { field: 'timeout', code: 'Invalid', message: 'value was not greater than or equal to zero' },
    ],
  })
})

test('an object rule says what it got instead', async () => {
  const { ask } = gateway()
  for (const [value, type] of [
    [[], 'Array'],
    ['x', 'String'],
    [null, 'Null'],
    [1, 'Number'],
    [undefined, 'Undefined'],
  ]) {
    const { body } = await ask('POST', `/servers/${SERVER}/sysinfo`, { body: { sysinfo: value } })
    assert.is(body.errors[0].message, `value is not an object. (was: [object ${type}])`)
  }
})

test('a key of 1 to 255 characters goes to the actor with a digest of the request', async () => {
  const { ask, backend } = gateway()
  const send = (key: string, path = stop, body: object = {}) =>
    ask('POST', path, { body, headers: { 'idempotency-key': key } })
  await send('k')
  await send('k', `${stop}/`)
  await send('k', stop, { force: true })
  await send('k', `${stop}?force=true`)
  await send('k', `${vms}/${VM}/reboot`)
  const prints = backend.calls.map(({ options }) => options.key?.fingerprint)
  assert.is(
    backend.calls.every(({ options }) => options.key?.value === 'k'),
    true,
  )
  assert.is(prints[0], prints[1])
  assert.is(new Set(prints).size, 4)
  for (const key of ['', 'x'.repeat(256)]) {
    const { status, body } = await send(key)
    assert.equal([status, body.errors[0].field], [400, 'Idempotency-Key'])
  }
  assert.is((await send('x'.repeat(255))).status, 200)
})

test('the same key makes the same ids, another verb under it another task, and no key never the same', async () => {
  const { ask, backend } = gateway()
  const create = (headers: Record<string, string>) =>
    ask('POST', vms, { body: { ram: 1, nics: [{ nic_tag: 'a' }, { nic_tag: 'a' }] }, headers })
  const key = { 'idempotency-key': 'create-1' }
  const [one, two, free, other] = [await create(key), await create(key), await create({}), await create({})]
  assert.equal(one.body, two.body)
  assert.is.not(free.body.vm_uuid, other.body.vm_uuid)
  assert.match(one.body.vm_uuid, uuidForm)
  const nics = backend.calls.map(({ params }) =>
    (params['spec'] as { nics: { mac: string }[] }).nics.map(({ mac }) => mac),
  )
  assert.equal(nics[0], nics[1])
  assert.is(new Set(nics.flat()).size, 6)
  const first = await ask('POST', stop, { headers: key })
  const second = await ask('POST', `${vms}/${VM}/reboot`, { headers: key })
  assert.is.not(first.body.id, second.body.id)
})

test('the actor says when a key was used for another request', async () => {
  const { ask, backend } = gateway()
  backend.answers.set('vm.stop', refusing('IdempotencyKeyReused'))
  const { status, body } = await ask('POST', stop, { headers: { 'idempotency-key': 'k' } })
  assert.equal([status, body.code], [422, 'IdempotencyKeyReused'])
})

test('503 says when to try again', async () => {
  const { ask, backend } = gateway()
  backend.answers.set('vm.stop', refusing('ServiceUnavailableError'))
  const { status, headers } = await ask('POST', stop)
  assert.equal([status, headers.get('retry-after')], [503, '1'])
})

test('a bug is answered without its words, and logged once with them', async () => {
  const { ask, backend, errors } = gateway()
  backend.answers.set('vm.stop', () => {
    throw new Error('secret')
  })
  const { status, text } = await ask('POST', stop)
  assert.equal([status, text.includes('secret')], [500, false])
  assert.is(errors.length, 1)
})

test.run()
