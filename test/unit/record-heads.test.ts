/** Reading the head of a record gives what reading all of it gives, whatever is inside. */
import fc from 'fast-check'
import * as assert from 'uvu/assert'
import { decode, decodeHead, encode } from '../../services/nats/json.ts'
import { suite } from '../suite.ts'

const test = suite('heads of records')
const seed = Number(process.env['SEED'] ?? Date.now() % 2 ** 31)
console.log(`seed ${seed}: repeat with SEED=${seed}`)

type Head = { state?: unknown; snapshot?: unknown }
const headOf = ({ state, snapshot }: Head) => ({ state, snapshot })

/** Words that stand in records beside anything that a person may have put into tags. */
const word = fc.oneof(
  fc.constantFrom('outbox', ',"outbox":[', '"outbox":[]', '}', '{', '","outbox":["', '\\', '"'),
  fc.string({ maxLength: 8 }),
)
const data = fc.letrec(tie => ({
  value: fc.oneof({ maxDepth: 4 }, word, fc.integer(), fc.array(tie('value')), fc.dictionary(word, tie('value'))),
})).value

test('whatever the data of a record are called, its state is read as by reading it whole', () => {
  fc.assert(
    fc.property(data, data, fc.array(data, { maxLength: 3 }), (state, context, outbox) => {
      const bytes = encode({ state, snapshot: { value: state, context }, outbox, timers: {}, recent: [context] })
      assert.equal(headOf(decodeHead(bytes) as Head), headOf(decode(bytes) as Head))
    }),
    { seed, numRuns: 2_000 },
  )
})

test('what stands behind the outbox is not read, unless the state stands there', () => {
  const record = { state: 'a', snapshot: { value: 'a' }, outbox: [1], recent: [] }
  assert.equal(decodeHead(encode(record)), { state: 'a', snapshot: { value: 'a' } })
  const turned = { state: 'a', outbox: [1], snapshot: { value: 'a' }, recent: [] }
  assert.equal(decodeHead(encode({ kind: 'vm', ...turned })), { kind: 'vm', ...turned })
})

test('an empty value is nothing, and what is no record is read whole', () => {
  assert.is(decodeHead(new Uint8Array(0)), undefined)
  for (const value of [{ a: 1 }, [1, 2], 'text', { x: { outbox: [] } }]) assert.equal(decodeHead(encode(value)), value)
})

test.run()
