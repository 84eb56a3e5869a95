/** The whole way, from REST through a gateway process, actors and a simulated node, and back. */
import { randomUUID } from 'node:crypto'
import * as assert from 'uvu/assert'
import { eventually } from '../eventually.ts'
import { failingGateway, type GatewayProcess, type MusterFixture, startMuster } from '../muster-fixture.ts'
import { suite } from '../suite.ts'

const test = suite('gateway, whole way')
let muster: MusterFixture
let gateway: GatewayProcess
let server: string

test.before(async () => {
  muster = await startMuster({ nodes: 2 })
  gateway = await muster.gateway()
  server = muster.servers[0]!
})
test.after(() => muster?.stop())

const ask: GatewayProcess['ask'] = (...args) => gateway.ask(...args)

/** Sends a request that becomes a task and returns the task at its end. */
async function task(method: string, path: string, body?: unknown) {
  const { status, body: started } = await ask(method, path, body === undefined ? {} : { body })
  assert.is(status, 200, JSON.stringify(started))
  const ended = await ask('GET', `/tasks/${started.id}/wait?timeout=20`)
  assert.is(ended.status, 200)
  return ended.body
}

test('a VM is made, loaded, stopped, started, rebooted, killed and destroyed', async () => {
  const vms = `/servers/${server}/vms`
  const payload = {
    ram: 256,
    quota: 2,
    alias: 'web',
    owner_uuid: randomUUID(),
    nics: [{ nic_tag: 'admin', vlan_id: 10 }],
  }
  const created = await ask('POST', vms, { body: payload })
  const vm = `${vms}/${created.body.vm_uuid}`
  const listedAtOnce = await ask('GET', vms)
  assert.ok(
    listedAtOnce.body.some(({ uuid }: { uuid: string }) => uuid === created.body.vm_uuid),
    'acknowledged, so listed',
  )
  const made = (await ask('GET', `/tasks/${created.body.id}/wait`)).body
  assert.equal([made.status, made.task, made.vm_uuid], ['complete', 'machine_create', created.body.vm_uuid])
  const loaded = await ask('GET', vm)
  assert.equal([loaded.status, loaded.body.state, loaded.body.alias], [200, 'running', 'web'])
  assert.type((await ask('GET', `${vm}/vnc`)).body.port, 'number')

  const verbs: [string, object, string][] = [
    ['stop', { force: true }, 'stopped'],
    ['start', {}, 'running'],
    ['reboot', { force: true }, 'running'],
    ['kill', {}, 'stopped'],
  ]
  for (const [verb, body, state] of verbs) {
    const ended = await task('POST', `${vm}/${verb}`, body)
    assert.is(ended.status, 'complete', `${verb}: ${JSON.stringify(ended.error)}`)
    assert.is((await ask('GET', vm)).body.state, state, verb)
    const [listed] = (await ask('GET', vms)).body
    assert.is(listed.state, state, `${verb} in the list`)
  }
  const { body: legal } = await ask('GET', `${vm}/actions`)
  const stop = legal.actions.find(({ verb }: { verb: string }) => verb === 'stop')
  assert.equal([stop.allowed, stop.guard], [false, 'is_running'])
  const illegal = await task('POST', `${vm}/stop`, {})
  assert.equal([illegal.status, illegal.error.code], ['failure', 'VmNotRunning'])

  assert.is((await task('DELETE', vm)).status, 'complete')
  assert.equal((await ask('GET', vms)).body, [])
  assert.is((await ask('GET', vm)).status, 404)
  assert.is((await ask('POST', `${vm}/start`)).status, 404)
})

test('a list holds every server that was acknowledged before, and a node agent may speak HTTP alone', async () => {
  for (let round = 0; round < 5; round++) {
    const uuid = randomUUID()
    const sysinfo = { UUID: uuid, Hostname: `http-${round}`, 'MiB of Memory': '1024', Setup: 'true' }
    assert.is((await ask('POST', `/servers/${uuid}/sysinfo`, { body: { sysinfo } })).status, 200)
    const { body } = await ask('GET', `/servers?uuids=${uuid}&extras=sysinfo`)
    assert.equal([body.length, body[0]?.status, body[0]?.sysinfo.Hostname], [1, 'running', `http-${round}`])
    assert.is((await ask('POST', `/servers/${uuid}/events/heartbeat`, { body: {} })).status, 204)
    const status = { vms: {}, meminfo: { total_bytes: 2 ** 30, availrmem_bytes: round } }
    assert.is((await ask('POST', `/servers/${uuid}/events/status`, { body: status })).status, 204)
    const shown = (await ask('GET', `/servers/${uuid}`)).body
    assert.is(shown.memory_available_bytes, round)
    await eventually(async () => (await ask('GET', `/servers/${uuid}`)).body.last_heartbeat !== null)
  }
})

test('a domain that a node reports unasked is a host like any other to probes and lists', async () => {
  const [uuid, vm] = [randomUUID(), randomUUID()]
  const name = `${randomUUID()}.example.com`
  await ask('POST', `/servers/${uuid}/sysinfo`, { body: { sysinfo: { 'MiB of Memory': 1024, Setup: true } } })
  const reported = { uuid: vm, name, state: 'running', domain_id: 3, domain_state: 'running', max_physical_memory: 64 }
  await ask('POST', `/servers/${uuid}/events/status`, { body: { vms: { [vm]: reported } } })
  await eventually(async () => (await ask('GET', `/host/${name}`)).status === 204)
  assert.equal((await ask('GET', `/hosts/${name}`)).body, { id: '3', name, state: 'running' })
  const taken = await ask('POST', `/host/${name}`, { body: { memory: 64, disks: [], networks: [] } })
  assert.equal([taken.status, taken.body.code], [409, 'HostExists'])
  const { body: listed } = await ask('GET', `/servers/${uuid}/vms`)
  assert.equal([listed[0].uuid, listed[0].max_physical_memory], [vm, 64])
})

test('of eight creates of one host at once one gets 201; probes, lists, start and delete follow the binding', async () => {
  assert.is(
    (await ask('POST', `/networks/net0?server_uuid=${server}`, { body: { bridge: 'br0', vlan: 10 } })).status,
    201,
  )
  const host = { memory: 256, disks: [1, 2], networks: ['net0'] }
  const path = `/host/${randomUUID()}.example.com`
  const answers = await Promise.all(
    Array.from({ length: 8 }, () => ask('POST', `${path}?server_uuid=${server}`, { body: host })),
  )
  assert.equal(
    answers.map(({ status }) => status).sort(),
    [201, ...Array(7).fill(409)],
    JSON.stringify(answers.map(a => a.body)),
  )
  const name = path.slice('/host/'.length)
  assert.is((await ask('GET', path)).status, 204)
  const { body } = await ask('GET', `/hosts/${name}`)
  assert.equal([body.name, body.state, body.id !== '-'], [name, 'running', true])
  assert.ok((await ask('GET', '/hosts')).body.some((shown: { name: string }) => shown.name === name))
  assert.is((await ask('GET', `${path}/network/net0`)).status, 204)
  assert.is((await ask('GET', `${path}/network/none`)).status, 404)
  assert.is((await ask('POST', `${path}/network/net1`, { body: { bridge: 'br0', vlan: 11 } })).status, 201)
  assert.is((await ask('POST', `${path}/network/net1`, { body: { bridge: 'br0', vlan: 11 } })).status, 409)
  assert.is((await ask('DELETE', `/networks/net0?server_uuid=${server}`)).status, 409)
  assert.is((await ask('PUT', `/hosts/${name}/start`)).status, 204)
  assert.is((await ask('DELETE', `/hosts/${name}`)).status, 204)
  assert.is((await ask('GET', path)).status, 404)
  assert.is((await ask('DELETE', `/hosts/${name}`)).status, 404)
  assert.is((await ask('DELETE', `/networks/net0?server_uuid=${server}`)).status, 204)
  assert.is((await ask('DELETE', `/networks/net0?server_uuid=${server}`)).status, 404)
})

test('two gateways are one: of their creates of one host one is 201, and one key is one request', async () => {
  const other = await muster.gateway()
  const both = [gateway, other, gateway, other]
  const path = `/hosts/${randomUUID()}.example.com`
  const body = { memory: 64, disks: [], networks: [] }
  const answers = await Promise.all(both.map(one => one.ask('POST', path, { body })))
  assert.equal(answers.map(({ status }) => status).sort(), [201, 409, 409, 409])
  assert.is((await other.ask('GET', path)).status, 200)
  assert.is((await other.ask('DELETE', path)).status, 204)
  assert.is((await ask('GET', path)).status, 404)

  const headers = { 'idempotency-key': randomUUID() }
  const vms = `/servers/${server}/vms`
  const keyed = await Promise.all(both.map(one => one.ask('POST', vms, { body: { ram: 77 }, headers })))
  assert.is(new Set(keyed.map(({ body }) => `${body.id} ${body.vm_uuid}`)).size, 1, JSON.stringify(keyed))
  const { body: listed } = await other.ask('GET', vms)
  const made = listed.filter((vm: { max_physical_memory: number }) => vm.max_physical_memory === 77)
  assert.is(made.length, 1)
  await ask('GET', `/tasks/${keyed[0]?.body.id}/wait`)
  assert.is((await task('DELETE', `${vms}/${made[0].uuid}`)).status, 'complete')
  await other.end('SIGTERM')
})

test('a host that names no server goes where most memory is free; several servers make /networks ambiguous', async () => {
  const name = `${randomUUID()}.example.com`
  const { status, body } = await ask('POST', `/hosts/${name}`, { body: { memory: 256, disks: [1], networks: [] } })
  assert.is(status, 201, JSON.stringify(body))
  assert.ok(muster.servers.includes(body.server_uuid))
  assert.equal((await ask('GET', '/networks')).body.code, 'ServerAmbiguous')
  assert.is((await ask('DELETE', `/hosts/${name}`)).status, 204)
})

test('a failed create names its cause and leaves the hostname free', async () => {
  const name = `${randomUUID()}.example.com`
  const create = (networks: string[]) =>
    ask('POST', `/hosts/${name}?server_uuid=${server}`, { body: { memory: 256, disks: [1], networks } })
  const failed = await create(['no-such-network'])
  assert.equal([failed.status, failed.body.code], [404, 'NetworkNotFound'])
  assert.is((await ask('GET', `/hosts/${name}`)).status, 404)
  assert.is((await create([])).status, 201)
  assert.is((await ask('DELETE', `/hosts/${name}`)).status, 204)
})

test('a keyed request sent twice is done once and answered alike; another body under the key is 422', async () => {
  const vms = `/servers/${server}/vms`
  const headers = { 'idempotency-key': randomUUID() }
  const body = { ram: 128, nics: [{ nic_tag: 'admin' }] }
  const [one, two] = await Promise.all([ask('POST', vms, { body, headers }), ask('POST', vms, { body, headers })])
  assert.equal([one.status, one.body], [two.status, two.body])
  const three = await ask('POST', vms, { body, headers })
  assert.equal([three.status, three.body], [200, one.body])
  const { body: listed } = await ask('GET', vms)
  const mine = listed.filter(
    ({ uuid, max_physical_memory }: Record<string, unknown>) =>
      uuid === one.body.vm_uuid || max_physical_memory === body.ram,
  )
  assert.is(mine.length, 1)
  const other = await ask('POST', vms, { body: { ...body, ram: 129 }, headers })
  assert.equal([other.status, other.body.code], [422, 'IdempotencyKeyReused'])
  await ask('GET', `/tasks/${one.body.id}/wait`)

  const vm = `${vms}/${one.body.vm_uuid}`
  const again = { 'idempotency-key': randomUUID() }
  const destroyed = await ask('DELETE', vm, { headers: again })
  assert.is((await ask('GET', `/tasks/${destroyed.body.id}/wait`)).body.status, 'complete')
  assert.equal((await ask('DELETE', vm, { headers: again })).body, destroyed.body)
})

test('a keyed host create that is repeated is answered 201 again', async () => {
  const name = `${randomUUID()}.example.com`
  const headers = { 'idempotency-key': randomUUID() }
  const create = () => ask('POST', `/hosts/${name}`, { body: { memory: 64, disks: [], networks: [] }, headers })
  const [one, two] = [await create(), await create()]
  assert.equal([one.status, two.status, two.body], [201, 201, one.body])
  assert.is((await ask('DELETE', `/hosts/${name}`)).status, 204)
})

test('a wait on any gateway ends with the task; after a gateway is killed the caller repeats it and has lost nothing', async () => {
  const [first, second] = [await muster.gateway(), await muster.gateway()]
  const { body } = await ask('POST', `/servers/${server}/nop`, { body: { sleep: 4 } })
  const path = `/tasks/${body.id}/wait?timeout=30`
  const lost = first.ask('GET', path).then(
    () => 'answered',
    () => 'cut',
  )
  const kept = second.ask('GET', path)
  await eventually(async () => (await ask('GET', `/tasks/${body.id}`)).body.status === 'active')
  await first.end('SIGKILL')
  assert.is(await lost, 'cut')
  const third = await muster.gateway()
  const repeated = await third.ask('GET', path)
  assert.equal([repeated.status, repeated.body.status], [200, 'complete'])
  assert.equal([(await kept).body.status], ['complete'])
})

test('a callers\u2019 leaving ends its wait and costs the task nothing', async () => {
  const { body } = await ask('POST', `/servers/${server}/nop`, { body: { sleep: 1 } })
  const leaving = new AbortController()
  const wait = ask('GET', `/tasks/${body.id}/wait`, { signal: leaving.signal }).catch(error => (error as Error).name)
  await eventually(async () => (await ask('GET', `/tasks/${body.id}`)).status === 200)
  leaving.abort()
  assert.is(await wait, 'AbortError')
  assert.is((await ask('GET', `/tasks/${body.id}/wait`)).body.status, 'complete')
})

test('a cancelled task ends as TaskCancelled for whoever waits', async () => {
  const { body } = await ask('POST', `/servers/${server}/nop`, { body: { sleep: 600 } })
  const wait = ask('GET', `/tasks/${body.id}/wait`)
  const cancelled = await ask('POST', `/tasks/${body.id}/cancel`)
  assert.equal([cancelled.status, cancelled.body.status, cancelled.body.error.code], [200, 'failure', 'TaskCancelled'])
  assert.is((await wait).body.error.code, 'TaskCancelled')
})

test('an error that nop was told to make ends its task in its words', async () => {
  const ended = await task('POST', `/servers/${server}/nop`, { error: 'on purpose' })
  assert.equal([ended.status, ended.error.message], ['failure', 'on purpose'])
  assert.equal(
    ended.history.map(({ name }: { name: string }) => name),
    ['error', 'finish'],
  )
})

test('the statecharts are those that run', async () => {
  for (const { kind, href } of (await ask('GET', '/machines')).body) {
    assert.is((await ask('GET', href)).body.id, kind)
    const response = await fetch(`${gateway.url}${href}`, { headers: { accept: 'text/vnd.mermaid' } })
    assert.match(await response.text(), /^stateDiagram-v2\n/)
  }
})

test('a body without a length is read, and one over the limit is 413', async () => {
  const send = (parts: string[]) =>
    fetch(`${gateway.url}/servers/${server}/nop`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: new Blob(parts).stream(),
      duplex: 'half',
    } as RequestInit)
  assert.is((await send(['{"sleep"', ':0}'])).status, 200)
  const large = await send(['{"a":"', 'x'.repeat(1024 * 1024), '"}']).then(
    ({ status }) => status,
    () => 413,
  )
  assert.is(large, 413)
})

test('a stop answers what is under way, refuses new connections, and ends with 0', async () => {
  const leaving = await muster.gateway()
  const { body } = await ask('POST', `/servers/${server}/nop`, { body: { sleep: 2 } })
  const wait = leaving.ask('GET', `/tasks/${body.id}/wait?timeout=30`)
  await eventually(async () => (await leaving.ask('GET', `/tasks/${body.id}`)).body.status === 'active')
  const ended = leaving.end('SIGTERM')
  assert.is((await wait).body.status, 'complete')
  assert.is(await ended, 0)
  assert.is(await leaving.ask('GET', '/ping').catch(() => 'refused'), 'refused')
})

test('while NATS is away ping says so and lists are 503; when it is back, all is served as before', async () => {
  const before = (await ask('GET', '/servers')).body.length
  await muster.nats.kill()
  await eventually(async () => (await ask('GET', '/ping')).body.ready === false)
  const away = await ask('GET', '/servers')
  assert.equal([away.status, away.body.code, away.headers.get('retry-after')], [503, 'ServiceUnavailableError', '1'])
  await muster.nats.restart()
  await eventually(async () => (await ask('GET', '/servers')).status === 200, { withinMs: 20_000 })
  assert.is((await ask('GET', '/servers')).body.length, before)
  assert.is((await ask('GET', '/ping')).body.ready, true)
  await eventually(async () => (await ask('POST', `/servers/${server}/nop`, { body: {} })).status === 200, {
    withinMs: 20_000,
    everyMs: 200,
  })
})

test('what keeps a gateway from starting is said in one line', async () => {
  const port = new URL(gateway.url).port
  const cases: [Record<string, string>, RegExp][] = [
    [
      { NATS_URL: muster.nats.url, PORT: port },
      new RegExp(`^gateway: port ${port} is in use: set PORT to another$`, 'm'),
    ],
    [{ PORT: 'http' }, /^gateway: invalid configuration:\n {2}PORT: must be a port$/m],
    [{ NATS_URL: 'nats://127.0.0.1:1' }, /^gateway: cannot connect to NATS at nats:\/\/127\.0\.0\.1:1/m],
  ]
  for (const [env, line] of cases) {
    const { code, output } = await failingGateway(env)
    assert.is(code, 1)
    assert.match(output, line)
    assert.not.match(output, /^\s+at /m)
  }
})

test('a gateway answers $SRV.PING by its name', async () => {
  const replies: string[] = []
  for await (const message of await muster.nc.requestMany('$SRV.PING', '', { maxWait: 1_000 })) {
    replies.push((message.json() as { name: string }).name)
  }
  assert.ok(replies.includes('gateway'), replies.join())
})

test.run()
