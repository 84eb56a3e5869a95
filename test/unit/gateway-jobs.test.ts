/** Setup, reboot, factory reset, NICs and the agent's pause as CNAPI's clients expect them (cnapi-behaviour §7), and what a job_uuid leads to. */
import * as assert from 'uvu/assert'
import { fakeGateway, JOB, OTHER_SERVER, refusing, SERVER, VM } from '../fake-backend.ts'
import { preparedBackend } from '../gateway-samples.ts'
import { suite } from '../suite.ts'

const test = suite('jobs over HTTP')
const one = `/servers/${SERVER}`
const MAC = '52:54:00:12:34:56'
const nics = [{ mac: MAC, nic_tags_provided: ['external'] }]

function gateway(server: Record<string, unknown> = {}) {
  const made = fakeGateway(preparedBackend())
  made.backend.put.server({ setup: false, ...server })
  const sent = () =>
    made.backend.calls.map(({ verb, params }) => [verb, params['name'] ?? params['task'], params['params']])
  return { ...made, sent }
}
const fields = (body: { errors?: { field: string }[] }) => body.errors?.map(({ field }) => field)

test('setup answers 202 with the job, and gives it hostname, NICs and script', async () => {
  const { ask, sent } = gateway()
  const body = {
    ...{ hostname: 'node7', nics, postsetup_script: 'true' },
    ...{ disk_spares: '1', disk_width: 2, disk_cache: 'TRUE', disk_layout: 'raidz1', disk_exclude: 'c0t0d0' },
    encryption_enabled: false,
  }
  const answer = await ask('PUT', `${one}/setup`, { body })
  assert.is(answer.status, 202)
  assert.equal(Object.keys(answer.body), ['job_uuid'])
  assert.is(answer.headers.get('link'), `</jobs/${answer.body.job_uuid}>; rel="monitor"`)
  assert.equal(sent(), [['job_start', 'server-setup', { hostname: 'node7', nics, postsetup_script: 'true' }]])
})

test('setup of a server that is set up is 204, but bad input is refused all the same', async () => {
  const { ask, sent } = gateway({ setup: true })
  const done = await ask('PUT', `${one}/setup`, { body: { hostname: 'node7' } })
  assert.equal([done.status, done.text], [204, ''])
  assert.is((await ask('PUT', `${one}/setup`, { body: { nics: 'none' } })).status, 400)
  assert.is((await ask('PUT', `${one}/setup`, { body: { disk_layout: 'raid0' } })).status, 409)
  assert.equal(sent(), [])
})

test('setup refuses what it does not know and what is malformed', async () => {
  const { ask, sent } = gateway()
  for (const name of ['origin', 'creator_uuid', 'bogus']) {
    const { status, body } = await ask('PUT', `${one}/setup`, { body: { [name]: 'x' } })
    assert.equal([status, body.message], [409, `${name} is not an explicitly defined parameter`])
  }
  const layout = await ask('PUT', `${one}/setup`, { body: { disk_layout: 'raid0' } })
  assert.is(layout.body.message, 'disk_layout must be one of: single, mirror, raidz1, raidz2, raidz3')
  const cases: [Record<string, unknown>, string][] = [
    [{ hostname: 7 }, 'hostname'],
    [{ hostname: null }, 'hostname'],
    [{ hostname: '-bad-' }, 'hostname'],
    [{ nics: {} }, 'nics'],
    [{ nics: [{ mac: MAC }] }, 'nics'],
    [{ nics: [{ mac: 'x', nic_tags_provided: [] }] }, 'nics'],
    [{ nics: [null] }, 'nics'],
    [{ postsetup_script: ['a'] }, 'postsetup_script'],
    [{ postsetup_script: 'a'.repeat(70_000) }, 'postsetup_script'],
    [{ disk_spares: 'many' }, 'disk_spares'],
    [{ disk_width: -1 }, 'disk_width'],
    [{ disk_cache: 'yes' }, 'disk_cache'],
    [{ encryption_enabled: 1 }, 'encryption_enabled'],
  ]
  for (const [body, field] of cases) {
    const answer = await ask('PUT', `${one}/setup`, { body })
    assert.equal([answer.status, answer.body.code, fields(answer.body)], [400, 'InvalidParameters', [field]])
  }
  assert.equal(sent(), [])
})

test('an empty hostname is none', async () => {
  const { ask, sent } = gateway()
  assert.is((await ask('PUT', `${one}/setup`, { body: { hostname: '' } })).status, 202)
  assert.equal(sent(), [['job_start', 'server-setup', {}]])
})

test('reboot answers 202 with the job; drain, origin and creator are given to it', async () => {
  const { ask, sent } = gateway()
  assert.is((await ask('POST', `${one}/reboot`)).status, 202)
  assert.is((await ask('POST', `${one}/reboot`, { body: { drain: true, origin: 'me', creator_uuid: VM } })).status, 202)
  assert.equal(sent(), [
    ['job_start', 'server-reboot', { drain: false }],
    ['job_start', 'server-reboot', { drain: true, origin: 'me', creator_uuid: VM }],
  ])
})

test('reboot takes real booleans only, and no parameter that it does not know', async () => {
  const { ask } = gateway()
  for (const drain of ['true', 'TRUE', 1, null, [true]]) {
    const { status, body } = await ask('POST', `${one}/reboot`, { body: { drain } })
    assert.equal(
      [status, body.errors],
      [400, [{ field: 'drain', code: 'Invalid', message: 'value was not true or false' }]],
    )
  }
  assert.is((await ask('POST', `${one}/reboot`, { body: { force: true } })).status, 409)
})

test('a reboot without a job waits for its task: 204, or what became of it', async () => {
  const { ask, backend, sent } = gateway({ agents: [{ name: 'cn-agent', version: '2.9.1' }] })
  const done = await ask('POST', `${one}/reboot`, { body: { nojob: true, drain: true } })
  assert.equal([done.status, done.text], [204, ''])
  assert.equal(sent(), [['task_add', 'server_reboot', {}]])
  backend.outcome = { status: 'failure', error: { code: 'TaskNotSupported', message: 'unknown task' } }
  const old = await ask('POST', `${one}/reboot`, { body: { nojob: true } })
  assert.equal(
    [old.status, old.body.code, old.body.message],
    [503, 'ServiceUnavailableError', 'cn-agent version on server does not support server_reboot: 2.9.1 < 2.11.0'],
  )
  backend.put.server({ agents: [] })
  const unknown = await ask('POST', `${one}/reboot`, { body: { nojob: true } })
  assert.match(unknown.body.message, /unknown < 2\.11\.0$/)
  for (const [code, status] of [
    ['AgentPaused', 503],
    ['AgentNotConnected', 503],
    ['TaskFailed', 500],
  ] as const) {
    backend.outcome = { status: 'failure', error: { code, message: 'no' } }
    const failed = await ask('POST', `${one}/reboot`, { body: { nojob: true } })
    assert.equal([failed.status, failed.body.code], [status, code])
  }
})

test('another job that runs is 409; the same one answers its uuid', async () => {
  const { ask, backend } = gateway()
  backend.answers.set('cn.job_start', refusing('JobRunning'))
  for (const [method, path] of [
    ['PUT', 'setup'],
    ['POST', 'reboot'],
  ] as const) {
    const { status, body } = await ask(method, `${one}/${path}`)
    assert.equal([status, body.code], [409, 'JobRunning'])
  }
  backend.answers.set('cn.job_start', () => ({ value: { job_uuid: JOB } }))
  assert.equal((await ask('POST', `${one}/reboot`)).body, { job_uuid: JOB })
})

test('a factory reset is refused with a text as JSON string as long as there are VMs', async () => {
  const { ask, backend, sent } = gateway()
  const refused = await ask('PUT', `${one}/factory-reset`)
  assert.equal([refused.status, refused.text], [409, '"Server may not be reset because it has 2 vms"'])
  assert.is(refused.headers.get('content-type'), 'application/json')
  const destroy = () => {
    for (const { uuid } of backend.vms.of(SERVER)) backend.put.vm({ uuid, state: 'destroyed', present: false })
  }
  destroy()
  // The node's last report: one VM is destroyed since, another nobody has heard of yet.
  backend.put.status(SERVER, { vms: { [VM]: { uuid: VM, state: 'running' }, [JOB]: { uuid: JOB, state: 'running' } } })
  backend.put.vm({ uuid: JOB, state: 'running', present: true })
  assert.match((await ask('PUT', `${one}/factory-reset`)).text, /has 1 vms/)
  destroy()
  const { status, body } = await ask('PUT', `${one}/factory-reset`, { body: { origin: 'me' } })
  assert.equal([status, Object.keys(body)], [202, ['job_uuid']])
  assert.equal(sent(), [['job_start', 'server-factory-reset', { origin: 'me' }]])
  assert.is((await ask('PUT', `${one}/factory-reset`, { body: { force: true } })).status, 409)
})

test('NICs are updated of a server that is set up, by one of three actions', async () => {
  const { ask, backend, sent } = gateway()
  const put = (body: unknown) => ask('PUT', `${one}/nics`, { body })
  const early = await put({ action: 'update', nics })
  assert.equal([early.status, early.body.code, early.body.message], [409, 'ServerNotSetup', 'Server is not setup'])
  backend.put.server({ setup: true })
  for (const [body, errors] of [
    [{}, ['action', 'nics']],
    [{ action: 'add', nics }, ['action']],
    [{ action: 'update', nics: 'x' }, ['nics']],
    [{ action: 'update', nics: [{ mac: MAC }] }, ['nics']],
  ] as const) {
    const answer = await put(body)
    assert.equal([answer.status, fields(answer.body)], [400, errors])
  }
  const action = await put({ action: 'add', nics })
  assert.is(action.body.errors[0].message, "action must be 'update', 'replace', or 'delete'")
  const { status, body } = await put({ action: 'delete', nics, more: 'is not looked at' })
  assert.equal([status, Object.keys(body)], [202, ['job_uuid']])
  assert.equal(sent(), [['job_start', 'server-update-nics', { action: 'delete', nics }]])
})

test('a nic tag that a VM uses is not taken away, by delete or by replace', async () => {
  const { ask, backend, sent } = gateway({ setup: true })
  backend.put.sysinfo(SERVER, {
    'Network Interfaces': {
      eth0: { 'MAC Address': MAC.toUpperCase(), 'NIC Names': ['admin', 'external'], Bridge: 'br0' },
      br0: { 'NIC Names': ['admin', 'external'], Bridge: 'br0' },
      eth1: { 'MAC Address': '52:54:00:12:34:57', 'NIC Names': ['storage'], Bridge: 'br1' },
    },
  })
  backend.put.vm({ nic_tags: ['external'] })
  const put = (action: string, tags: string[], path = 'nics') =>
    ask(path === 'nics' ? 'PUT' : 'POST', `${one}/${path}`, {
      body: { action, nics: [{ mac: MAC, nic_tags_provided: tags }] },
    })
  for (const [action, tags] of [
    ['delete', ['external']],
    ['replace', ['admin']],
    ['replace', []],
  ] as const) {
    for (const path of ['nics', 'nics/update']) {
      const { status, body } = await put(action, [...tags], path)
      assert.equal([status, body.code, body.message], [409, 'NicTagInUse', `VM ${VM} uses the nic tag external`])
    }
  }
  assert.equal(sent(), [])
  for (const [action, tags] of [
    ['delete', ['admin']],
    ['replace', ['external']],
    ['update', []],
  ] as const) {
    assert.is((await put(action, [...tags])).status, 202)
  }
  backend.put.vm({ nic_tags: ['external'], present: false, state: 'destroyed' })
  assert.is((await put('delete', ['external'])).status, 202)
})

test('the NIC task without a job replaces, unless it is told otherwise', async () => {
  const { ask, sent } = gateway()
  const { status, body } = await ask('POST', `${one}/nics/update`, { body: { nics } })
  assert.equal([status, Object.keys(body)], [200, ['id']])
  assert.equal(sent(), [['task_add', 'server_update_nics', { action: 'replace', nics }]])
})

test('pause and resume are 204 by POST and by GET, and look at no parameters', async () => {
  const { ask, sent } = gateway()
  for (const method of ['POST', 'GET'] as const) {
    for (const verb of ['pause', 'resume']) {
      const { status, text } = await ask(method, `${one}/cn-agent/${verb}?whatever=1`)
      assert.equal([status, text], [204, ''])
    }
  }
  assert.equal(
    sent().map(([verb]) => verb),
    ['pause', 'resume', 'pause', 'resume'],
  )
})

test('none of them works on a server that is not running, or on the boot defaults', async () => {
  const { ask } = gateway({ status: 'rebooting' })
  const calls = [
    ['PUT', 'setup'],
    ['POST', 'reboot'],
    ['PUT', 'factory-reset'],
    ['PUT', 'nics'],
    ['POST', 'nics/update'],
    ['POST', 'cn-agent/pause'],
    ['POST', 'cn-agent/resume'],
  ] as const
  for (const [method, path] of calls) {
    for (const id of [SERVER, 'default']) {
      const { status, body } = await ask(method, `/servers/${id}/${path}`, { body: { bogus: 1 } })
      assert.equal([path, status, body.code], [path, 409, 'ServerNotRunning'])
    }
    assert.is((await ask(method, `/servers/${OTHER_SERVER}/${path}`)).status, 404)
    assert.is((await ask(method, `/servers/nonsense/${path}`)).status, 409)
  }
})

test('a server that is being rebooted is shown so while it is silent, and with its job', async () => {
  const { ask, backend } = gateway({ status: 'rebooting', transitional_status: 'rebooting', job_uuid: JOB })
  const shown = async () => (await ask('GET', one)).body
  assert.equal([(await shown()).status, (await shown()).job_uuid], ['rebooting', JOB])
  backend.put.server({ status: 'unknown', transitional_status: 'rebooting' })
  assert.is((await shown()).status, 'rebooting')
  backend.put.server({ status: 'running', transitional_status: 'rebooting' })
  assert.is((await shown()).status, 'running', 'it still beats')
  backend.put.server({ status: 'unknown', transitional_status: '' })
  assert.is((await shown()).status, 'unknown')
})

test('a repeat with the same Idempotency-Key answers the same job, also when it is over', async () => {
  const { ask, backend } = gateway()
  const headers = { 'idempotency-key': 'k1' }
  const first = await ask('POST', `${one}/reboot`, { headers })
  backend.put.job({ uuid: first.body.job_uuid, execution: 'failed' })
  backend.calls.length = 0
  assert.equal((await ask('POST', `${one}/reboot`, { headers })).body, first.body)
  assert.equal(backend.calls, [])
})

test('a job of which there is only a body is begun by the repeat of its request', async () => {
  const { ask, backend, sent } = gateway()
  const headers = { 'idempotency-key': 'k1' }
  // The owner wrote the body and died before its commit: nobody was answered.
  const { job_uuid } = (await ask('POST', `${one}/reboot`, { headers })).body
  backend.put.job({ uuid: job_uuid, execution: 'running' })
  backend.calls.length = 0
  assert.equal((await ask('POST', `${one}/reboot`, { headers })).body, { job_uuid })
  assert.equal(sent(), [['job_start', 'server-reboot', { drain: false }]])
  assert.is(backend.calls[0]?.params['job_uuid'], job_uuid)
})

test('jobs are listed newest first, by server, name and execution, in pages', async () => {
  const { ask, backend } = gateway()
  const ids = [1, 2, 3].map(n => `6666666${n}-6666-4666-8666-666666666666`)
  for (const [n, uuid] of ids.entries()) backend.put.job({ uuid, created_at: `2026-02-0${n + 1}T00:00:00.000Z` })
  backend.put.job({ uuid: ids[0]!, name: 'server-setup', execution: 'failed', created_at: '2026-02-01T00:00:00.000Z' })
  backend.put.job({ uuid: ids[1]!, server_uuid: OTHER_SERVER, created_at: '2026-02-02T00:00:00.000Z' })
  const list = async (query: string) => {
    const { status, body } = await ask('GET', `/jobs?${query}`)
    assert.is(status, 200)
    return body.map(({ uuid }: { uuid: string }) => [...ids, JOB].indexOf(uuid))
  }
  assert.equal(await list(''), [2, 1, 0, 3])
  assert.equal(await list('execution=failed'), [0])
  assert.equal(await list('name=server-setup&execution=running'), [])
  assert.equal(await list(`server_uuid=${OTHER_SERVER.toUpperCase()}`), [1])
  assert.equal(await list('limit=2&offset=1'), [1, 0])
  for (const query of ['execution=done', 'name=server', 'server_uuid=x', 'limit=0', 'limit=1001', 'offset=-1']) {
    const { status, body } = await ask('GET', `/jobs?${query}`)
    assert.equal([query, status, fields(body)], [query, 400, [query.split('=')[0]]])
  }
  assert.is((await ask('GET', '/jobs?vm_uuid=x')).status, 409)
})

test('a wait answers when the job ends, and at its timeout with the job as it is', async () => {
  const { ask, backend } = gateway()
  const waiting = ask('GET', `/jobs/${JOB}/wait`)
  backend.put.job({ execution: 'succeeded' })
  assert.equal([(await waiting).status, (await waiting).body.execution], [200, 'succeeded'])
  backend.put.job({ execution: 'running' })
  const late = await ask('GET', `/jobs/${JOB}/wait?timeout=1`)
  assert.equal([late.status, late.body.execution], [200, 'running'])
  for (const path of ['', '/wait']) {
    for (const id of ['nonsense', SERVER]) {
      const { status, body } = await ask('GET', `/jobs/${id}${path}`)
      assert.equal([status, body.message], [404, 'no such job found'])
    }
  }
})

test('an end is told when the server is no longer as it was before', async () => {
  const { ask, backend } = gateway({ setting_up: true, job_uuid: JOB })
  backend.put.job({ execution: 'succeeded' })
  const told = [ask('GET', `/jobs/${JOB}`), ask('GET', `/jobs/${JOB}/wait`)].map(async answer => {
    await answer
    return backend.servers.get(SERVER)?.setup
  })
  setTimeout(() => backend.put.server({ setup: true }), 20)
  assert.equal(await Promise.all(told), [true, true])
})

test('cancel asks the node of a running job, and leaves one that is over as it is', async () => {
  const { ask, backend, sent } = gateway()
  assert.is((await ask('POST', `/jobs/${JOB}/cancel`)).status, 200)
  assert.equal(
    sent().map(([verb]) => verb),
    ['job_cancel'],
  )
  backend.put.job({ execution: 'succeeded' })
  const { status, body } = await ask('POST', `/jobs/${JOB.toUpperCase()}/cancel`)
  assert.equal([status, body.execution, sent().length], [200, 'succeeded', 1])
  assert.is((await ask('POST', `/jobs/${SERVER}/cancel`)).status, 404)
})

test.run()
