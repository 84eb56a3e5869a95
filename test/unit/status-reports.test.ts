/** What the owner of a node makes of its status events: who is told what, and what is written. */
import * as assert from 'uvu/assert'
import type { StatusEvent } from '../../actors/contract/server.ts'
import { createFleet } from '../../services/actor-host/fleet.ts'
import { createStatusReports } from '../../services/actor-host/status.ts'
import { ConflictError, type Records } from '../../services/nats/records.ts'
import { suite } from '../suite.ts'

const test = suite('status reports')
const quiet = { info: () => {}, warn: () => {}, error: () => {} }
const refused = { error: { code: 'ResourceNotFound', message: 'server s not found' } }
const start = Date.parse('2026-01-01T00:00:00Z')

function bench() {
  const clock = { now: start }
  const fleet = createFleet()
  fleet.told({ kind: 'cn', id: 's', revision: 1, gone: false, outbox: false, at: start, server: '', state: 'running' })
  const written: StatusEvent[] = []
  const told: string[] = []
  const answers = new Map<string, unknown>()
  /** Records of servers, as the bucket has them. */
  const stored = new Map<string, unknown>([['s', { state: 'running' }]])
  /** The inventory of the server; deleting it is a revision too. */
  const inventory: { value: StatusEvent | undefined; revision: number } = { value: undefined, revision: 0 }
  /** Called before each write. */
  const hooks = { beforeWrite: async () => {} }
  const drop = () => Object.assign(inventory, { value: undefined, revision: inventory.revision + 1 })
  const reports = createStatusReports({
    records: {
      look: async () => ({ ...inventory }),
      update: async (_b: string, name: string, value: StatusEvent, revision: number) => {
        await hooks.beforeWrite()
        assert.is(name, 's.status')
        if (revision !== inventory.revision) throw new ConflictError('wrong last sequence')
        written.push(value)
        return Object.assign(inventory, { value, revision: revision + 1 }).revision
      },
      get: async (bucket: string, id: string) => {
        if (bucket === 'inventory') return inventory.value && { ...inventory }
        return stored.has(id) ? { value: stored.get(id), revision: 1 } : undefined
      },
    } as unknown as Records,
    call: (async (_kind: string, id: string, verb: string, { vm }: { vm?: { state: string } }) => {
      if (id.includes('.')) throw new TypeError(`not a subject token: ${id}`)
      told.push([verb, id, vm?.state].filter(Boolean).join(' '))
      return answers.get(id) ?? { value: {} }
    }) as never,
    fleet,
    log: quiet,
    now: () => clock.now,
  })
  const record = (id: string, state: string) =>
    fleet.told({ kind: 'vm', id, revision: 1, gone: false, outbox: false, at: clock.now, server: 's', state })
  const report = async (vms: Record<string, string>, more: Partial<StatusEvent> = {}) => {
    told.length = 0
    const entries = Object.entries(vms).map(([uuid, state]) => [uuid, { uuid, state }])
    await reports.take('s', { vms: Object.fromEntries(entries), timestamp: new Date(clock.now).toISOString(), ...more })
    await reports.idle()
    return [...told].sort()
  }
  return { clock, fleet, stored, inventory, hooks, drop, reports, record, report, written, answers, told }
}

test('only differences are told, and everything again after a take-over', async () => {
  const { reports, report } = bench()
  assert.equal(await report({ a: 'running', b: 'stopped' }), ['reported a running', 'reported b stopped'])
  assert.equal(await report({ a: 'running', b: 'stopped' }), [])
  assert.equal(await report({ a: 'running', b: 'running' }), ['reported b running'])
  reports.forget()
  assert.equal(await report({ a: 'running', b: 'running' }), ['reported a running', 'reported b running'])
})

test('a VM whose record was forgotten since is told again, so that it is discovered', async () => {
  const { clock, fleet, record, report, reports } = bench()
  record('a', 'running')
  assert.equal(await report({ a: 'running' }), ['reported a running'])
  clock.now += 60_000
  assert.equal(await report({ a: 'running' }), [])
  const gone = {
    kind: 'vm',
    id: 'a',
    revision: 2,
    gone: true,
    outbox: false,
    at: clock.now,
    server: '',
    state: '',
  } as const
  fleet.told(gone)
  assert.equal(await report({ a: 'running' }), ['reported a running'])
  // One that was only just told has a record on its way.
  assert.equal(await report({ a: 'running' }), [])
  reports.forgetOne('s')
  assert.equal(await report({ a: 'running' }), ['reported a running'])
})

test('of a report that is being told, no more is told once its server is forgotten', async () => {
  const { reports, report, answers } = bench()
  const many = Object.fromEntries(Array.from({ length: 40 }, (_, n) => [`vm${n}`, 'running']))
  let answer = (_reply: unknown) => {}
  const answered = new Promise(resolve => {
    answer = resolve
  })
  for (const id of Object.keys(many)) answers.set(id, answered)
  const telling = report(many)
  await new Promise(resolve => setImmediate(resolve))
  reports.forgetOne('s')
  answer({ value: {} })
  const { length } = await telling
  assert.ok(length > 0 && length < 40, `${length} told`)
})

test('a server that is deleted or was never there is unknown, whatever mark its record leaves', async () => {
  const { fleet, stored, reports } = bench()
  const told = { kind: 'cn', id: 's', revision: 2, gone: false, outbox: false, at: start, server: '' } as const
  for (const state of ['deleted', 'defaults', 'unregistered', 'forgotten']) {
    fleet.told({ ...told, state })
    stored.set('s', { state })
    assert.equal(await reports.take('s', { vms: {} }), refused, state)
  }
  stored.delete('s')
  assert.equal(await reports.take('s', { vms: {} }), refused)
  // Registered a moment ago: the index does not know yet.
  stored.set('s', { state: 'running' })
  assert.equal(await reports.take('s', { vms: {} }), { value: {} })
})

for (const when of ['its first', 'a later'] as const) {
  test(`a server that is deleted while ${when} report of it is written keeps none, and no VM hears of it`, async () => {
    const { stored, inventory, hooks, drop, reports, told } = bench()
    if (when === 'a later') assert.equal(await reports.take('s', { vms: {} }), { value: {} })
    hooks.beforeWrite = async () => {
      stored.set('s', { state: 'deleted' })
      drop()
      reports.forgetOne('s')
    }
    const reply = await reports.take('s', { vms: { a: { uuid: 'a', state: 'running' } } })
    await reports.idle()
    assert.equal(reply, refused)
    assert.equal([inventory.value, told], [undefined, []])
  })
}

test('a report of a deleted server is refused although the index still has it running, until it registers again', async () => {
  const { stored, inventory, reports, told } = bench()
  stored.set('s', { state: 'deleted' })
  for (let n = 0; n < 2; n++) {
    assert.equal(await reports.take('s', { vms: { a: { uuid: 'a', state: 'running' } } }), refused)
    await reports.idle()
    assert.equal([inventory.value, told], [undefined, []])
  }
  stored.set('s', { state: 'running' })
  assert.equal(await reports.take('s', { vms: {} }), { value: {} })
  assert.equal(inventory.value, { vms: {} })
})

test('a report meets a write of somebody else and is written all the same', async () => {
  const { inventory, hooks, drop, reports } = bench()
  await reports.take('s', { vms: {} })
  let others = 3
  hooks.beforeWrite = async () => {
    if (others-- > 0) drop()
  }
  const vms = { a: { uuid: 'a', state: 'running' } }
  assert.equal(await reports.take('s', { vms }), { value: {} })
  assert.equal(inventory.value, { vms })
  hooks.beforeWrite = async () => void drop()
  const reply = await reports.take('s', { vms: {} })
  assert.is('error' in reply && reply.error.code, 'ServiceUnavailableError')
})

test('a VM that is not in the report has vanished, once, and only if its record says it is there', async () => {
  const { clock, record, report } = bench()
  for (const [id, state] of Object.entries({ a: 'running', b: 'destroyed', c: 'provisioning', d: 'missing' })) {
    record(id, state)
  }
  clock.now += 60_000
  assert.equal(await report({}), ['vanished a'])
  assert.equal(await report({}), [])
})

test('a record that changed after the sample is left to the next report', async () => {
  const { clock, record, report } = bench()
  clock.now += 60_000
  const sampledAt = new Date(clock.now).toISOString()
  clock.now += 500
  record('a', 'running')
  assert.equal(await report({}, { timestamp: sampledAt }), [])
  clock.now += 60_000
  assert.equal(await report({}), ['vanished a'])
})

test('a VM that is gone is noticed although the clock of its node was set back', async () => {
  const { clock, record, report } = bench()
  record('a', 'running')
  const hourAgo = () => ({ timestamp: new Date(clock.now - 3600_000).toISOString() })
  clock.now += 60_000
  assert.equal(await report({}, hourAgo()), [])
  clock.now += 60_000
  assert.equal(await report({}, hourAgo()), ['vanished a'])
})

test('what was told counts no longer once somebody else changed the record', async () => {
  const { clock, record, report } = bench()
  record('a', 'running')
  clock.now += 10_000
  await report({ a: 'stopped' })
  clock.now += 60_000
  record('a', 'running')
  clock.now += 60_000
  assert.equal(await report({ a: 'stopped' }), ['reported a stopped'])
})

test('ids that cannot be any keep nobody else from being told', async () => {
  const { report } = bench()
  const ids = Array.from({ length: 40 }, (_, n) => `vm${String(n).padStart(2, '0')}`)
  const vms = Object.fromEntries([...ids, ...ids.map(id => `no.${id}`)].map(id => [id, 'running']))
  assert.equal(
    await report(vms),
    ids.map(id => `reported ${id} running`),
  )
})

test('what did not arrive is told again with the next report; what was refused is not', async () => {
  const { report, answers } = bench()
  answers.set('a', { error: { code: 'ServiceUnavailableError', message: '' } })
  answers.set('b', { error: { code: 'VmOnOtherServer', message: '' } })
  await report({ a: 'running', b: 'running' })
  assert.equal(await report({ a: 'running', b: 'running' }), ['reported a running'])
})

test('memory and disks are written once a minute, a change of the VMs at once', async () => {
  const { clock, report, written } = bench()
  const memory = (availrmem_bytes: number) => ({ meminfo: { availrmem_bytes } })
  await report({}, memory(1))
  await report({}, memory(2))
  assert.is(written.length, 1)
  await report({ a: 'running' }, memory(3))
  assert.is(written.length, 2)
  clock.now += 61_000
  await report({ a: 'running' }, memory(4))
  assert.is(written.at(-1)?.meminfo?.availrmem_bytes, 4)
})

test.run()
