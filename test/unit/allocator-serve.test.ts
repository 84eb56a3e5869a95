/** What an allocator answers where the answer cannot travel, and that a stop waits for what was asked before it. */
import * as assert from 'uvu/assert'
import { createDecisions } from '../../services/allocator/decisions.ts'
import type { Fleet } from '../../services/allocator/fleet.ts'
import type { Placed } from '../../services/allocator/place.ts'
import { serve } from '../../services/allocator/serve.ts'
import type { Msg, NatsConnection } from '../../services/nats/connect.ts'
import { decode, encode } from '../../services/nats/json.ts'
import { subject } from '../../services/nats/subjects.ts'
import { eventually } from '../eventually.ts'
import { suite } from '../suite.ts'

const test = suite('answers of an allocator')
const question = { vm: { owner_uuid: '11111111-1111-4111-8111-111111111111', ram: 1 } }

/** Served by a connection that carries 1 KB, and by `place`. */
function served(place: () => Promise<Placed>) {
  const callbacks = new Map<string, (error: null, message: Msg) => void>()
  const failures: unknown[] = []
  const answers: unknown[] = []
  const nc = {
    subscribe: (to: string, { callback }: { callback: (error: null, message: Msg) => void }) => {
      callbacks.set(to, callback)
      return { drain: async () => {}, unsubscribe: () => {} }
    },
  } as unknown as NatsConnection
  const decisions = createDecisions({ position: () => ({}), now: Date.now, id: () => 'a' })
  const failed = (error: unknown) => void failures.push(error)
  const stop = serve({ nc, allocatorId: 'a', fleet: {} as Fleet, place, decisions, settings: {}, failed })
  const respond = (data: Uint8Array) => {
    if (data.length > 1_000) throw new Error('max_payload size exceeded')
    answers.push(decode(data))
    return true
  }
  callbacks.get(subject.allocator('choose'))?.(null, { data: encode(question), respond } as unknown as Msg)
  return { stop, answers, failures }
}

test('an answer that no message can carry is an error to its asker, and not the end of the allocator', async () => {
  const { answers, failures } = served(async () => ({ value: { id: 'x'.repeat(2_000) } as never }))
  await eventually(() => answers.length === 1, { what: 'an answer' })
  assert.is((answers[0] as { error: { code: string } }).error.code, 'InternalError')
  assert.is(failures.length, 1)
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
