/** Servers whose record is gone: who is told, by whom, and what survives a VM that cannot be told. */
import * as assert from 'uvu/assert'
import { createFleet } from '../../services/actor-host/fleet.ts'
import { createLostServers } from '../../services/actor-host/lost-servers.ts'
import { eventually } from '../eventually.ts'
import { suite } from '../suite.ts'

const test = suite('lost servers')
const quiet = { info: () => {}, warn: () => {}, error: () => {} }
const told = { revision: 1, gone: false, outbox: false, at: 5, server: '', state: 'running' }

function bench({ owned = true } = {}) {
  const fleet = createFleet()
  for (const [id, server] of Object.entries({ a: 's', b: 's', c: 'other' }))
    fleet.told({ ...told, kind: 'vm', id, server })
  const calls: unknown[] = []
  const call = (async (...args: unknown[]) => {
    calls.push(args)
    return args[1] === 'a' ? { error: { code: 'ServiceUnavailableError', message: '' } } : { value: {} }
  }) as never
  return { calls, lost: createLostServers({ call, fleet, owns: () => owned, log: quiet }) }
}

test('the VMs of a server whose record goes are told when it went, each of them', async () => {
  const { calls, lost } = bench()
  lost({ ...told, kind: 'cn', id: 's', gone: true, at: 9 })
  await eventually(() => calls.length === 2)
  const params = { server_uuid: 's', lost_at: 9 }
  assert.equal(
    calls.sort((a, b) => String(a).localeCompare(String(b))),
    [
      ['vm', 'a', 'server_lost', params],
      ['vm', 'b', 'server_lost', params],
    ],
  )
})

test('nobody is told of changes, of other kinds, or by who does not own the server', async () => {
  const { calls, lost } = bench()
  lost({ ...told, kind: 'cn', id: 's' })
  lost({ ...told, kind: 'vm', id: 's', gone: true })
  const other = bench({ owned: false })
  other.lost({ ...told, kind: 'cn', id: 's', gone: true })
  await new Promise(resolve => setImmediate(resolve))
  assert.equal([calls, other.calls], [[], []])
})

test.run()
