/** Removing volumes that libvirt has its hands on: one that it still fills for an agent that died is waited for. */
import { ERROR_CODES, LibvirtError, type StoragePool } from 'node-libvirt'
import * as assert from 'uvu/assert'
import { refreshPool, removeVolume } from '../../hypervisor-agent/libvirt/pool-volumes.ts'
import { suite } from '../suite.ts'

const test = suite('volumes of a pool')
const said = (code: keyof typeof ERROR_CODES, message: string) =>
  new LibvirtError({ code: ERROR_CODES[code], domain: 0, level: 2, message }, 'delete')

/** A pool whose volume refuses to be deleted so many times. */
function poolWith(refusals: LibvirtError[]) {
  let isThere = true
  const volume = {
    delete: async () => {
      const refusal = refusals.shift()
      if (refusal) throw refusal
      isThere = false
    },
  }
  const pool = {
    lookupVolume: async () => {
      if (isThere) return volume
      throw said('NO_STORAGE_VOL', 'none')
    },
  } as unknown as StoragePool
  return { pool, isThere: () => isThere }
}

test('one that is still filled is removed when it is full, and twice equals once', async () => {
  const filling = said('OPERATION_INVALID', "volume 'image' is still being allocated.")
  const { pool, isThere } = poolWith([filling, filling, filling])
  await removeVolume(pool, 'image', 1)
  assert.is(isThere(), false)
  await removeVolume(pool, 'image', 1)
})

test('a pool in which a volume is filled is refreshed when that is over, or not within the time there is', async () => {
  let busyFor = 3
  const pool = {
    name: 'pool',
    refresh: async () => {
      busyFor -= 1
      if (busyFor >= 0) throw said('INTERNAL_ERROR', "internal error: pool 'pool' has asynchronous jobs running.")
    },
  } as unknown as StoragePool
  assert.is(await refreshPool(pool, { everyMs: 1 }), true)
  busyFor = 1
  assert.is(await refreshPool(pool, { withinMs: 0 }), false)
})

test('one that is in use is refused at once', async () => {
  const { pool, isThere } = poolWith([said('OPERATION_INVALID', "volume 'image' is still in use.")])
  const error = await removeVolume(pool, 'image', 1).catch(error => error)
  assert.match(error.message, /in use/)
  assert.is(isThere(), true)
})

test.run()
