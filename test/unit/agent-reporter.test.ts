/** How an agent tells its owner: until it is answered, and what it does when there is no record of it. */
import * as assert from 'uvu/assert'
import { type ErrorCode, rejection } from '../../actors/contract/errors.ts'
import type { Reply } from '../../actors/contract/record.ts'
import type { AgentCall, Link } from '../../hypervisor-agent/link.ts'
import { openReporter } from '../../hypervisor-agent/reporter.ts'
import { eventually } from '../eventually.ts'
import { TASK } from '../fake-backend.ts'
import { suite } from '../suite.ts'

const test = suite('reports of an agent')
const log = { info: () => {}, warn: () => {}, error: () => {}, debug: () => {} } as never
const never = new AbortController().signal

/** A link that answers each call with the next of its replies, the last again and again. */
function reporter(replies: (Reply | ErrorCode)[]) {
  const calls: AgentCall[] = []
  let unknown = 0
  const link = {
    call: async (verb: AgentCall) => {
      calls.push(verb)
      const reply = replies.length > 1 ? replies.shift()! : replies[0]!
      return typeof reply === 'string' ? { error: rejection(reply) } : reply
    },
  } as unknown as Link
  const made = openReporter(link, log)
  made.onUnknown(() => {
    unknown += 1
  })
  return { ...made, calls, unknown: () => unknown }
}

const report = { id: TASK, status: 'complete', at: 1 } as const

test('a report that nobody can answer now is made again', async () => {
  const { report: tell, calls, unknown } = reporter(['ServiceUnavailableError', { value: { go: true } }])
  assert.equal(await tell(report), { go: true })
  assert.equal([calls.length, unknown()], [2, 0])
})

test('a report to a record that is gone waits until the node has registered again, and its end is not lost', async () => {
  const made = reporter(['ResourceNotFound', 'ResourceNotFound', { value: { go: false } }])
  assert.equal(await made.report(report), { go: false })
  assert.equal([made.calls.length, made.unknown()], [3, 2])
})

test('a sysinfo that meets a record on its way out is told again', async () => {
  const made = reporter(['ResourceNotFound', { value: {} }])
  await made.sysinfo({}, never)
  assert.equal(made.calls, ['sysinfo', 'sysinfo'])
})

test('a status to a record that is gone is not heard, and says so', async () => {
  const made = reporter(['ResourceNotFound'])
  assert.is(await made.status({}, never), false)
  assert.equal([made.calls.length, made.unknown()], [1, 1])
})

test('what is open cannot be asked of a record that is gone: the greeting begins anew', async () => {
  const made = reporter(['ResourceNotFound'])
  await made.sync(1, never).then(
    () => assert.unreachable(),
    error => assert.match(error.message, 'gone again'),
  )
  assert.is(made.unknown(), 0)
})

test('any other refusal of a report ends the task here', async () => {
  const made = reporter(['InvalidParameters'])
  assert.equal(await made.report(report), { go: false })
  assert.equal([made.calls.length, made.unknown()], [1, 0])
})

test('an agent that stops no longer waits for an answer', async () => {
  const made = reporter(['ServiceUnavailableError'])
  const waiting = made.report(report).then(
    () => 'answered',
    () => 'stopped',
  )
  await eventually(() => made.calls.length > 0)
  made.stop()
  assert.is(await waiting, 'stopped')
})

test.run()
