/** The allocator's choice: who is asked for, in which order conditions fall, and what the refusal says. */
import * as assert from 'uvu/assert'
import { type Candidate, choose } from '../../services/allocator/choose.ts'
import { suite } from '../suite.ts'

const test = suite('choice of a server')

const server = (uuid: string, freeMib: number | undefined, more: Partial<Candidate> = {}): Candidate => ({
  uuid,
  status: 'running',
  setup: true,
  freeMib,
  ...more,
})
const reason = (candidates: Candidate[], memory_mib: number) => {
  const choice = choose(candidates, { memory_mib })
  return 'error' in choice ? choice.error : undefined
}

test('the running, set-up server with most free memory is chosen', () => {
  const fleet = [
    server('a', 1000),
    server('b', 3000),
    server('c', 9000, { status: 'unknown' }),
    server('d', 9000, { setup: false }),
    server('e', undefined),
  ]
  assert.equal(choose(fleet, { memory_mib: 512 }), { value: { server_uuid: 'b' } })
})

test('among equals the lowest uuid is chosen, so that a repeat chooses alike', () => {
  assert.equal(choose([server('b', 1), server('a', 1)], { memory_mib: 0 }), { value: { server_uuid: 'a' } })
})

test('a refusal says at which condition the last servers fell out', () => {
  assert.is(reason([], 1)?.code, 'NoAllocatableServersError')
  const cases: [Candidate[], RegExp][] = [
    [[], /no server is registered$/],
    [[server('a', 1, { setup: false })], /none of 1 servers is set up/],
    [[server('a', 1, { status: 'unknown' }), server('b', 1, { setup: false })], /none of 1 servers is running/],
    [[server('a', undefined)], /none of 1 servers has reported its memory/],
    [[server('a', 511), server('b', 1)], /none of 2 servers has enough free memory \(512 MiB wanted\)$/],
  ]
  for (const [fleet, message] of cases) assert.match(reason(fleet, 512)?.message ?? '', message)
})

test.run()
