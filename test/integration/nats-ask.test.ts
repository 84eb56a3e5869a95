/** One message, one answer, on a real server: each way in which it can end. */
import * as assert from 'uvu/assert'
import { ask, NoAnswerError, NoRespondersError } from '../../services/nats/ask.ts'
import { connectNats, type NatsConnection } from '../../services/nats/connect.ts'
import { startNats, type TestNats } from '../nats.ts'
import { suite } from '../suite.ts'

const test = suite('ask')
const nothing = new Uint8Array(0)
let nats: TestNats
let nc: NatsConnection

test.before(async () => {
  nats = await startNats({ muster: false })
  nc = await connectNats({ servers: nats.urls, name: 'ask', inboxOwner: 'admin' })
})
test.after(async () => {
  await nc?.close()
  await nats?.stop()
})

test('many questions at once each get their own answer, and only the first one', async () => {
  const echo = nc.subscribe('echo.*', {
    callback: (_error, message) => {
      message.respond(message.data)
      message.respond('too late')
    },
  })
  const numbers = Array.from({ length: 500 }, (_, n) => String(n))
  const answers = await Promise.all(
    numbers.map(n => ask(nc, `echo.${n}`, Buffer.from(n), { timeoutMs: 5_000 }).then(message => message.string())),
  )
  assert.equal(answers, numbers)
  echo.unsubscribe()
})

test('where nobody listens it fails at once, where nobody answers when its time is up', async () => {
  const began = performance.now()
  const unheard = await failure(ask(nc, 'nobody.here', nothing, { timeoutMs: 20_000 }))
  assert.instance(unheard, NoRespondersError)
  assert.ok(performance.now() - began < 10_000)
  const mute = nc.subscribe('mute', { callback: () => {} })
  assert.instance(await failure(ask(nc, 'mute', nothing, { timeoutMs: 50 })), NoAnswerError)
  mute.unsubscribe()
})

test('when the connection closes, what was asked fails, and so does what is asked after', async () => {
  const own = await connectNats({ servers: nats.urls, name: 'ask, closing', inboxOwner: 'admin' })
  const mute = nc.subscribe('silent', { callback: () => {} })
  await nc.flush()
  const waiting = failure(ask(own, 'silent', nothing, { timeoutMs: 20_000 }))
  await own.close()
  assert.instance(await waiting, NoAnswerError)
  assert.instance(await failure(ask(own, 'silent', nothing, { timeoutMs: 20_000 })), Error)
  mute.unsubscribe()
})

test.run()

function failure(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => assert.unreachable('it should have failed'),
    reason => reason,
  )
}
