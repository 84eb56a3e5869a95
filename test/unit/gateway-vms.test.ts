/** VMs and tasks as CNAPI's clients use them (cnapi-behaviour §5, §9): {id}, then TaskWait, then VmLoad. */
import * as assert from 'uvu/assert'
import { eventually } from '../eventually.ts'
import { fakeGateway, OTHER_SERVER, refusing, SERVER, TASK, VM } from '../fake-backend.ts'
import { preparedBackend } from '../gateway-samples.ts'
import { suite } from '../suite.ts'

const test = suite('VMs and tasks')
const gateway = () => fakeGateway(preparedBackend())
const vms = `/servers/${SERVER}/vms`
const vm = `${vms}/${VM}`

test('create sends the mapped spec to the new VM\u2019s actor and answers its task and uuid', async () => {
  const { ask, backend } = gateway()
  const uuid = '77777777-7777-4777-8777-777777777777'
  const image = '88888888-8888-4888-8888-888888888888'
  const { status, body, headers } = await ask('POST', vms, {
    body: {
      uuid,
      alias: 'web',
      brand: 'kvm',
      ram: 512,
      cpu_cap: 150,
      disks: [{ image_uuid: image, image_size: 1024 }],
    },
  })
  const [call] = backend.calls
  assert.equal([call?.kind, call?.id, call?.verb], ['vm', uuid, 'create'])
  assert.equal(call?.params, {
    server_uuid: SERVER,
    task_id: body.id,
    image_uuid: image,
    spec: {
      uuid,
      name: uuid,
      alias: 'web',
      brand: 'kvm',
      memory_mib: 512,
      vcpus: 2,
      cpu_cap: 150,
      disks: [{ size_mib: 1024, image }],
      nics: [],
      autoboot: true,
    },
  })
  assert.is(status, 200)
  assert.is(body.vm_uuid, uuid)
  assert.is(headers.get('link'), `</tasks/${body.id}>; rel="monitor"`)
})

test('create without a uuid makes one and answers it', async () => {
  const { ask, backend } = gateway()
  const { body } = await ask('POST', vms, { body: { ram: 1 } })
  assert.is(backend.calls[0]?.id, body.vm_uuid)
})

test('create names each bad field, and refuses a description too large to travel', async () => {
  const { ask, backend } = gateway()
  const bad = {
    ram: 1.5,
    quota: -1,
    uuid: 'x',
    disks: [{ size: 'big' }],
    nics: [{ mac: '01:00:5e:00:00:01', nic_tag: 'a' }],
  }
  const { status, body } = await ask('POST', vms, { body: bad })
  assert.is(status, 400)
  assert.equal(body.errors.map(({ field }: { field: string }) => field).sort(), [
    'disks.0.size',
    'nics.0.mac',
    'quota',
    'ram',
    'uuid',
  ])
  assert.equal((await ask('POST', vms, { body: {} })).body.errors[0].field, 'ram')
  const large = await ask('POST', vms, { body: { ram: 1, customer_metadata: { a: 'x'.repeat(200_000) } } })
  assert.equal([large.status, large.body.code], [413, 'PayloadTooLarge'])
  assert.is(backend.calls.length, 0)
})

test('a list has CNAPI\u2019s fields, sorted, without destroyed VMs and those of other servers', async () => {
  const { ask, backend } = gateway()
  backend.put.vm({ owner_uuid: OTHER_SERVER, alias: 'web', cpu_cap: 100, quota: 10, state: 'stopped' })
  backend.put.vm({ uuid: '00000000-3333-4333-8333-333333333333', state: 'destroyed' })
  backend.put.vm({ uuid: '11111111-3333-4333-8333-333333333333', server_uuid: OTHER_SERVER })
  const { body } = await ask('GET', vms)
  assert.is(body.length, 2)
  assert.equal(body[0], {
    uuid: VM,
    owner_uuid: OTHER_SERVER,
    alias: 'web',
    brand: 'kvm',
    cpu_cap: 100,
    max_physical_memory: 512,
    quota: 10,
    state: 'stopped',
    zone_state: 'installed',
    last_modified: '2026-01-02T03:04:05.000Z',
  })
  assert.is(body[1].owner_uuid, '00000000-0000-0000-0000-000000000000')
})

test('the server of a list need not run', async () => {
  const { ask, backend } = gateway()
  backend.put.server({ status: 'unknown' })
  assert.is((await ask('GET', vms)).status, 200)
  assert.is((await ask('GET', `${vm}/actions`)).status, 200)
})

test('load asks the node; a VM that the node has not is 404, unless it is being made', async () => {
  const { ask, backend } = gateway()
  assert.equal((await ask('GET', vm)).body, { uuid: VM, state: 'running' })
  assert.equal(backend.calls[0]?.params, { read: 'machine_load', params: { uuid: VM } })
  backend.reads.set('machine_load', { error: { code: 'VmNotFound', message: 'no' } })
  const lost = await ask('GET', vm)
  assert.equal([lost.status, lost.body], [404, { code: 'ResourceNotFound', message: `VM ${VM} not found` }])
  backend.put.vm({ state: 'provisioning' })
  const making = await ask('GET', vm)
  assert.equal([making.status, making.body.state], [200, 'provisioning'])
})

test('info passes the types on; vnc gives host and port, or says that there is no screen', async () => {
  const { ask, backend } = gateway()
  assert.equal(JSON.parse((await ask('GET', `${vm}/info?info=vnc,block`)).body).vnc.port, 5900)
  assert.equal(backend.calls[0]?.params['params'], { uuid: VM, types: ['vnc', 'block'] })
  assert.equal((await ask('GET', `${vm}/vnc`)).body, { host: '10.0.0.1', port: 5900 })
  backend.reads.set('machine_info', { value: { vnc: { host: '10.0.0.2', port: 5901 } } })
  assert.equal((await ask('GET', `${vm}/vnc`)).body, { host: '10.0.0.2', port: 5901 })
  backend.reads.set('machine_info', { value: '{}' })
  const none = await ask('GET', `${vm}/vnc`)
  assert.equal([none.status, none.body.code], [409, 'VmNotRunning'])
})

test('actions are the actor\u2019s', async () => {
  const { ask } = gateway()
  assert.equal((await ask('GET', `${vm}/actions`)).body, {
    state: 'running',
    actions: [{ verb: 'stop', allowed: true }],
  })
})

test('each verb goes to the VM\u2019s actor with its parameters and a fresh task', async () => {
  const { ask, backend } = gateway()
  const cases: [string, string, object, object][] = [
    ['POST', 'start', { idempotent: true, jobid: 'j' }, { idempotent: true }],
    ['POST', 'stop', { force: 'true', timeout: '30' }, { force: true, timeout: 30 }],
    ['POST', 'kill', { signal: 9 }, { signal: 9 }],
    ['POST', 'kill', { signal: 'SIGTERM' }, { signal: 'SIGTERM' }],
    ['POST', 'reboot', { force: false }, { force: false }],
    ['DELETE', '', { include_dni: true }, {}],
  ]
  for (const [method, verb, body, params] of cases) {
    const answer = await ask(method, verb ? `${vm}/${verb}` : vm, { body })
    const call = backend.calls.at(-1)
    assert.equal([answer.status, answer.body], [200, { id: call?.params['task_id'] }], verb)
    assert.equal([call?.kind, call?.id, call?.verb], ['vm', VM, verb || 'destroy'])
    assert.equal(call?.params['params'], params)
  }
  assert.is(new Set(backend.calls.map(({ params }) => params['task_id'])).size, cases.length)
})

test('a start carries new internal metadata and nothing else, which is named with the 500 that clients know', async () => {
  const { ask, backend } = gateway()
  const start = (update: unknown) => ask('POST', `${vm}/start`, { body: { update } })
  const bad = await start({ ram: 1, set_internal_metadata: {} })
  assert.equal([bad.status, bad.body.code], [500, 'InvalidArgument'])
  assert.is(
    bad.body.message,
    'Vm.start update param only allows set_internal_metadata, received: [ram, set_internal_metadata]',
  )
  assert.is((await start({})).body.code, 'InvalidArgument')
  assert.is((await start({ set_internal_metadata: ['x'] })).body.code, 'InvalidParameters')
  assert.is((await start('x')).status, 400)
  assert.is((await start({ set_internal_metadata: { a: 'x'.repeat(200_000) } })).status, 413)
  assert.is(backend.calls.length, 0)
  const update = { set_internal_metadata: { 'user-data': 'new' } }
  assert.is((await start(update)).status, 200)
  assert.equal(backend.calls[0]?.params['params'], { update })
})

test('a task is shown without what the agent was given; failed ones are 200 too; unknown ones 404', async () => {
  const { ask, backend } = gateway()
  backend.put.task({ status: 'failure', error: { code: 'VmNotRunning', message: 'no' } })
  const { status, body, text } = await ask('GET', `/tasks/${TASK.toUpperCase()}`)
  assert.equal([status, body.status, body.error.code, text.includes('secret')], [200, 'failure', 'VmNotRunning', false])
  for (const id of [VM, 'short', 'a.b', 'x'.repeat(100), '%2e%2e%2f']) {
    const { status, body } = await ask('GET', `/tasks/${id}/wait`)
    assert.equal([status, body], [404, { code: 'ResourceNotFound', message: 'no such task found' }], id)
  }
})

test('a wait ends with the task, and at its limit shows the task as it stands', async () => {
  const { ask, backend } = gateway()
  assert.is((await ask('GET', `/tasks/${TASK}/wait?timeout=1`)).body.status, 'active')
  for (const timeout of ['', '?timeout=0', '?timeout=garbage', '?timeout=100000']) {
    backend.put.task({})
    const wait = ask('GET', `/tasks/${TASK}/wait${timeout}`)
    setTimeout(() => backend.put.task({ status: 'complete' }), 20)
    assert.is((await wait).body.status, 'complete', timeout)
  }
  assert.is((await ask('GET', `/tasks/${TASK}/wait`)).body.status, 'complete')
})

test('a wait is answered when the VM knows of the end too', async () => {
  const { ask, backend } = gateway()
  backend.put.task({ status: 'complete', vm_uuid: VM })
  backend.put.vm({ task_id: TASK })
  let answered = false
  const wait = ask('GET', `/tasks/${TASK}/wait`).then(({ body }) => {
    answered = true
    return body.status
  })
  await ask('GET', '/ping')
  await new Promise(resolve => setTimeout(resolve, 30))
  assert.is(answered, false)
  backend.put.vm({ task_id: null })
  assert.is(await wait, 'complete')
})

test('a waiter who leaves ends the wait', async () => {
  const { ask, backend } = gateway()
  const leaving = new AbortController()
  const wait = ask('GET', `/tasks/${TASK}/wait`, { signal: leaving.signal })
  setTimeout(() => leaving.abort(), 20)
  await eventually(() => backend.abandoned === 1)
  await wait
})

test('cancel ends an open task through its server, and leaves an ended one alone', async () => {
  const { ask, backend } = gateway()
  backend.answers.set('cn.task_fail', ({ params }) => {
    backend.put.task({ status: 'failure', error: { code: String(params['code']), message: 'cancelled' } })
    return { value: {} }
  })
  const { status, body } = await ask('POST', `/tasks/${TASK}/cancel`)
  assert.equal([status, body.status, body.error.code], [200, 'failure', 'TaskCancelled'])
  assert.equal([backend.calls[0]?.id, backend.calls[0]?.params['task_id']], [SERVER, TASK])
  assert.is((await ask('POST', `/tasks/${TASK}/cancel`)).status, 200)
  assert.is(backend.calls.length, 1)
  assert.is((await ask('POST', `/tasks/${VM}/cancel`)).status, 404)
})

test('a refusal by the VM\u2019s actor keeps its code', async () => {
  const { ask, backend } = gateway()
  backend.answers.set('vm.create', refusing('VmExists'))
  const { status, body } = await ask('POST', vms, { body: { uuid: VM, ram: 1 } })
  assert.equal([status, body.code], [409, 'VmExists'])
})

test.run()
