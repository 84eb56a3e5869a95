/** Bodies beside a record: what this process wrote is changed without a read, and what another wrote meanwhile is never overwritten. */
import * as assert from 'uvu/assert'
import { ConflictError, type Entry, type Records } from '../../services/nats/records.ts'
import type { SidePut } from '../../services/runtime/decide.ts'
import { performPuts } from '../../services/runtime/side-puts.ts'
import { suite } from '../suite.ts'

const test = suite('bodies beside a record')

function fakeRecords() {
  const stored = new Map<string, Entry>()
  const reads: string[] = []
  let revision = 0
  const put = async (key: string, value: unknown) => {
    revision += 1
    stored.set(key, { value, revision })
    return revision
  }
  const records = {
    get: async (_bucket: string, key: string) => {
      reads.push(key)
      return stored.get(key)
    },
    create: async (_bucket: string, key: string, value: unknown) => {
      if (stored.has(key)) throw new ConflictError(key)
      return put(key, value)
    },
    update: async (_bucket: string, key: string, value: unknown, expected: number) => {
      if (stored.get(key)?.revision !== expected) throw new ConflictError(key)
      return put(key, value)
    },
    put: async (_bucket: string, key: string, value: unknown) => put(key, value),
    delete: async (_bucket: string, key: string) => void stored.delete(key),
  }
  return { records: records as unknown as Records, stored, reads, put }
}

const create: SidePut = { type: 'create', bucket: 'ticket', key: 't', value: { status: 'queued', extra: 1 } }
const end = (status: string): SidePut => ({
  type: 'patch',
  bucket: 'ticket',
  key: 't',
  while: { status: 'queued' },
  patch: { status },
})

test('a ticket that was created here ends without a read', async () => {
  const { records, stored, reads } = fakeRecords()
  await performPuts(records, [create])
  await performPuts(records, [end('finished')])
  assert.equal([stored.get('t')?.value, reads], [{ status: 'finished', extra: 1 }, []])
  await performPuts(records, [end('expired')])
  assert.equal([stored.get('t')?.value, reads], [{ status: 'finished', extra: 1 }, ['t']], 'twice is once')
})

test('what another process wrote meanwhile is read and kept', async () => {
  const { records, stored, reads, put } = fakeRecords()
  await performPuts(records, [create])
  await put('t', { status: 'expired', extra: 2 })
  await performPuts(records, [end('finished')])
  assert.equal([stored.get('t')?.value, reads], [{ status: 'expired', extra: 2 }, ['t']])
})

test('a create of what is there leaves it, and its end is read', async () => {
  const { records, stored, reads, put } = fakeRecords()
  await put('t', { status: 'queued', extra: 3 })
  await performPuts(records, [create])
  await performPuts(records, [end('finished')])
  assert.equal([stored.get('t')?.value, reads], [{ status: 'finished', extra: 3 }, ['t']])
})

test('a ticket that was deleted does not come back with its end', async () => {
  const { records, stored } = fakeRecords()
  await performPuts(records, [create])
  await performPuts(records, [{ type: 'delete', bucket: 'ticket', key: 't' }])
  await performPuts(records, [end('finished')])
  assert.is(stored.size, 0)
})

test.run()
