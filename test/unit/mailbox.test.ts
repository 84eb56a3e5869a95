/** What an actor's mailbox believes of its cached record, without a server. */
import * as assert from 'uvu/assert'
import type { ActorRecord, Reply } from '../../actors/contract/record.ts'
import type { NatsConnection } from '../../services/nats/connect.ts'
import type { Records } from '../../services/nats/records.ts'
import type { Decision } from '../../services/runtime/decide.ts'
import { createMailboxes, type Mailboxes } from '../../services/runtime/mailbox.ts'
import { eventually } from '../eventually.ts'
import { suite } from '../suite.ts'

const test = suite('mailbox')
const log = { info: () => {}, warn: () => {}, error: (fields: object, text: string) => console.error(text, fields) }

test("another's write that is told while an answer is worked out is in the next answer", async () => {
  let stored = { value: { count: 1, recent: [] }, revision: 1 }
  let mailboxes: Mailboxes
  const decide = (_kind: string, _id: string, record: ActorRecord | undefined): Decision => {
    // Told in the middle of the first answer, which writes nothing.
    if (stored.revision === 1) {
      stored = { value: { count: 2, recent: [] }, revision: 2 }
      mailboxes.seen('vm', 'a', 2)
    }
    return { record, puts: [], waitFor: [], reply: { value: record?.count } }
  }
  mailboxes = createMailboxes({
    nc: {} as NatsConnection,
    records: { look: async () => stored } as unknown as Records,
    decide,
    log,
    now: () => 0,
    mayWork: () => true,
    known: () => {},
    committed: () => {},
    acknowledged: () => [],
    outcome: async () => undefined,
    batching: true,
    cacheMax: 10,
  })
  const ask = async () => {
    const replies: Reply[] = []
    mailboxes.add('vm', 'a', {
      input: { type: 'command', channel: 'cmd', verb: 'get', command: { params: {} } },
      endsAt: performance.now() + 5_000,
      answer: reply => void replies.push(reply),
    })
    await eventually(() => replies.length === 1)
    return replies[0]
  }
  assert.equal(await ask(), { value: 1 })
  assert.equal(await ask(), { value: 2 })
})

test.run()
