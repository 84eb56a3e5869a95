/** GET /servers/:uuid/status: what is known of a node, by whom, how old, and what a look now finds. */
import * as assert from 'uvu/assert'
import { rejection } from '../../actors/contract/errors.ts'
import { fakeGateway, SERVER } from '../fake-backend.ts'
import { suite } from '../suite.ts'

const test = suite('status of a server')
const ago = (ms: number) => new Date(Date.now() - ms).toISOString()
const gib = 1024 ** 3
const path = `/servers/${SERVER}/status`

function node() {
  const gateway = fakeGateway()
  gateway.backend.put.server({ hostname: 'node1', status: 'running' })
  return gateway
}

test('evidence tells who saw what, and how old it is', async () => {
  const { ask, backend } = node()
  backend.put.beat(SERVER, Date.now() - 3_000)
  backend.put.status(SERVER, {
    timestamp: ago(30_000),
    diskinfo: { pool_size_bytes: 100 * gib, pool_alloc_bytes: 40 * gib },
    health: {
      hypervisor: { ok: false, message: 'libvirt does not answer', at: ago(30_000) },
      openvswitch: { ok: true, message: 'Open vSwitch 3.1', at: ago(60_000) },
    },
  })
  const { status, body } = await ask('GET', path)
  assert.is(status, 200)
  assert.equal([body.server_uuid, body.hostname, body.status], [SERVER, 'node1', 'running'])
  const brief = (name: string) => {
    const { ok, message, age_s, seen_by } = body.evidence[name]
    return [ok, message, age_s === null ? null : Math.round(age_s), seen_by]
  }
  assert.equal(brief('liveness'), [true, 'the record says running', null, 'actor'])
  assert.equal(brief('heartbeat'), [true, 'last heartbeat', 3, 'gateway'])
  assert.equal(brief('hypervisor'), [false, 'libvirt does not answer', 30, 'agent'])
  assert.equal(brief('openvswitch'), [true, 'Open vSwitch 3.1', 60, 'agent'])
  assert.equal(brief('storage'), [true, '60 of 100 GiB free', 30, 'agent'])
  assert.is(brief('agent')[0], true)
})

test('what is too old or was never told is unknown, not bad', async () => {
  const { ask, backend } = node()
  const bare = (await ask('GET', path)).body.evidence
  for (const name of ['heartbeat', 'agent', 'hypervisor', 'openvswitch', 'storage'])
    assert.is(bare[name].ok, null, name)
  backend.put.status(SERVER, {
    timestamp: ago(3_600_000),
    diskinfo: { pool_size_bytes: gib, pool_alloc_bytes: 0 },
    health: { hypervisor: { ok: true, message: 'libvirt 9', at: ago(3_600_000) } },
  })
  backend.put.beat(SERVER, Date.now() - 60_000)
  const old = (await ask('GET', path)).body.evidence
  for (const name of ['agent', 'hypervisor', 'storage'])
    assert.equal([old[name].ok, old[name].age_s >= 3_600], [null, true], name)
  assert.is(old.heartbeat.ok, false)
})

test('live=true shows what the agent finds now, and an agent that does not answer as such', async () => {
  const { ask, backend } = node()
  const at = ago(0)
  backend.reads.set('node_health', {
    value: {
      hypervisor: { ok: true, message: 'libvirt 9.0.0', at },
      storage: { ok: true, message: 'pool default: 1 of 2 GiB free', at },
      __proto__x: { ok: true, message: 'no part', at },
    },
  })
  const { evidence } = (await ask('GET', `${path}?live=true`)).body
  assert.equal([evidence.hypervisor.ok, evidence.hypervisor.seen_by], [true, 'live'])
  assert.match(evidence.agent.message, /^connected; it answered in \d+ ms$/)
  assert.is(evidence.openvswitch.seen_by, 'agent')
  assert.is(evidence.__proto__x, undefined)
  backend.reads.set('node_health', { error: rejection('AgentNotConnected') })
  const silent = (await ask('GET', `${path}?live=true`)).body.evidence
  assert.equal([silent.agent.ok, silent.agent.seen_by, silent.hypervisor.ok], [false, 'live', null])
})

test('as text it is a table that no name of a node can disturb', async () => {
  const { ask, backend } = node()
  backend.put.server({ hostname: 'node\u001b[2J', status: 'unknown' })
  const { text, headers } = await ask('GET', path, { headers: { accept: 'text/plain' } })
  assert.match(headers.get('content-type') ?? '', 'text/plain')
  assert.match(text, `node?[2J (${SERVER}): unknown\nPART `)
  assert.match(text, /^liveness +NO +- +actor +the record says unknown$/m)
  assert.is(text.split('\n').length, 9)
})

test('the boot defaults are no node', async () => {
  assert.is((await node().ask('GET', '/servers/default/status')).status, 404)
})

test.run()
