/** Placement over REST: what is refused before anybody is asked, what is asked, and how decisions are shown. */
import * as assert from 'uvu/assert'
import { CAPACITY_PAGE, gathered, inPages } from '../../gateway/unreserved.ts'
import { fakeGateway as gateway, OTHER_SERVER, SERVER } from '../fake-backend.ts'
import { suite } from '../suite.ts'

const test = suite('placement routes')
const owner = '0b56aec4-a207-4ea4-a735-558044916f38'
const body = (more: Record<string, unknown> = {}) => ({
  vm: { vm_uuid: owner, owner_uuid: owner, ram: 128, brand: 'kvm' },
  image: {},
  nic_tags: ['external'],
  ...more,
})
const vm = (more: Record<string, unknown>) => body({ vm: { ...body().vm, ...more } })

test('each rule of the parameters is refused with 500 and the field that is wrong', async () => {
  const { ask, backend } = gateway()
  const cases: [Record<string, unknown>, string[]][] = [
    [{}, ['vm', 'image', 'nic_tags']],
    [body({ vm: [] }), ['vm']],
    [body({ image: { image_size: 'large' } }), ['image']],
    [body({ image: { requirements: { min_platform: { '7.0': 'yesterday' } } } }), ['image']],
    [body({ package: { overprovision_cpu: 'much' } }), ['package']],
    [body({ package: { alloc_server_spread: 'thin' } }), ['package']],
    [vm({ owner_uuid: 'me' }), ['vm']],
    [vm({ ram: '128' }), ['vm']],
    [vm({ brand: 7 }), ['vm']],
    [vm({ affinity: [{ key: 'a', operator: '=', value: 'b', valueType: 're', isSoft: true }] }), ['vm']],
    [vm({ locality: { near: 'here' } }), ['vm']],
    [body({ image: { requirements: { min_ram: 256 } } }), ['vm']],
    [body({ servers: ['all'] }), ['servers']],
    [body({ nic_tag_requirements: [['']] }), ['nic_tag_requirements']],
    [body({ nic_tags: [1] }), ['nic_tags']],
    [body({ image: { image_size: 'large' }, nic_tags: [1] }), ['image']],
  ]
  for (const [wrong, fields] of cases) {
    const answer = await ask('POST', '/allocate', { body: wrong })
    assert.is(answer.status, 500, JSON.stringify(wrong))
    assert.is(answer.body.code, 'InvalidParameters')
    assert.equal(
      answer.body.errors.map(({ field, code }: { field: string; code: string }) => [field, code]),
      fields.map(field => [field, 'Invalid']),
    )
  }
  const capacity = await ask('POST', '/capacity', { body: { servers: 'all' } })
  assert.equal(
    [capacity.status, capacity.body.errors],
    [500, [{ field: 'servers', code: 'Invalid', message: 'value was not an array' }]],
  )
  assert.equal(backend.questions, [])
})

test('falsy members, text in place of JSON and unknown platform versions are accepted', async () => {
  const { ask, backend } = gateway()
  backend.put.server({ uuid: SERVER, status: 'running' })
  const image = { image_size: 0, traits: null, requirements: { min_platform: { smartos: '20210115T003355Z' } } }
  const pkg = { traits: '{"ssd": true}', overprovision_cpu: '2', min_platform: '' }
  assert.is((await ask('POST', '/allocate', { body: body({ image, package: pkg, servers: null }) })).status, 200)
  assert.equal(backend.questions[0]?.package, pkg)
})

test('a choice shows the server without VMs, what it has left, and the steps; all of them when asked', async () => {
  const { ask, backend } = gateway()
  backend.put.server({ uuid: SERVER, status: 'running' })
  backend.put.sysinfo(SERVER, { 'Network Interfaces': { br0: { 'Link Status': 'up' } } })
  const step = { step: 'Received by DAPI', rule: 'input', remaining: [], remaining_count: 2 }
  const next = { step: 'Servers', rule: 'one', remaining: [], remaining_count: 1, reasons: { [OTHER_SERVER]: 'no' } }
  const value = { id: owner, server_uuid: SERVER, score: 2.5, winners: 1, steps: [step, next] }
  const capacity = { cpu: 400, ram: 1024, disk: 4096 }
  backend.allocation = {
    value: {
      ...value,
      capacity,
      full: { servers: [SERVER, OTHER_SERVER], out_at: [255, 1] },
      claim: { id: owner, expires_at: 'soon' },
    },
  }
  const answer = await ask('POST', '/allocate?steps=full', { body: body({ claim: true }) })
  assert.is(answer.status, 200)
  const { server, steps, imgapiPeers, claim, allocation_id } = answer.body
  assert.equal(
    [server.uuid, server.score, server.unreserved_cpu, server.unreserved_ram, server.unreserved_disk],
    [SERVER, 2.5, 400, 1024, 4096],
  )
  assert.equal(server.sysinfo['Network Interfaces'].br0.interface, 'br0')
  assert.is('vms' in server, false)
  assert.equal(
    steps.map((told: { remaining: string[] }) => told.remaining),
    [[SERVER, OTHER_SERVER], [SERVER]],
  )
  assert.equal([imgapiPeers, claim.id, allocation_id], [[], owner, owner])
  assert.equal([backend.questions[0]?.steps, backend.questions[0]?.claim_ms], ['full', 60_000])
})

test('a step that left the servers as they were shows them all the same, in the choice and in its explanation', async () => {
  const { ask, backend } = gateway()
  const steps = [
    { step: 'Received by DAPI', rule: 'input', remaining: [SERVER, OTHER_SERVER], remaining_count: 2 },
    { step: 'Servers', rule: 'same', remaining_count: 2 },
    { step: 'Nobody', rule: 'none', remaining: [], remaining_count: 0 },
  ]
  const lists = [[SERVER, OTHER_SERVER], [SERVER, OTHER_SERVER], []]
  const value = { id: owner, server_uuid: null, score: null, winners: 0, steps }
  backend.allocation = { error: { code: 'NoAllocatableServersError', message: 'none' }, decision: value }
  backend.decisions.set(owner, { ...value, decided_at: 'now', input_digest: 'digest' })
  const listed = (told: { remaining: string[] }[]) => told.map(({ remaining }) => remaining)
  assert.equal(listed((await ask('POST', '/allocate', { body: body() })).body.steps), lists)
  assert.equal(listed((await ask('GET', `/allocations/${owner}`)).body.steps), lists)
})

test('a refusal is 409 with the steps and reasons that led to it', async () => {
  const { ask, backend } = gateway()
  const steps = [{ step: 'Received by DAPI', rule: 'input', remaining: [], remaining_count: 0 }]
  backend.allocation = {
    error: { code: 'NoAllocatableServersError', message: 'No compute resources available: received by DAPI' },
    decision: { id: owner, server_uuid: null, score: null, winners: 0, steps },
  }
  const answer = await ask('POST', '/allocate', { body: body() })
  assert.equal([answer.status, answer.body.code, answer.body.steps], [409, 'NoAllocatableServersError', steps])
})

test('a VM without a server goes where placement says, and its place is claimed for its uuid', async () => {
  const { ask, backend } = gateway()
  const payload = { uuid: owner, ram: 512, nics: [{ nic_tag: 'external' }, { nic_tag: 'external' }] }
  const answer = await ask('POST', '/vms', { body: payload })
  assert.equal([answer.status, answer.body.vm_uuid, answer.body.server_uuid], [200, owner, SERVER])
  const [question] = backend.questions
  assert.equal(
    [question?.vm.vm_uuid, question?.vm.ram, question?.nic_tags, question?.claim_ms],
    [owner, 512, ['external'], 60_000],
  )
  const { kind, verb, params } = backend.calls[0]!
  assert.equal([kind, verb, params['server_uuid']], ['vm', 'create', SERVER])
})

test('a VM that is gone or never came to be is placed anew, and the repeat of a keyed request is not', async () => {
  for (const state of ['destroyed', 'failed']) {
    const { ask, backend } = gateway()
    backend.put.vm({ uuid: owner, server_uuid: OTHER_SERVER, state, present: false })
    const again = await ask('POST', '/vms', { body: { uuid: owner, ram: 512 } })
    assert.equal([again.status, again.body.server_uuid, backend.questions.length], [200, SERVER, 1])
    const headers = { 'idempotency-key': 'once' }
    const repeat = await ask('POST', '/vms', { body: { uuid: owner, ram: 512 }, headers })
    assert.equal([repeat.body.server_uuid, backend.questions.length], [OTHER_SERVER, 1])
  }
  const { ask, backend } = gateway()
  backend.put.vm({ uuid: owner, server_uuid: OTHER_SERVER, state: 'running', present: true })
  assert.is((await ask('POST', '/vms', { body: { uuid: owner, ram: 512 } })).body.server_uuid, OTHER_SERVER)
  assert.is(backend.questions.length, 0)
})

test('capacities, decisions and the pages of the fleet are passed on', async () => {
  const { ask, backend } = gateway()
  const told = { capacities: { [SERVER]: { cpu: 1, ram: 2, disk: 3 } }, errors: { [OTHER_SERVER]: 'it is not set up' } }
  backend.capacities = { value: { ...told, ratios: {} } }
  assert.equal((await ask('POST', '/capacity', { body: {} })).body, told)
  backend.decisions.set(owner, { id: owner }).set(SERVER, { outcome: 'refused' })
  assert.equal((await ask('GET', `/allocations/${owner}`)).body, { id: owner })
  assert.equal((await ask('GET', `/allocations/${owner}?server=${SERVER}`)).body, { outcome: 'refused' })
  assert.is((await ask('GET', `/allocations/${OTHER_SERVER}`)).status, 404)
  backend.pages = { 0: { servers: [1, 2], next: 2 }, 2: { servers: [3] } }
  assert.equal((await ask('GET', '/fleet')).body, { servers: [1, 2, 3] })
})

test('servers show what they have left where they qualify, and nothing where nobody knows', async () => {
  const { ask, backend } = gateway()
  backend.put.server({ uuid: SERVER, status: 'running' })
  backend.put.server({ uuid: OTHER_SERVER, status: 'unknown' })
  const ratios = { cpu: 4, ram: 1, disk: 1 }
  backend.capacities = {
    value: { capacities: { [SERVER]: { cpu: 1600, ram: 6955, disk: -3 } }, ratios: { [SERVER]: ratios }, errors: {} },
  }
  const { body } = await ask('GET', `/servers/${SERVER}`)
  assert.equal(
    [body.unreserved_cpu, body.unreserved_ram, body.unreserved_disk, body.score, body.overprovision_ratios],
    [1600, 6955, -3, 0, ratios],
  )
  const listed = async (extras: string) => (await ask('GET', `/servers?extras=${extras}`)).body
  const shown = (await listed('capacity')).map((server: { unreserved_ram?: number }) => server.unreserved_ram)
  assert.equal(shown, [6955, undefined])
  assert.is('unreserved_ram' in (await listed('disk'))[0], false)
})

test('figures asked for together are asked for once, and a broken answer shows nothing', async () => {
  const asked: string[][] = []
  const left = gathered(async uuids => {
    asked.push(uuids)
    if (asked.length === 2) throw new Error('gone')
    return { value: { capacities: { a: { cpu: 1, ram: 2, disk: 3 } }, ratios: {}, errors: {} } }
  })
  const [one, other] = await Promise.all([left(['a']), left(['b', 'a'])])
  assert.equal(asked, [['a', 'b']])
  assert.equal([one, other.capacities['a']?.ram], [other, 2])
  assert.equal((await left(['a'])).capacities, {})
})

test('figures of a large fleet are asked for in pages, of which one that fails fails all', async () => {
  const asked: number[] = []
  const figures = { cpu: 1, ram: 2, disk: 3 }
  const capacities = inPages(async uuids => {
    asked.push(uuids.length)
    if (uuids.includes('missing')) return { error: { code: 'ServiceUnavailableError', message: 'gone' } }
    return { value: { capacities: Object.fromEntries(uuids.map(uuid => [uuid, figures])), ratios: {}, errors: {} } }
  })
  const uuids = Array.from({ length: 2 * CAPACITY_PAGE + 1 }, (_, n) => String(n))
  const all = await capacities(uuids)
  assert.equal(asked, [CAPACITY_PAGE, CAPACITY_PAGE, 1])
  assert.equal('value' in all && Object.keys(all.value.capacities), uuids)
  assert.ok('error' in (await capacities([...uuids, 'missing'])))
  assert.equal(await capacities([]), { value: { capacities: {}, ratios: {}, errors: {} } })
  assert.is(asked.at(-1), 0)
})

test.run()
