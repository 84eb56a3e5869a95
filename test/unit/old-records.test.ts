/**
 * Records written by earlier releases still load: a sample of every version of every kind is kept in test/samples/records, and every
 * kind's current version has one. A sample is never changed; a new version adds one.
 */
import { readdirSync, readFileSync } from 'node:fs'
import * as assert from 'uvu/assert'
import * as v from 'valibot'
import { ACTORS } from '../../actors/actors.ts'
import { ActorRecord } from '../../actors/contract/record.ts'
import { decide } from '../../services/runtime/decide.ts'
import { suite } from '../suite.ts'
import { taskId } from './fleet.ts'

const test = suite('old records')
const folder = new URL('../samples/records/', import.meta.url)
const samples = readdirSync(folder).map(name => ({
  name,
  record: v.parse(ActorRecord, JSON.parse(readFileSync(new URL(name, folder), 'utf8'))),
}))

/** A command that any living actor of the kind understands and that changes it, and the state it leads to. */
const NEXT: Record<string, { verb: string; params: Record<string, unknown>; state: string }> = {
  cn: { verb: 'silent', params: {}, state: 'unknown' },
  vm: { verb: 'kill', params: { task_id: taskId(9) }, state: 'stopping' },
  host: { verb: 'vm_gone', params: { vm_uuid: taskId(9) }, state: 'bound' },
  waitlist: { verb: 'delete', params: { ticket_uuids: ['aaaaaaaa-aaaa-8aaa-8000-000000000001'] }, state: 'busy' },
}

test('there is a sample of the current version of every kind', () => {
  for (const [kind, { version }] of Object.entries(ACTORS)) {
    assert.ok(
      samples.some(({ record }) => record.kind === kind && record.version === version),
      `${kind} has no sample of version ${version}`,
    )
  }
})

for (const { name, record } of samples) {
  test(`${name} loads, keeps what was pending and goes on`, () => {
    const next = NEXT[record.kind]
    assert.ok(next, record.kind)
    const command = { params: next?.params ?? {} }
    const input = { type: 'command', channel: 'cmd', verb: next?.verb ?? '', command } as const
    const decision = decide(record.kind, record.id, record, input, Date.parse(record.updated_at) + 1)
    assert.is(decision.fault, undefined)
    assert.ok(decision.reply && 'value' in decision.reply, JSON.stringify(decision.reply))
    assert.is(decision.record?.state, next?.state)
    for (const { sequence } of record.outbox)
      assert.ok(decision.record?.outbox.some(entry => entry.sequence === sequence))
  })
}

test.run()
