/** The compute agent's API in both forms over a fleet (compute-agent-api.md, compute-agent-newer.md, DESIGN §6). */
import * as assert from 'uvu/assert'
import { hostKey } from '../../gateway/ids.ts'
import { fakeGateway, OTHER_SERVER, refusing, SERVER } from '../fake-backend.ts'
import { preparedBackend, withFleet } from '../gateway-samples.ts'
import { suite } from '../suite.ts'

const test = suite('hosts and networks')
const gateway = () => fakeGateway(preparedBackend())
const payload = { memory: 512, disks: [8], networks: ['net0'] }
const name = 'new.example.com'

test('create sends the host\u2019s actor a spec with the proposed server, and is 201 when the task has ended', async () => {
  const { ask, backend } = gateway()
  const { status, body, headers } = await ask('POST', '/host/New.Example.com', { body: payload })
  const [call] = backend.calls
  assert.equal([call?.kind, call?.id, call?.verb], ['host', hostKey(name), 'create'])
  assert.equal(
    { ...call?.params, spec: undefined },
    { hostname: name, server_uuid: SERVER, server_named: false, task_id: body.id, spec: undefined },
  )
  assert.is((call?.params['spec'] as { name: string } | undefined)?.name, name)
  assert.equal([status, body.server_uuid, headers.get('location')], [201, SERVER, `/hosts/${name}`])
  assert.is(headers.get('x-task-id'), body.id)
})

test('the newer form takes cmdline and answers alike', async () => {
  const { ask, backend } = gateway()
  const install = { install: true, location: 'http://mirror/dists/x', cmdline: 'auto=true' }
  assert.is((await ask('POST', `/hosts/${name}`, { body: { ...payload, ...install } })).status, 201)
  const spec = backend.calls[0]?.params['spec'] as { install: object }
  assert.equal(spec.install, { location: install.location, cmdline: 'auto=true', console: false })
})

test('400 names the bad field', async () => {
  const { ask, backend } = gateway()
  const cases: [object, string][] = [
    [{ memory: undefined }, 'memory'],
    [{ memory: 'much' }, 'memory'],
    [{ memory: 0.5 }, 'memory'],
    [{ disks: undefined }, 'disks'],
    [{ disks: 8 }, 'disks'],
    [{ disks: [8, 0] }, 'disks.1'],
    [{ networks: undefined }, 'networks'],
    [{ networks: ['ok', 'not ok'] }, 'networks.1'],
    [{ install: true }, 'location'],
    [{ install: true, location: 'ftp://x' }, 'location'],
    [{ install: 'maybe' }, 'install'],
    [{ cmdline: 'a\nb' }, 'cmdline'],
    [{ console: 1 }, 'console'],
  ]
  for (const form of ['/host', '/hosts']) {
    for (const [change, field] of cases) {
      const { status, body } = await ask('POST', `${form}/${name}`, { body: { ...payload, ...change } })
      assert.equal(
        [status, body.code, body.errors?.[0]?.field],
        [400, 'InvalidParameters', field],
        JSON.stringify(change),
      )
    }
  }
  const long = `${'a'.repeat(63)}.`.repeat(4)
  for (const bad of ['-a', 'a_b', 'a..b', 'a%2Fb', `${long}b`]) {
    const { status, body } = await ask('POST', `/host/${bad}`, { body: payload })
    assert.equal([status, body.errors?.[0]?.field], [400, 'hostname'], bad)
  }
  assert.is(backend.calls.length, 0)
})

test('the server is the one named, else the bound one, else the allocator\u2019s choice', async () => {
  const { ask, backend } = gateway()
  withFleet(backend)
  backend.allocation = { value: { id: name, server_uuid: OTHER_SERVER, score: 1, winners: 1, steps: [] } }
  const proposed = async (query = '') => {
    await ask('POST', `/host/${name}${query}`, { body: payload })
    const { server_uuid, server_named } = backend.calls.at(-1)?.params ?? {}
    return [server_uuid, server_named]
  }
  assert.equal(await proposed(), [OTHER_SERVER, false])
  assert.equal(await proposed(`?server_uuid=${SERVER}`), [SERVER, true])
  backend.put.host(hostKey(name), { server_uuid: SERVER })
  assert.equal(await proposed(), [SERVER, false])
})

test('a named server must exist and run; without one the allocator may have none', async () => {
  const { ask, backend } = gateway()
  const create = (query: string) => ask('POST', `/host/${name}${query}`, { body: payload })
  assert.is((await create(`?server_uuid=${OTHER_SERVER}`)).status, 404)
  assert.is((await create('?server_uuid=x')).status, 409)
  backend.put.server({ uuid: OTHER_SERVER, status: 'unknown' })
  assert.is((await create(`?server_uuid=${OTHER_SERVER}`)).body.code, 'ServerNotRunning')
  backend.allocation = {
    error: { code: 'NoAllocatableServersError', message: 'No compute resources available: none runs' },
  }
  assert.equal((await create('')).body.code, 'NoAllocatableServersError')
  assert.is(backend.calls.length, 0)
})

test('of creates at once the actor lets one through: the others are 409', async () => {
  const { ask, backend } = gateway()
  let taken = false
  backend.answers.set('host.create', ({ params }) => {
    if (taken) return { error: { code: 'HostExists', message: 'The host exists already' } }
    taken = true
    return { value: { id: params['task_id'], vm_uuid: SERVER, server_uuid: SERVER } }
  })
  const answers = await Promise.all(Array.from({ length: 8 }, () => ask('POST', `/host/${name}`, { body: payload })))
  assert.equal(answers.map(({ status }) => status).sort(), [201, ...Array(7).fill(409)])
})

test('a domain that nobody ordered is there already', async () => {
  const { ask, backend } = gateway()
  const { status, body } = await ask('POST', '/host/One.example.com', { body: payload })
  assert.equal([status, body.code], [409, 'HostExists'])
  assert.is(backend.calls.length, 0)
})

test('the task\u2019s failure is the answer\u2019s code; codes of other agents are TaskFailed', async () => {
  const { ask, backend } = gateway()
  const cases: [string, number, string][] = [
    ['VmExists', 409, 'VmExists'],
    ['NetworkNotFound', 404, 'NetworkNotFound'],
    ['AgentNotConnected', 503, 'AgentNotConnected'],
    ['Strange', 500, 'TaskFailed'],
  ]
  for (const [code, status, shown] of cases) {
    backend.outcome = { status: 'failure', error: { code, message: `because ${code}` } }
    const answer = await ask('POST', `/host/${name}`, { body: payload })
    assert.equal([answer.status, answer.body.code, answer.body.message], [status, shown, `because ${code}`])
    assert.is(answer.body.id, answer.headers.get('x-task-id'))
  }
})

test('a create that takes too long is 504 with the task in body and header', async () => {
  const { ask, backend } = gateway()
  backend.outcome = undefined
  const { status, body, headers } = await ask('POST', `/host/${name}`, { body: payload })
  const id = backend.calls[0]?.params['task_id']
  assert.equal([status, body.code, body.id, headers.get('x-task-id')], [504, 'RequestTimedOut', id, id])
})

test('probes are 204 or 404, also for discovered domains and whatever the case', async () => {
  const { ask, backend } = gateway()
  assert.is((await ask('GET', '/host/ONE.example.com')).status, 204)
  assert.is((await ask('GET', '/host/none.example.com')).status, 404)
  backend.put.vm({ uuid: OTHER_SERVER, name: 'gone.example.com', present: false, state: 'missing' })
  assert.is((await ask('GET', '/host/gone.example.com')).status, 404)
  assert.is((await ask('GET', '/hosts/gone.example.com')).status, 404)
})

test('lists show what virsh would, stopped domains too, of one server if asked', async () => {
  const { ask, backend } = gateway()
  backend.put.vm({
    uuid: OTHER_SERVER,
    name: 'a',
    server_uuid: OTHER_SERVER,
    domain_id: null,
    domain_state: 'shut off',
  })
  backend.put.vm({ uuid: SERVER, name: 'gone', present: false })
  const { body } = await ask('GET', '/hosts')
  assert.equal(
    body.map(({ name }: { name: string }) => name),
    ['33333333-3333-4333-8333-333333333333', 'a', 'one.example.com'],
  )
  assert.equal(body[1], { id: '-', name: 'a', state: 'shut off' })
  assert.equal((await ask('GET', `/hosts?server_uuid=${OTHER_SERVER}`)).body.length, 1)
  assert.equal((await ask('GET', '/hosts/one.example.com')).body, {
    id: '7',
    name: 'one.example.com',
    state: 'running',
  })
})

test('before the node has spoken, the state is told from the record', async () => {
  const { ask, backend } = gateway()
  backend.put.vm({ name: 'b', state: 'stopped', domain_id: null, domain_state: null })
  assert.equal((await ask('GET', '/hosts/b')).body, { id: '-', name: 'b', state: 'shut off' })
})

test('delete and start go through the host\u2019s actor and are answered at the end', async () => {
  const { ask, backend } = gateway()
  assert.is((await ask('DELETE', '/hosts/One.example.com')).status, 204)
  assert.is((await ask('PUT', '/hosts/one.example.com/start')).status, 204)
  assert.equal(
    backend.calls.map(({ kind, id, verb, params }) => [kind, id, verb, params['params']]),
    [
      ['host', hostKey('one.example.com'), 'destroy', {}],
      ['host', hostKey('one.example.com'), 'start', { idempotent: true }],
    ],
  )
})

test('a delete is answered when the hostname is free', async () => {
  const { ask, backend } = gateway()
  const key = hostKey('one.example.com')
  const uuid = '55555555-5555-4555-8555-555555555555'
  backend.put.host(key, { vm_uuid: uuid })
  backend.answers.set('host.destroy', ({ params }) => {
    const id = String(params['task_id'])
    backend.put.task({ id, status: 'complete', vm_uuid: uuid })
    backend.put.vm({ uuid, name: 'one.example.com', present: false, state: 'destroyed' })
    setTimeout(() => backend.put.host(key, { vm_uuid: null }), 30)
    return { value: { id } }
  })
  assert.is((await ask('DELETE', '/hosts/one.example.com')).status, 204)
  assert.is(backend.hosts.get(key)?.vm_uuid, null)
})

test('a discovered domain, which has no host\u2019s actor, is reached through its VM', async () => {
  const { ask, backend } = gateway()
  backend.answers.set('host.destroy', refusing('VmNotFound'))
  assert.is((await ask('DELETE', '/hosts/one.example.com')).status, 204)
  const call = backend.calls.at(-1)
  assert.equal([call?.kind, call?.id, call?.verb], ['vm', '55555555-5555-4555-8555-555555555555', 'destroy'])
  assert.is((await ask('DELETE', '/hosts/none.example.com')).status, 404)
  backend.put.vm({ uuid: OTHER_SERVER, name: 'done.example.com', present: false, state: 'destroyed' })
  assert.is((await ask('DELETE', '/hosts/done.example.com')).status, 404)
  assert.is((await ask('DELETE', '/hosts/done.example.com', { headers: { 'idempotency-key': 'k' } })).status, 204)
})

test('a host\u2019s network is made through its actor: 201, or 409 when it exists', async () => {
  const { ask, backend } = gateway()
  const create = (body: object) => ask('POST', `/host/${name}/network/net1`, { body })
  const { status, headers } = await create({ bridge: 'br0', vlan: 10 })
  assert.equal([status, headers.get('location')], [201, `/host/${name}/network/net1`])
  const { params, verb } = backend.calls[0] ?? {}
  assert.is(verb, 'network_create')
  assert.equal(
    [params?.['hostname'], params?.['name'], params?.['bridge'], params?.['vlan']],
    [name, 'net1', 'br0', 10],
  )
  backend.outcome = { status: 'failure', error: { code: 'NetworkExists', message: 'there' } }
  assert.is((await create({ bridge: 'br0', vlan: 10 })).status, 409)
})

test('a network\u2019s bad fields are named', async () => {
  const { ask } = gateway()
  const cases: [object, string][] = [
    [{ vlan: 1 }, 'bridge'],
    [{ bridge: 'br0' }, 'vlan'],
    [{ bridge: 'br0', vlan: 0 }, 'vlan'],
    [{ bridge: 'br0', vlan: 4095 }, 'vlan'],
    [{ bridge: 'br0', vlan: 1.5 }, 'vlan'],
    [{ bridge: 'a bridge', vlan: 1 }, 'bridge'],
  ]
  for (const path of [`/host/${name}/network/n`, '/networks/n']) {
    for (const [body, field] of cases) {
      const answer = await ask('POST', path, { body })
      assert.equal([answer.status, answer.body.errors?.[0]?.field], [400, field], `${path} ${JSON.stringify(body)}`)
    }
  }
  assert.is((await ask('GET', '/networks/-bad')).status, 400)
})

test('a host\u2019s network is looked for on the host\u2019s server', async () => {
  const { ask, backend } = gateway()
  withFleet(backend)
  const probe = async (host: string, query = '') => {
    const { status } = await ask('GET', `/host/${host}/network/net0${query}`)
    return [status, backend.calls.at(-1)?.id]
  }
  backend.put.host(hostKey('bound'), { server_uuid: OTHER_SERVER })
  assert.equal(await probe('bound'), [204, OTHER_SERVER])
  assert.equal(await probe('one.example.com'), [204, SERVER])
  assert.equal(await probe('unknown', `?server_uuid=${OTHER_SERVER}`), [204, OTHER_SERVER])
  assert.is((await probe('unknown'))[0], 404)
  backend.reads.set('network_load', { error: { code: 'NetworkNotFound', message: 'no' } })
  assert.is((await probe('bound'))[0], 404)
})

test('/networks means the only server there is, or the one named', async () => {
  const { ask, backend } = gateway()
  const shown = { name: 'net0', state: 'active', autostart: 'yes', persistent: 'yes' }
  assert.equal((await ask('GET', '/networks')).body, [shown])
  assert.equal((await ask('GET', '/networks/net0')).body, shown)
  withFleet(backend)
  for (const path of ['/networks', '/networks/net0']) {
    const { status, body } = await ask('GET', path)
    assert.equal([status, body.code], [400, 'ServerAmbiguous'])
  }
  await ask('GET', `/networks?server_uuid=${OTHER_SERVER.toUpperCase()}`)
  assert.is(backend.calls.at(-1)?.id, OTHER_SERVER)
  assert.is((await ask('DELETE', '/networks/net0')).status, 400)
  assert.is((await ask('DELETE', `/networks/net0?server_uuid=${OTHER_SERVER}`)).status, 204)
})

test('a change of networks, or of a host bound to it, needs a running server; `default` is none', async () => {
  const { ask, backend } = gateway()
  backend.put.server({ status: 'unknown' })
  backend.put.host(hostKey(name), { server_uuid: SERVER })
  const network = { bridge: 'br0', vlan: 1 }
  for (const [method, path, body] of [
    ['POST', '/networks/n', network],
    ['DELETE', '/networks/n', undefined],
    ['POST', `/host/${name}/network/n`, network],
    ['POST', `/host/${name}`, payload],
  ] as const) {
    const answer = await ask(method, path, { body })
    assert.equal([answer.status, answer.body.code], [409, 'ServerNotRunning'], path)
  }
  assert.is((await ask('GET', '/networks?server_uuid=default')).status, 404)
  assert.is(backend.calls.length, 0)
})

test('without any server there are no networks', async () => {
  const { ask } = fakeGateway()
  assert.equal([(await ask('GET', '/networks')).status, (await ask('GET', '/hosts')).text], [404, '[]'])
})

test('making and deleting a network are tasks of the server, answered at their end', async () => {
  const { ask, backend } = gateway()
  assert.is((await ask('POST', '/networks/n1', { body: { bridge: 'br0', vlan: '10' } })).status, 201)
  assert.equal(backend.calls[0]?.params['params'], { name: 'n1', bridge: 'br0', vlan: 10 })
  assert.is((await ask('DELETE', '/networks/n1')).status, 204)
  const failing: [string, number][] = [
    ['NetworkNotFound', 404],
    ['NetworkInUse', 409],
  ]
  for (const [code, status] of failing) {
    backend.outcome = { status: 'failure', error: { code, message: 'no' } }
    assert.is((await ask('DELETE', '/networks/n1')).status, status)
  }
})

test.run()
