/** What JetStream says while a cluster is without a leader is a fault to be tried again, not a refusal. */
import * as assert from 'uvu/assert'
import type { NatsConnection } from '../../services/nats/connect.ts'
import { encode } from '../../services/nats/json.ts'
import { JetStreamRefusal, openRecords, UnavailableError, UnknownOutcomeError } from '../../services/nats/records.ts'
import { suite } from '../suite.ts'

const test = suite('JetStream away')

/** A connection on which everything is answered with this error. */
function answering(err_code: number): NatsConnection {
  let callback: (error: Error | null, message: unknown) => void = () => {}
  const connection = {
    closed: () => new Promise(() => {}),
    subscribe: (_subject: string, options: { callback: typeof callback }) => {
      callback = options.callback
    },
    publish: (_subject: string, _bytes: Uint8Array, { reply }: { reply: string }) => {
      const data = encode({ error: { code: 503, err_code, description: 'JetStream system temporarily unavailable' } })
      queueMicrotask(() => callback(null, { subject: reply, data }))
    },
  }
  return connection as unknown as NatsConnection
}

const thrownBy = async (work: Promise<unknown>): Promise<unknown> => work.then(() => undefined).catch(error => error)

test('a read is unavailable, a write has an unknown outcome; other errors are refusals', async () => {
  for (const code of [10008, 10009]) {
    const records = openRecords(answering(code))
    assert.instance(await thrownBy(records.get('waitlist', 'a')), UnavailableError)
    assert.instance(await thrownBy(records.put('waitlist', 'a', {})), UnknownOutcomeError)
  }
  const records = openRecords(answering(10047))
  assert.instance(await thrownBy(records.get('waitlist', 'a')), JetStreamRefusal)
  assert.instance(await thrownBy(records.put('waitlist', 'a', {})), JetStreamRefusal)
})

test.run()
