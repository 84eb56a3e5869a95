/** Several hosts on a real server: who works on what while they come, and what each keeps of what is the others'. */
import * as assert from 'uvu/assert'
import { connectNats, type NatsConnection } from '../../services/nats/connect.ts'
import { provision } from '../../services/nats/provision.ts'
import { createDecide } from '../../services/runtime/decide.ts'
import { createMembership, type Membership } from '../../services/runtime/membership.ts'
import { everyPartition } from '../../services/runtime/rendezvous.ts'
import { createRuntime } from '../../services/runtime/runtime.ts'
import { COUNTERS } from '../counters/kinds.ts'
import { callerOf } from '../counters/load.ts'
import { eventually } from '../eventually.ts'
import { startNats, type TestNats } from '../nats.ts'
import { suite } from '../suite.ts'

const test = suite('runtime owners')
const log = { info: () => {}, warn: () => {}, error: (fields: object, text: string) => console.error(text, fields) }
let nats: TestNats
let nc: NatsConnection

test.before(async () => {
  nats = await startNats()
  nc = await connectNats({ servers: nats.urls, name: 'test', inboxOwner: 'host' })
  await provision(nc)
})
test.after(async () => {
  await nc?.close()
  await nats?.stop()
})

test('hosts that start at the same moment never work on the same partition', async () => {
  const members: Membership[] = []
  const shared: string[] = []
  const member = (name: string): Membership => {
    const own: Membership = createMembership(
      nc,
      name,
      {
        subscribe: async () => {},
        release: async () => {},
        released: async () => {},
        took: partitions => {
          const others = members.filter(one => one !== own)
          for (const p of partitions) if (others.some(one => one.owns(p))) shared.push(`${name} took ${p}`)
        },
        lapsed: () => {},
      },
      log,
    )
    members.push(own)
    return own
  }
  for (const name of ['a', 'b', 'c']) member(name)
  await Promise.all(members.map(one => one.join()))
  const all = () => members.reduce((sum, one) => sum + one.owned().size, 0)
  await eventually(() => all() === everyPartition.size)
  assert.equal(shared, [])
  for (const one of members) await one.leave()
})

test('a host keeps the deadlines of its own partitions and no others', async () => {
  const make = (hostId: string) => createRuntime({ nc, hostId, kinds: ['vm'], decide: createDecide(COUNTERS), log })
  const runtimes = [make('one'), make('two')]
  for (const runtime of runtimes) await runtime.start()
  const shares = () => runtimes.map(runtime => runtime.stats().partitions)
  await eventually(() => shares().every(share => share > 0) && shares().reduce((a, b) => a + b) === 64)
  const call = callerOf(nc, 'tester')
  const ids = Array.from({ length: 40 }, (_, n) => `late${n}`)
  await Promise.all(ids.map(id => call('vm', id, 'later', { name: 'tea', ms: 600_000 })))
  await eventually(() => runtimes.every(runtime => ids.every(id => runtime.index.get('vm', id)?.due !== undefined)))
  for (const runtime of runtimes) {
    const own = ids.filter(id => runtime.owns(id)).length
    assert.is(runtime.stats().deadlines, own)
  }
  // What a host leaves, the other fires.
  await runtimes[0]?.stop()
  await eventually(() => runtimes[1]?.stats().deadlines === ids.length)
  await runtimes[1]?.stop()
})

test.run()
