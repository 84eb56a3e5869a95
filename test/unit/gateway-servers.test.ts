/** Servers as CNAPI's clients expect them (cnapi-behaviour §1.5, §2.3, §2.4, §3.2), and the gateway's own pages. */
import * as assert from 'uvu/assert'
import { fakeGateway, OTHER_SERVER, refusing, SERVER, VM } from '../fake-backend.ts'
import { preparedBackend } from '../gateway-samples.ts'
import { suite } from '../suite.ts'

const test = suite('servers')
const one = `/servers/${SERVER}`

function gateway() {
  const made = fakeGateway(preparedBackend())
  const { backend } = made
  backend.put.server({ hostname: 'alpha', ram: 49139, agents: [{ name: 'a', version: '1' }], last_boot: null })
  backend.put.server({ uuid: OTHER_SERVER, hostname: 'beta', status: 'unknown', setup: false, reserved: true })
  backend.put.sysinfo(SERVER, { 'MiB of Memory': '49139', Hostname: 'alpha' })
  backend.put.status(SERVER, {
    vms: { [VM]: { uuid: VM, state: 'stopped', max_physical_memory: 128 } },
    meminfo: { availrmem_bytes: 1, arcsize_bytes: 2, total_bytes: 3 },
    diskinfo: { pool_size_bytes: 4, zone_quota_used_bytes: 5 },
  })
  backend.put.beat(SERVER, Date.parse('2026-01-01T00:00:00Z'))
  return made
}

const uuids = (body: { uuid: string }[]) => body.map(({ uuid }) => uuid)

test('a list is sorted by uuid, without `default`, and has the base properties only', async () => {
  const { status, body } = await gateway().ask('GET', '/servers')
  assert.is(status, 200)
  assert.equal(uuids(body), [SERVER, OTHER_SERVER])
  const [first] = body
  assert.equal([first.hostname, first.status, first.setup, first.ram], ['alpha', 'running', true, 49139])
  for (const name of [
    'last_heartbeat',
    'agents',
    'sysinfo',
    'vms',
    'memory_total_bytes',
    'disk_pool_size_bytes',
    'last_boot',
  ]) {
    assert.not.ok(name in first, name)
  }
})

test('filters are equalities; booleans and uuids in any case', async () => {
  const { ask } = gateway()
  const cases: [string, string[]][] = [
    ['setup=TRUE', [SERVER]],
    ['setup=False', [OTHER_SERVER]],
    ['reserved=true', [OTHER_SERVER]],
    ['headnode=FALSE', [SERVER, OTHER_SERVER]],
    ['hostname=beta', [OTHER_SERVER]],
    ['hostname=none', []],
    [`uuids=${OTHER_SERVER.toUpperCase()},nonsense`, [OTHER_SERVER]],
    ['limit=1', [SERVER]],
    ['limit=1&offset=1', [OTHER_SERVER]],
    ['offset=-5', [SERVER, OTHER_SERVER]],
    ['offset=2', []],
  ]
  for (const [query, expected] of cases)
    assert.equal(uuids((await ask('GET', `/servers?${query}`)).body), expected, query)
})

test('limit outside 1-1000 is 400 in CNAPI\u2019s words', async () => {
  const { ask } = gateway()
  for (const limit of ['0', '1001', '-1']) {
    const { status, body } = await ask('GET', `/servers?limit=${limit}`)
    assert.is(status, 400)
    assert.equal(body.errors, [
      { field: 'limit', code: 'Invalid', message: 'limit must be in the range 1-1000 (inclusive)' },
    ])
  }
  for (const query of ['limit=x', 'offset=1.5', 'extras=a1', 'fields=', 'uuids=a,,b', 'hostname=%20a', 'setup=1']) {
    const { status, body } = await ask('GET', `/servers?${query}`)
    assert.equal([status, body.code], [400, 'InvalidParameters'], query)
  }
})

test('any word of extras, even an unknown one, adds last_heartbeat', async () => {
  const { ask } = gateway()
  const { body } = await ask('GET', '/servers?extras=status')
  assert.is(body[0].last_heartbeat, '2026-01-01T00:00:00.000Z')
  assert.is(body[1].last_heartbeat, null)
  assert.not.ok('sysinfo' in body[0])
})

test('each extra adds its group and no other', async () => {
  const { ask } = gateway()
  const groups = {
    agents: ['agents'],
    memory: ['memory_available_bytes', 'memory_arc_bytes', 'memory_total_bytes', 'memory_provisionable_bytes'],
    disk: ['disk_pool_size_bytes', 'disk_zone_quota_used_bytes'],
    sysinfo: ['sysinfo'],
    vms: ['vms'],
  }
  const base = Object.keys((await ask('GET', '/servers?extras=none')).body[0])
  for (const [extra, names] of Object.entries(groups)) {
    const { body } = await ask('GET', `/servers?extras=${extra}`)
    assert.equal(
      Object.keys(body[0])
        .filter(name => !base.includes(name))
        .sort(),
      [...names].sort(),
      extra,
    )
  }
  const capacity = Object.keys((await ask('GET', '/servers?extras=capacity')).body[0])
  assert.equal(
    ['agents', 'memory_total_bytes', 'disk_pool_size_bytes', 'sysinfo', 'vms'].map(name => capacity.includes(name)),
    [true, true, true, false, false],
  )
})

test('provisionable memory is all memory less the reserve and what VMs have', async () => {
  const { body } = await gateway().ask('GET', '/servers?extras=memory')
  assert.is(body[0].memory_provisionable_bytes, 43662861926)
  assert.not.ok('memory_provisionable_bytes' in body[1])
})

test('extras=vms is what the node reported; with all of it, the actors\u2019 records', async () => {
  const { ask, backend } = gateway()
  backend.put.vm({ uuid: OTHER_SERVER, state: 'destroyed' })
  assert.is((await ask('GET', '/servers?extras=vms')).body[0].vms[VM].state, 'stopped')
  const { vms } = (await ask('GET', '/servers?extras=all')).body[0]
  assert.is(vms[VM].state, 'running')
  assert.not.ok(OTHER_SERVER in vms)
})

test('fields keep only what was asked for, in that order, after extras', async () => {
  const { ask } = gateway()
  const { body } = await ask('GET', '/servers?fields=status,uuid,sysinfo,constructor&limit=1')
  assert.equal(Object.entries(body[0]), [
    ['status', 'running'],
    ['uuid', SERVER],
  ])
  const more = await ask('GET', '/servers?fields=sysinfo&extras=sysinfo&limit=1')
  assert.equal(more.body[0].sysinfo.Hostname, 'alpha')
})

test('one server is shown with everything; its parameters are none', async () => {
  const { ask } = gateway()
  const { body } = await ask('GET', one)
  for (const name of ['agents', 'vms', 'sysinfo', 'last_heartbeat', 'memory_total_bytes', 'disk_pool_size_bytes']) {
    assert.ok(name in body, name)
  }
  assert.is((await ask('GET', `${one}?extras=all`)).status, 409)
})

test('`default` shows the defaults of new servers and has no VMs', async () => {
  const { ask } = gateway()
  const { status, body } = await ask('GET', '/servers/default')
  assert.equal([status, body.uuid, body.default_console, body.serial], [200, 'default', 'serial', 'ttyb'])
  assert.equal((await ask('GET', '/servers/default/vms')).body, [])
  assert.is((await ask('POST', '/servers/default/nop')).status, 409)
})

test('a rebooting server shows so only while it is unknown', async () => {
  const { ask, backend } = gateway()
  backend.put.server({ transitional_status: 'rebooting' })
  assert.is((await ask('GET', one)).body.status, 'running')
  backend.put.server({ transitional_status: 'rebooting', status: 'unknown' })
  assert.is((await ask('GET', one)).body.status, 'rebooting')
})

test('sysinfo registers a server under the id of the path, which its UUID must match', async () => {
  const { ask, backend } = gateway()
  const sysinfo = { UUID: VM.toUpperCase(), Hostname: 'new', Anything: [1] }
  assert.is((await ask('POST', `/servers/${VM}/sysinfo`, { body: { sysinfo } })).status, 200)
  assert.equal(backend.calls[0], {
    kind: 'cn',
    id: VM,
    verb: 'register',
    params: { sysinfo },
    options: { key: undefined, reqId: backend.calls[0]?.options.reqId },
  })
  const other = await ask('POST', `${one}/sysinfo`, { body: { sysinfo } })
  assert.equal([other.status, other.body.code], [409, 'InvalidArgument'])
  assert.is((await ask('POST', '/servers/nonsense/sysinfo', { body: { sysinfo: {} } })).status, 409)
  assert.is((await ask('POST', `${one}/sysinfo`, { body: { sysinfo: {}, more: 1 } })).status, 409)
  assert.is((await ask('POST', `${one}/sysinfo`, { body: { sysinfo: { 'Network Interfaces': 'eth0' } } })).status, 400)
  assert.is(backend.calls.length, 1)
})

test('a heartbeat is passed on without a look-up; more than an empty body is refused', async () => {
  const { ask, backend } = gateway()
  assert.is((await ask('POST', `/servers/${VM.toUpperCase()}/events/heartbeat`, { body: {} })).status, 204)
  assert.equal(backend.beats, [VM])
  assert.is((await ask('POST', `${one}/events/heartbeat`, { body: { a: 1 } })).status, 409)
  assert.is((await ask('POST', '/servers/x/events/heartbeat', { body: {} })).status, 409)
  assert.is(backend.beats.length, 1)
})

test('a status event goes to the server\u2019s actor with all it holds; vms of a wrong type are refused', async () => {
  const { ask, backend } = gateway()
  const event = { vms: { [VM]: { uuid: VM, state: 'running', extra: 1 } }, zpoolStatus: { zones: {} }, odd: true }
  assert.is((await ask('POST', `${one}/events/status`, { body: { server_uuid: SERVER, ...event } })).status, 204)
  assert.equal(backend.calls[0]?.params, { status: event })
  for (const vms of ['x', [], { [VM]: { state: 1 } }, null]) {
    assert.is((await ask('POST', `${one}/events/status`, { body: { vms } })).status, 400, JSON.stringify(vms))
  }
  assert.is((await ask('POST', `/servers/${VM}/events/status`, { body: {} })).status, 404)
  assert.is(backend.calls.length, 1)
})

test('nop becomes a task of the server', async () => {
  const { ask, backend } = gateway()
  const { body, headers } = await ask('POST', `${one}/nop`, { body: { sleep: '2', error: 'no' } })
  const [call] = backend.calls
  assert.equal([call?.kind, call?.id, call?.verb], ['cn', SERVER, 'task_add'])
  assert.equal(call?.params['params'], { sleep: 2, error: 'no' })
  assert.is(body.id, call?.params['task_id'])
  assert.is(headers.get('link'), `</tasks/${body.id}>; rel="monitor"`)
  assert.is((await ask('POST', `${one}/nop`, { body: { sleep: 3601 } })).status, 400)
})

test('ping tells whether NATS is there, and is 200 either way', async () => {
  const { ask, backend } = gateway()
  const words = (word: string) => ({ workflow: word, moray: word, amqp: word })
  assert.equal((await ask('GET', '/ping')).body, { ready: true, services: words('online') })
  backend.online = false
  const { status, body } = await ask('GET', '/ping')
  assert.equal([status, body], [200, { ready: false, services: words('offline') }])
})

test('the root says what answers and where to look', async () => {
  const { body } = await gateway().ask('GET', '/')
  assert.equal([body.name, body.version, body.links.openapi], ['Muster', '1.2.3', '/openapi.json'])
})

test('statecharts are JSON, or Mermaid by Accept or by format', async () => {
  const { ask, backend } = gateway()
  const kinds = (await ask('GET', '/machines')).body
  assert.ok(kinds.some(({ kind, href }: { kind: string; href: string }) => kind === 'vm' && href === '/machines/vm'))
  const json = await ask('GET', '/machines/vm')
  assert.equal([json.body.kind, json.body.initial, 'mermaid' in json.body], ['vm', 'absent', false])
  for (const answer of [
    await ask('GET', '/machines/vm', { headers: { accept: 'text/vnd.mermaid' } }),
    await ask('GET', '/machines/vm?format=mermaid'),
  ]) {
    assert.equal([answer.status, answer.text], [200, 'stateDiagram-v2\n'])
    assert.is(answer.headers.get('content-type'), 'text/vnd.mermaid; charset=utf-8')
  }
  assert.is((await ask('GET', '/machines/none')).status, 404)
  assert.is((await ask('GET', '/machines/vm?format=svg')).status, 400)
  backend.machines.clear()
  assert.is((await ask('GET', '/machines/vm')).status, 503)
})

test('what an actor refuses is answered in its words', async () => {
  const { ask, backend } = gateway()
  backend.answers.set('cn.register', refusing('VersionTooNew'))
  const { status, body } = await ask('POST', `${one}/sysinfo`, { body: { sysinfo: {} } })
  assert.equal([status, body], [503, { code: 'VersionTooNew', message: 'refused: VersionTooNew' }])
})

test.run()
