/** What a survey does not know it does not say: a VM is a zombie or missing only where its record and its node were both read. */
import * as assert from 'uvu/assert'
import { rejection } from '../../actors/contract/errors.ts'
import { survey } from '../../gateway/drift-survey.ts'
import { foundVm, wantedVm, withDrift } from '../drift-sample.ts'
import { type FakeBackend, fakeBackend, fakeGateway, SERVER, VM } from '../fake-backend.ts'
import { suite } from '../suite.ts'

const test = suite('drift survey')

function surveyed(change: (backend: FakeBackend) => void) {
  const backend = fakeBackend()
  backend.put.server({ uuid: SERVER })
  backend.put.vm({ uuid: VM, server_uuid: SERVER })
  withDrift(backend)
  change(backend)
  return backend
}
const without = { zombies: [], missing: [], drift: [] }
const listed = async (backend: FakeBackend) => {
  const { zombies, missing, drift, unread } = await survey(backend, SERVER, 'r')
  return { zombies, missing, drift, unread }
}
const codes = (unread: { vm_uuid: string; code: string }[]) => unread.map(({ vm_uuid, code }) => [vm_uuid, code])

test('a VM whose record cannot be read is no zombie, and nothing is settled for it', async () => {
  const backend = surveyed(({ answers }) =>
    answers.set('vm.get', () => ({ error: rejection('ServiceUnavailableError', 'nobody owns it') })),
  )
  const { unread, ...rest } = await listed(backend)
  assert.equal([rest, codes(unread)], [without, [[VM, 'ServiceUnavailableError']]])
  const { status, body } = await fakeGateway(backend).ask('POST', `/servers/${SERVER}/drift`, {
    body: { vm_uuid: VM, action: 'adopt' },
  })
  assert.equal([status, body.code], [409, 'VmBusy'])
  assert.match(body.message, /nobody owns it.*ask again/)
})

test('a VM that is in the last report of a silent node, and whose record cannot be read, is no zombie either', async () => {
  const backend = surveyed(({ reads, answers, put }) => {
    reads.set('machine_found', { error: rejection('AgentNotConnected') })
    answers.set('vm.get', () => ({ error: rejection('ServiceUnavailableError') }))
    put.status(SERVER, { vms: { [VM]: { uuid: VM, state: 'running' } }, timestamp: new Date().toISOString() } as never)
  })
  const { unread, ...rest } = await listed(backend)
  assert.equal([rest, codes(unread)], [without, [[VM, 'ServiceUnavailableError']]])
})

test('of a node that never comes to the end of its pages nothing is taken for missing', async () => {
  const backend = surveyed(({ reads }) =>
    reads.set('machine_found', { value: { at: 10_000, vms: [], unread: [], next: VM } }),
  )
  const { missing, notLive } = await survey(backend, SERVER, 'r')
  assert.equal([missing, notLive?.code], [[], 'HypervisorError'])
})

test('a VM without a record is a zombie', async () => {
  const backend = surveyed(({ answers }) => answers.set('vm.get', () => ({ error: rejection('VmNotFound') })))
  assert.equal(
    (await listed(backend)).zombies.map(one => one.vm_uuid),
    [VM],
  )
})

test('a VM that was made or destroyed while its node was looked at is neither missing nor a zombie', async () => {
  const record = (state: string) => ({ value: { state, snapshot: { context: { ...wantedVm, settled_at: 10_001 } } } })
  const made = surveyed(({ reads, answers }) => {
    reads.set('machine_found', { value: { at: 10_000, vms: [], unread: [] } })
    answers.set('vm.get', () => record('running'))
  })
  assert.equal(await listed(made), { ...without, unread: [] })
  const destroyed = surveyed(({ reads, answers }) => {
    reads.set('machine_found', { value: { at: 10_000, vms: [{ ...foundVm, since: {} }], unread: [] } })
    answers.set('vm.get', () => record('destroyed'))
  })
  const { unread, ...rest } = await listed(destroyed)
  assert.equal([rest, codes(unread)], [without, [[VM, 'VmBusy']]])
})

test.run()
