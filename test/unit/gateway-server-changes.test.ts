/** ServerUpdate, ServerDelete, boot parameters and platforms as callers meet them (cnapi-behaviour §1.5, §2.5, §6, §8.1). */
import * as assert from 'uvu/assert'
import { BOOT_MAX_LENGTH } from '../../actors/contract/boot.ts'
import { FORGOTTEN_AT_ONCE } from '../../actors/contract/server.ts'
import { queueKey } from '../../gateway/ids.ts'
import { byRelease, latestOf } from '../../gateway/platforms.ts'
import { fakeGateway, OTHER_SERVER, refusing, SERVER, VM } from '../fake-backend.ts'
import { preparedBackend } from '../gateway-samples.ts'
import { suite } from '../suite.ts'

const test = suite('server changes')
const one = `/servers/${SERVER}`
const unknown = '99999999-9999-4999-8999-999999999999'
const kernels = ['6.1.0-9-amd64', '6.1.0-10-amd64']

function gateway() {
  const made = fakeGateway(preparedBackend())
  const { backend } = made
  backend.put.sysinfo(SERVER, {
    'System Type': 'Linux',
    'Live Image': kernels[0],
    Platforms: kernels.map(name => ({ name })),
  })
  backend.put.server({ uuid: OTHER_SERVER, status: 'unknown' })
  backend.put.sysinfo(OTHER_SERVER, { 'System Type': 'SunOS', 'Live Image': '20260101T000000Z' })
  const sent = () => backend.calls.map(({ kind, id, verb, params }) => [kind, id, verb, params])
  return { ...made, sent }
}

// ServerUpdate.

test('an update passes on what it names, converted, and answers 204', async () => {
  const { ask, sent } = gateway()
  const body = {
    ...{ comments: 'c', datacenter: 'd', default_console: 'vga', serial: 'ttya', rack_identifier: 'r', setup: true },
    ...{ reserved: false, reservoir: true, setting_up: false, traits: { ssd: true }, boot_params: { a: 1 } },
    ...{ reservation_ratio: '0.25', next_reboot: '2026-01-31T12:00:00.000Z', transitional_status: 'rebooting' },
    ...{ boot_platform: kernels[1], agents: [{ name: 'a', version: '1', image_uuid: VM }] },
  }
  assert.is((await ask('POST', one, { body })).status, 204)
  assert.equal(sent(), [['cn', SERVER, 'update', { ...body, reservation_ratio: 0.25 }]])
})

test('what is accepted and changes nothing does not reach the record: ratios, nics, etag_retries; no body is fine', async () => {
  const { ask, sent } = gateway()
  const body = { overprovision_ratios: { cpu: 2, ram: 1.5, disk: 0, io: 1, net: 1 }, nics: [{}], etag_retries: 3 }
  for (const given of [body, {}, undefined]) assert.is((await ask('POST', one, { body: given })).status, 204)
  assert.equal(
    sent(),
    [1, 2, 3].map(() => ['cn', SERVER, 'update', {}]),
  )
})

test('a bad ratio, date or platform is 409 in CNAPI\u2019s words, and nothing is changed', async () => {
  const { ask, sent } = gateway()
  const cases: [object, string][] = [
    [{ overprovision_ratios: { cpus: 1 } }, 'Invalid key cpus'],
    [{ overprovision_ratios: { cpu: '1' } }, 'Invalid type for cpu'],
    [{ overprovision_ratios: { ram: null } }, 'Invalid type for ram'],
    [{ overprovision_ratios: { disk: -1 } }, 'Invalid value for disk'],
    [{ next_reboot: '2026-01-31' }, 'Invalid date for next_reboot; not an ISO date format'],
    [{ next_reboot: 'tomorrow' }, 'Invalid date for next_reboot; not an ISO date format'],
    [{ boot_platform: 'none' }, 'failed to find given platform image, none'],
    [{ boot_platform: '' }, 'failed to find given platform image, '],
    [{ hostname: 'x' }, 'hostname is not an explicitly defined parameter'],
    [{ kernel_flags: {} }, 'kernel_flags is not an explicitly defined parameter'],
    [{ status: 'running' }, 'status is not an explicitly defined parameter'],
  ]
  for (const [body, message] of cases) {
    const { status, body: answer } = await ask('POST', one, { body })
    assert.equal([status, answer], [409, { code: 'InvalidArgument', message }])
  }
  assert.equal(sent(), [])
})

test('a malformed attribute is 400 with its rule, and nothing is changed', async () => {
  const { ask, sent } = gateway()
  const cases: [string, unknown, string][] = [
    ['agents', {}, 'value was not an array'],
    ['traits', [], 'value is not an object. (was: [object Array])'],
    ['traits', null, 'value is not an object. (was: [object Null])'],
    ['boot_params', 'a', 'value is not an object. (was: [object String])'],
    ['comments', ' x', 'value contains leading or trailing whitespace'],
    ['comments', 1, 'value was not a string'],
    ['reserved', 'true', 'value was not true or false'],
    ['setup', null, 'value was not true or false'],
    ['reservation_ratio', 'x', 'value was not a number'],
    ['reservation_ratio', 1.1, 'must be between 0 and 1'],
    ['etag_retries', 'x', 'value was not a number'],
    ['transitional_status', 'poison', "must be 'rebooting' or ''"],
    ['nics', 'x', 'value was not an array'],
  ]
  for (const [field, value, message] of cases) {
    const { status, body } = await ask('POST', one, { body: { [field]: value } })
    assert.equal([status, body.code, body.errors?.[0]], [400, 'InvalidParameters', { field, code: 'Invalid', message }])
  }
  const { status, body } = await ask('POST', one, { body: { agents: [{ name: 'a' }, { name: 1 }, null] } })
  assert.equal([status, body.errors.map((error: { field: string }) => error.field)], [400, ['agents.1', 'agents.2']])
  assert.equal(sent(), [])
})

test('next_reboot is cleared by the empty text', async () => {
  const { ask, sent } = gateway()
  assert.is((await ask('POST', one, { body: { next_reboot: '' } })).status, 204)
  assert.equal(sent(), [['cn', SERVER, 'update', { next_reboot: '' }]])
})

test('changes of an unknown server are 404, of a malformed id 409; what its actor says is passed on', async () => {
  const { ask, backend } = gateway()
  for (const [method, path] of [
    ['POST', '/servers'],
    ['DELETE', '/servers'],
    ['GET', '/boot'],
    ['PUT', '/boot'],
    ['POST', '/boot'],
  ] as const) {
    const missing = await ask(method, `${path}/${unknown}`)
    assert.equal(
      [missing.status, missing.body],
      [404, { code: 'ResourceNotFound', message: `Server ${unknown} not found` }],
    )
    assert.equal((await ask(method, `${path}/nonsense`)).body, {
      code: 'InvalidArgument',
      message: 'Invalid server_uuid',
    })
  }
  for (const [verb, method, path] of [
    ['update', 'POST', one],
    ['delete', 'DELETE', one],
    ['boot_set', 'PUT', `/boot/${SERVER}`],
    ['boot_update', 'POST', `/boot/${SERVER}`],
  ] as const) {
    backend.answers.set(`cn.${verb}`, refusing('ServiceUnavailableError'))
    assert.is((await ask(method, path)).status, 503, path)
  }
})

// The record `default`.

test('`default` shows its boot parameters wherever a server is read, takes no attributes and is not deleted', async () => {
  const { ask, backend, sent } = gateway()
  const fields = { boot_params: { a: 1 }, kernel_flags: {}, default_console: 'vga', serial: '', boot_platform: '' }
  backend.defaults = fields
  const { status, body } = await ask('GET', '/servers/default')
  assert.equal([status, body.uuid, body.boot_params, body.default_console], [200, 'default', { a: 1 }, 'vga'])
  const list = await ask('GET', '/servers')
  assert.not.ok(list.body.some(({ uuid }: { uuid: string }) => uuid === 'default'))
  for (const [method, why] of [
    ['POST', 'change them at /boot/default'],
    ['DELETE', 'PUT /boot/default empties them'],
  ] as const) {
    const refused = await ask(method, '/servers/default', { body: {} })
    assert.equal([refused.status, refused.body.code], [409, 'InvalidArgument'])
    assert.match(refused.body.message, why)
  }
  assert.equal(sent(), [])
})

test('a sysinfo registers a server with the defaults there are', async () => {
  const { ask, backend, sent } = gateway()
  await ask('POST', `${one}/sysinfo`, { body: { sysinfo: {} } })
  const fields = { boot_params: {}, kernel_flags: {}, default_console: 'vga', serial: '', boot_platform: '' }
  backend.defaults = fields
  await ask('POST', `${one}/sysinfo`, { body: { sysinfo: {} } })
  assert.equal(sent(), [
    ['cn', SERVER, 'register', { sysinfo: {} }],
    ['cn', SERVER, 'register', { sysinfo: {}, defaults: fields }],
  ])
  // Node agents of the old sort take a 404 for a reason never to try again.
  backend.answers.set('cn.register', refusing('ResourceNotFound'))
  assert.is((await ask('POST', `${one}/sysinfo`, { body: { sysinfo: {} } })).status, 503)
})

// Boot parameters.

test('a boot server gets the platform, arguments with the hostname, flags, modules, console and serial', async () => {
  const { ask, backend } = gateway()
  const boot_modules = [{ path: 'etc/a', type: 'base64', content: 'YQ==' }]
  backend.put.server({
    ...{ hostname: 'alpha', boot_platform: kernels[1]!, boot_params: { a: '1', hostname: 'stored' }, boot_modules },
    ...{ kernel_flags: { '-k': true }, default_console: 'serial', serial: 'ttyb' },
  })
  assert.equal((await ask('GET', `/boot/${SERVER}`)).body, {
    platform: kernels[1],
    kernel_args: { a: '1', hostname: 'alpha' },
    kernel_flags: { '-k': true },
    boot_modules,
    default_console: 'serial',
    serial: 'ttyb',
  })
  backend.put.server({ hostname: 'alpha', boot_platform: '', default_console: '', serial: '' })
  assert.equal((await ask('GET', `/boot/${SERVER}`)).body, {
    kernel_args: { hostname: 'alpha' },
    kernel_flags: {},
    boot_modules: [],
  })
})

test('the defaults are readable before anybody has set them, and have no hostname', async () => {
  const { ask, backend } = gateway()
  const initial = { kernel_args: {}, kernel_flags: {}, boot_modules: [], default_console: 'serial', serial: 'ttyb' }
  assert.equal((await ask('GET', '/boot/default')).body, initial)
  backend.defaults = { boot_platform: 'p', boot_params: { b: 2 }, kernel_flags: {}, default_console: '', serial: '' }
  assert.equal((await ask('GET', '/boot/default')).body, {
    platform: 'p',
    kernel_args: { b: 2 },
    kernel_flags: {},
    boot_modules: [],
  })
})

const modules = [{ path: 'etc/ppt..aliases/super...fancy.name', content: 'YQ==' }]
const stored = [{ path: modules[0]!.path, type: 'base64', content: 'YQ==' }]

test('PUT sends everything, 204 for the defaults and 202 for a server', async () => {
  const { ask, sent } = gateway()
  const body = {
    ...{ platform: kernels[0], kernel_args: { a: null }, kernel_flags: { '-k': true }, boot_modules: modules },
    ...{ default_console: 'vga', serial: 'ttya', whatever: 1 },
  }
  const { whatever: _, ...change } = body
  assert.is((await ask('PUT', '/boot/default', { body })).status, 204)
  assert.is((await ask('PUT', `/boot/${SERVER}`, { body })).status, 202)
  assert.equal(
    sent(),
    ['default', SERVER].map(id => ['cn', id, 'boot_set', { ...change, boot_modules: stored }]),
  )
})

test('PUT without a platform empties the one of the defaults, and gives a server the latest that it has itself', async () => {
  const { ask, sent } = gateway()
  await ask('PUT', '/boot/default', { body: {} })
  await ask('PUT', `/boot/${SERVER}`, { body: { boot_params: { a: 1 }, kernel_values: { '-v': true } } })
  await ask('PUT', `/boot/${OTHER_SERVER}`, { body: {} })
  assert.equal(sent(), [
    ['cn', 'default', 'boot_set', {}],
    ['cn', SERVER, 'boot_set', { platform: kernels[1], kernel_args: { a: 1 }, kernel_flags: { '-v': true } }],
    ['cn', OTHER_SERVER, 'boot_set', { platform: '20260101T000000Z' }],
  ])
})

test('POST sends what is given: null console is none, an empty one says nothing, `params` stands for kernel_args', async () => {
  const { ask, sent } = gateway()
  assert.is((await ask('POST', '/boot/default', { body: { kernel_flags: { '-k': null } } })).status, 204)
  const given = [
    { default_console: null, serial: '' },
    { params: { a: 1 } },
    { kernel_args: { b: 1 }, params: { a: 1 } },
  ]
  for (const body of given) assert.is((await ask('POST', `/boot/${SERVER}`, { body })).status, 202)
  assert.equal(sent(), [
    ['cn', 'default', 'boot_update', { kernel_flags: { '-k': null } }],
    ['cn', SERVER, 'boot_update', { default_console: '' }],
    ['cn', SERVER, 'boot_update', { kernel_args: { a: 1 } }],
    ['cn', SERVER, 'boot_update', { kernel_args: { b: 1 } }],
  ])
})

const everyWrite = (['PUT', 'POST'] as const).flatMap(method =>
  ['/boot/default', `/boot/${SERVER}`].map(path => [method, path] as const),
)

test('an unknown platform is refused by all four writes', async () => {
  const { ask, sent } = gateway()
  for (const [method, path] of everyWrite) {
    for (const platform of ['latest', 'none']) {
      const { status, body } = await ask(method, path, { body: { platform } })
      assert.equal([status, body], [409, { code: 'InvalidArgument', message: `Platform '${platform}' does not exist` }])
    }
  }
  assert.equal(sent(), [])
})

test('flags and arguments must be objects: texts are not spread into letters', async () => {
  const { ask, sent } = gateway()
  for (const [method, path] of everyWrite) {
    for (const body of [{ kernel_flags: '-k' }, { kernel_args: [] }, { platform: ' x' }, { boot_modules: {} }]) {
      const { status, body: answer } = await ask(method, path, { body })
      assert.equal([status, answer.code], [400, 'InvalidParameters'], `${method} ${path} ${JSON.stringify(body)}`)
    }
  }
  assert.is((await ask('PUT', `/boot/${SERVER}`, { body: { serial: null } })).status, 400)
  assert.equal(sent(), [])
})

test('every problem of boot modules is told, one for each module, by all four writes', async () => {
  const { ask, sent } = gateway()
  const content = (bytes: number) => Buffer.alloc(bytes).toString('base64')
  const boot_modules = [
    { path: 'a', content: 'YQ==', type: 'gzip' },
    { path: 'a' },
    { content: 'YQ==' },
    'text',
    null,
    { path: 'etc/../a', content: 'YQ==' },
    { path: './a', content: 'YQ==' },
    { path: 'a', content: content(4097) },
    { path: 'a', content: `${content(5000)}*` },
    { path: 'a', content: 'not base64!' },
    { path: 'fine', content: content(4096) },
  ]
  const wanted = [
    /^Unsupported type gzip for module 'a'$/,
    ...[1, 2, 3, 4].map(() => /^Unexpected format for boot_module: /),
    ...[5, 6].map(() => /^Invalid path for boot_module: '/),
    ...[7, 8].map(() => /exceeds the maximum allowed size of 4KB$/),
    /^Contents for module 'a' must be base64 encoded$/,
  ]
  for (const [method, path] of everyWrite) {
    const { status, body } = await ask(method, path, { body: { boot_modules } })
    assert.equal([status, body.code], [409, 'InvalidArgument'])
    const prefix = 'Values provided for boot_modules contain errors: '
    assert.ok(body.message.startsWith(prefix))
    const told = body.message.slice(prefix.length).split(',\n')
    assert.is(told.length, wanted.length)
    for (const [at, form] of wanted.entries()) assert.match(told[at], form)
  }
  assert.equal(sent(), [])
})

test('a body larger than boot parameters may be is refused before it is read', async () => {
  const { ask } = gateway()
  const body = { kernel_args: { a: 'x'.repeat(2 * BOOT_MAX_LENGTH) } }
  for (const [method, path] of everyWrite) assert.is((await ask(method, path, { body })).status, 413)
  assert.is((await ask('POST', one, { body: { comments: 'x'.repeat(65 * 1024) } })).status, 413)
})

// Platforms.

test('platforms are what all nodes have told; the newest is marked, of each operating system on request', async () => {
  const { ask } = gateway()
  assert.equal((await ask('GET', '/platforms')).body, {
    '20260101T000000Z': { latest: true },
    '6.1.0-10-amd64': {},
    '6.1.0-9-amd64': {},
  })
  assert.equal((await ask('GET', '/platforms?os=TRUE')).body, {
    '20260101T000000Z': { latest: true, os: 'smartos' },
    '6.1.0-10-amd64': { latest: true, os: 'linux' },
    '6.1.0-9-amd64': { os: 'linux' },
  })
  assert.is((await ask('GET', '/platforms?os=FALSE')).text, (await ask('GET', '/platforms')).text)
  assert.is((await ask('GET', '/platforms?os=maybe')).status, 400)
  assert.is((await ask('GET', '/platforms?other=1')).status, 409)
})

test('a fleet without a node has no platforms, and names that are none are left out', async () => {
  const { ask, backend } = fakeGateway()
  assert.equal((await ask('GET', '/platforms')).body, {})
  backend.put.server({})
  backend.put.sysinfo(SERVER, {
    'Live Image': 'mine',
    Platforms: [{ name: '../x' }, { name: '__proto__' }, { name: '' }],
  })
  assert.equal((await ask('GET', '/platforms?os=true')).body, { mine: { latest: true } })
})

test('kernels are ordered by their numbers, candidates before what they lead to', () => {
  const ordered = [
    '4.19.0-27-amd64',
    '5.10.0',
    '6.1.0-9-amd64',
    '6.1.0-10-amd64',
    '6.2-rc1',
    '6.2-rc10',
    '6.2~a',
    '6.2',
    '6.2.1',
    '6.10',
  ]
  for (const [at, name] of ordered.entries()) {
    for (const later of ordered.slice(at + 1)) {
      assert.ok(byRelease(name, later) < 0, `${name} before ${later}`)
      assert.ok(byRelease(later, name) > 0, `${later} after ${name}`)
    }
    assert.is(byRelease(name, name), 0)
  }
  assert.is(latestOf([...ordered].reverse()), '6.10')
  assert.is(latestOf(['joyent_20140421T214627Z', 'joyent_20150421T214627Z', '99.9']), 'joyent_20150421T214627Z')
  assert.is(latestOf([]), undefined)
})

// ServerDelete.

test('a deletion takes its tickets first, then names its VMs and hostnames to its actor', async () => {
  const { ask, backend, sent } = gateway()
  const key = 'abcdef0123456789abcdef0123456789'
  backend.put.host(key, { hostname: 'x', server_uuid: SERVER })
  const scope = { scope: 'vm', id: VM, expires_at: '3000' }
  await ask('POST', `${one}/tickets`, { body: scope })
  backend.calls.length = 0
  const { status, text } = await ask('DELETE', one)
  assert.equal([status, text], [204, ''])
  const [kind, id, verb, params] = sent().at(-1) as [
    string,
    string,
    string,
    { vm_uuids: string[]; host_keys: string[] },
  ]
  assert.equal([kind, id, verb], ['cn', SERVER, 'delete'])
  assert.ok(params.vm_uuids.includes(VM) && params.host_keys.includes(key))
  const before = sent().slice(0, -1)
  assert.ok(before.length > 0 && before.every(([to, , what]) => to === 'waitlist' && what === 'delete'))
  assert.is(before[0]?.[1], queueKey({ server_uuid: SERVER, scope: 'vm', id: VM }))
})

test('a deletion names as many VMs and hostnames as one commit forgets, and says when there are more', async () => {
  const named = async (vmCount: number, hostCount: number) => {
    const { ask, backend, sent } = gateway()
    backend.put.server({ uuid: unknown, status: 'running' })
    const vm = (n: number) => VM.replace(/.{6}$/, String(n).padStart(6, '0'))
    for (let n = 0; n < vmCount; n++) backend.put.vm({ uuid: vm(n), server_uuid: unknown, present: n % 2 === 1 })
    for (let n = 0; n < hostCount; n++)
      backend.put.host(`${n}`.padStart(32, '0'), { hostname: 'x', server_uuid: unknown })
    assert.is((await ask('DELETE', `/servers/${unknown}`)).status, 204)
    const [, , verb, params] = sent().at(-1) as [string, string, string, Record<string, string[]>]
    assert.is(verb, 'delete')
    const { vm_uuids = [], host_keys = [], rest } = params
    return [vm_uuids.length, host_keys.length, rest]
  }
  assert.equal(await named(FORGOTTEN_AT_ONCE, 0), [FORGOTTEN_AT_ONCE, 0, undefined])
  assert.equal(await named(500, 12), [500, 12, undefined])
  assert.equal(await named(500, 13), [500, 12, true])
  assert.equal(await named(FORGOTTEN_AT_ONCE + 1, 3), [FORGOTTEN_AT_ONCE, 0, true])
})

test('a deletion takes no parameters; tickets that cannot be deleted leave the server', async () => {
  const { ask, backend, sent } = gateway()
  assert.equal((await ask('DELETE', `${one}?force=true`)).body, {
    code: 'InvalidArgument',
    message: 'force is not an explicitly defined parameter',
  })
  backend.answers.set('waitlist.delete', refusing('ServiceUnavailableError'))
  assert.is((await ask('DELETE', one)).status, 503)
  assert.not.ok(sent().some(([, , verb]) => verb === 'delete' && sent().at(-1)?.[0] === 'cn'))
})

test('the repeat of a keyed deletion is answered as the first was, also when there is no server any more', async () => {
  const { ask, backend } = gateway()
  const headers = { 'idempotency-key': 'k1' }
  assert.is((await ask('DELETE', `/servers/${unknown}`, { headers })).status, 204)
  assert.equal(backend.calls.at(-1)?.options.key?.value, 'k1')
  backend.answers.set('cn.delete', refusing('ResourceNotFound'))
  const { status, body } = await ask('DELETE', `/servers/${unknown}`, { headers })
  assert.equal([status, body.message], [404, `Server ${unknown} not found`])
  assert.is((await ask('DELETE', `/servers/${unknown}`)).status, 404)
})

test.run()
