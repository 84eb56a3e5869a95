/** What an allocator answers where the answer cannot travel, and that a stop waits for what was asked before it. */
import * as assert from 'uvu/assert'
import type { Fleet } from '../../services/allocator/fleet.ts'
import type { Placed } from '../../services/allocator/place.ts'
import { serve } from '../../services/allocator/serve.ts'
import type { Msg, NatsConnection } from '../../services/nats/connect.ts'
import { decode, encode } from '../../services/nats/json.ts'
import { type AllocatorCall, subject } from '../../services/nats/subjects.ts'
import { eventually } from '../eventually.ts'
import { suite } from '../suite.ts'

const test = suite('answers of an allocator')
const question = { vm: { owner_uuid: '11111111-1111-4111-8111-111111111111', ram: 1 } }
const choice = { call: 'choose', payload: question } as const

/** Served by a connection that carries 1 KB, and by `place`; allocator `a`, whose only decision is `a-1`. */
function served(place: () => Promise<Placed>, asked: { call: AllocatorCall; payload: unknown } = choice) {
  const callbacks = new Map<string, (error: null, message: Msg) => void>()
  const failures: unknown[] = []
  const answers: unknown[] = []
  const nc = {
    subscribe: (to: string, { callback }: { callback: (error: null, message: Msg) => void }) => {
      callbacks.set(to, callback)
      return { drain: async () => {}, unsubscribe: () => {} }
    },
  } as unknown as NatsConnection
  const decisions = { keep: () => 'a-1', explain: (id: string) => (id === 'a-1' ? { id } : undefined) }
  const failed = (error: unknown) => void failures.push(error)
  const stop = serve({ nc, allocatorId: 'a', fleet: {} as Fleet, place, decisions, settings: {}, failed })
  const respond = (data: Uint8Array) => {
    if (data.length > 1_000) throw new Error('max_payload size exceeded')
    answers.push(decode(data))
    return true
  }
  const { call, payload } = asked
  callbacks.get(subject.allocator(call))?.(null, { data: encode(payload), respond } as unknown as Msg)
  return { stop, answers, failures }
}

test('an answer that no message can carry is an error to its asker, and not the end of the allocator', async () => {
  const { answers, failures } = served(async () => ({ value: { id: 'x'.repeat(2_000) } as never }))
  await eventually(() => answers.length === 1, { what: 'an answer' })
  assert.is((answers[0] as { error: { code: string } }).error.code, 'InternalError')
  assert.is(failures.length, 1)
})

test('a decision is told by who made it, and by others only when everybody is to answer', async () => {
  const kept = [{ value: { id: 'a-1' } }]
  const forgotten = [{ error: { code: 'ResourceNotFound', message: 'No decision a-2 is kept' } }]
  for (const [payload, expected] of [
    [{ id: 'a-1' }, kept],
    [{ id: 'a-1', everybody: true }, kept],
    [{ id: 'a-2' }, forgotten],
    [{ id: 'a-2', everybody: true }, forgotten],
    [{ id: 'b-1' }, []],
    [{ id: 'b-1', everybody: false }, []],
    [{ id: 'b-1', everybody: true }, [{ value: { made_here: false } }]],
    ['nonsense', []],
  ] as const) {
    const { answers, stop } = served(async () => ({ value: {} as never }), { call: 'decision', payload })
    await stop()
    assert.equal(answers, expected, JSON.stringify(payload))
  }
})

test('what was asked before a stop is answered before it ends', async () => {
  let answer: ((placed: Placed) => void) | undefined
  const place = () =>
    new Promise<Placed>(resolve => {
      answer = resolve
    })
  const { stop, answers } = served(place)
  await eventually(() => answer, { what: 'the question' })
  let ended = false
  const stopped = Promise.resolve(stop()).then(() => {
    ended = true
  })
  await new Promise(resolve => setImmediate(resolve))
  assert.not.ok(ended)
  answer?.({ value: { id: 'b' } as never })
  await stopped
  assert.equal(answers, [{ value: { id: 'b' } }])
})

test.run()
