/**
 * Bad input is answered as specified: what a row's own rule refuses is InvalidParameters that names the field, with the status of the row; what a
 * strict row does not know is 409. Requests are made from the table: each parameter of each row, one bad value at a time, in the body and in
 * the query.
 */
import fc from 'fast-check'
import * as assert from 'uvu/assert'
import * as v from 'valibot'
import type { AnyRow, Entries } from '../../gateway/row.ts'
import { pathParams } from '../../gateway/row.ts'
import { fakeGateway } from '../fake-backend.ts'
import { preparedBackend, SAMPLES } from '../gateway-samples.ts'
import { suite } from '../suite.ts'

const test = suite('bad input, answered as specified')
const seed = Number(process.env['SEED'] ?? Date.now() % 2 ** 31)
console.log(`seed ${seed}: repeat with SEED=${seed}`)
const madeUp = fc.sample(fc.oneof(fc.jsonValue(), fc.string({ maxLength: 300 })), { seed, numRuns: 12 })

/** Of every kind: wrong types, null, empty, huge, booleans in other cases, numbers out of range. */
const VALUES: unknown[] = [
  ...[null, '', ' ', 'TRUE', 'FALSE', 'yes', 'true ', true, false, 0, -1, 1e21, 0.5, '-1', '0x10', 'NaN', '12abc'],
  ...[[], [[]], [null], {}, { a: null }, { length: 1 }, 'a'.repeat(70_000), 'a\u0000b', '../..', '\u00e9'],
  ...madeUp,
]
const TEXTS = VALUES.filter((value): value is string => typeof value === 'string' && value.length < 5_000)

const refused = (schema: v.GenericSchema, value: unknown) => !v.safeParse(schema, value).success

/** The request of a row's sample with one more parameter, which goes where it wins. */
function requestOf(row: AnyRow, name: string, value: unknown, into: 'query' | 'body') {
  const { path, body } = SAMPLES[row.name]!
  if (into === 'body') return { path, body: { ...body, [name]: value } }
  const [bare, search = ''] = path.split('?')
  const query = new URLSearchParams(search)
  query.set(name, String(value))
  return { path: `${bare}?${query}`, ...(body ? { body } : {}) }
}

let asked = 0
for (const row of fakeGateway().rows) {
  const own = pathParams(row.path)
  const inQuery = new URLSearchParams(SAMPLES[row.name]!.path.split('?')[1] ?? '')
  const params = Object.entries(row.params as Entries).filter(([name]) => !own.includes(name))
  const ways = row.method === 'GET' ? (['query'] as const) : (['query', 'body'] as const)

  for (const [name, schema] of params) {
    test(`${row.name} names ${name} when its rule refuses a value`, async () => {
      const { ask } = fakeGateway(preparedBackend())
      for (const into of ways) {
        // A value in the query would win over one in the body.
        if (into === 'body' && inQuery.has(name)) continue
        for (const value of into === 'query' ? TEXTS : VALUES) {
          if (!refused(schema, value)) continue
          asked += 1
          const { path, body } = requestOf(row, name, value, into)
          const answer = await ask(row.method, path, body === undefined ? {} : { body })
          const told = `${into} ${JSON.stringify(value)?.slice(0, 80)}: ${answer.status} ${answer.text.slice(0, 300)}`
          if (answer.status === 413) continue
          assert.is(answer.status, row.invalidStatus ?? 400, told)
          assert.is(answer.body.code, 'InvalidParameters', told)
          const fields = answer.body.errors.map(({ field }: { field: string }) => field.split('.')[0])
          assert.ok(fields.includes(name), told)
        }
      }
    })
  }

  if (row.strict) {
    test(`${row.name} refuses a parameter that it does not know`, async () => {
      const { ask } = fakeGateway(preparedBackend())
      for (const into of ways) {
        asked += 1
        const { path, body } = requestOf(row, 'no_such_parameter', 'x', into)
        const answer = await ask(row.method, path, body === undefined ? {} : { body })
        assert.equal(
          [answer.status, answer.body.code, answer.body.message],
          [409, 'InvalidArgument', 'no_such_parameter is not an explicitly defined parameter'],
        )
      }
    })
  }

  test(`${row.name} takes one of two values of a parameter in the query, or says what is wrong`, async () => {
    const { ask, errors } = fakeGateway(preparedBackend())
    for (const [name] of params) {
      asked += 1
      const { path, body } = requestOf(row, name, 'a', 'query')
      const answer = await ask(row.method, `${path}&${name}=b`, body === undefined ? {} : { body })
      assert.is(errors.length, 0)
      assert.ok(answer.status < 500 || answer.status === row.invalidStatus, `${name}: ${answer.status} ${answer.text}`)
    }
  })
}

test('thousands of requests were made', () => {
  console.log(`${asked} requests`)
  assert.ok(asked > 2_000, String(asked))
})

test.run()
