/** What the phases of a live migration ask of libvirt, and leave alone: a libvirt of a few words stands in for it. */
import { ConnectionError, type Domain, type Hypervisor as Libvirt } from 'node-libvirt'
import * as assert from 'uvu/assert'
import type { HypervisorError } from '../../hypervisor-agent/hypervisor.ts'
import { failure } from '../../hypervisor-agent/libvirt/failures.ts'
import { libvirtLiveMigrations } from '../../hypervisor-agent/libvirt/live-migrations.ts'
import { suite } from '../suite.ts'

const test = suite('live migration through libvirt')
const uuid = '0c9f8d8e-7b5b-4a53-9c52-1a2f2f0a0009'

interface Guest {
  state: string
  reason: string
  /** Of libvirt's job with it; `type` 0 is none. */
  job: { type: number; stats: Record<string, number> }
  isDumb?: boolean
}

/** One guest, what was done with it, and connections that were made and not closed. */
function world(guest: Partial<Guest> = {}, connecting: Promise<void> = Promise.resolve()) {
  const now: Guest = { state: 'running', reason: 'booted', job: { type: 0, stats: {} }, ...guest }
  const done: string[] = []
  let connections = 0
  const xml = `<domain><name>one</name><uuid>${uuid}</uuid><memory>1</memory></domain>`
  const domain = {
    uuid,
    name: 'one',
    getState: async () => ({ state: now.state, reason: now.reason }),
    isActive: async () => now.state !== 'shutoff',
    getXml: async () => xml,
    // As QEMU, which answers nothing while the last of its memory is on its way.
    getJobStats: () => (now.isDumb ? new Promise(() => {}) : Promise.resolve(now.job)),
    abortJob: async () => {
      done.push('abort')
      now.job = { type: 0, stats: {} }
    },
    resume: async () => {
      done.push('resume')
      now.state = 'running'
    },
    beginMigration: async () => {
      done.push('begin')
      return { xml, cookie: new Uint8Array() }
    },
    performMigration: async () => {
      if (now.state === 'paused') return new Promise(() => {})
      throw new ConnectionError('lost', 'the connection to libvirt is lost')
    },
  } as unknown as Domain
  const connect = async () => {
    connections += 1
    await connecting
    const libvirt = {
      connected: true,
      lookupDomainByUuid: async () => domain,
      close: async () => {
        if (libvirt.connected) connections -= 1
        libvirt.connected = false
      },
    }
    return libvirt as unknown as Libvirt
  }
  const { live, drop } = libvirtLiveMigrations({
    act: (_, __, action) => action(domain, {} as Libvirt),
    connect,
    driver: () => 'QEMU',
    needMemory: async () => {},
    failure,
    standstillMs: 1,
  })
  return { live, drop, now, done, open: () => connections }
}
const codeOf = (call: Promise<unknown>) =>
  call.then(
    () => undefined,
    (error: HypervisorError) => error.code,
  )

test('a guest that stands still because it was moved goes on when it is recalled', async () => {
  const { live, now, done } = world({ state: 'paused', reason: 'migration' })
  await live.recallLive(uuid)
  assert.equal([done, now.state], [['resume'], 'running'])
})

test('a guest that somebody has paused is not offered to another node, and stays paused when it is recalled', async () => {
  const { live, now, done, open } = world({ state: 'paused', reason: 'user' })
  assert.is(await codeOf(live.beginLive(uuid)), 'LiveMigrationNotSupported')
  await live.recallLive(uuid)
  assert.equal([done, now.state, open()], [[], 'paused', 0])
})

test('a recall leaves somebody\u2019s backup of the guest alone, and does not wait for it', async () => {
  const backup = { type: 2, stats: { operation: 9 } }
  const { live, now, done } = world({ job: backup })
  await live.recallLive(uuid)
  assert.equal([done, now.job], [[], backup])
})

test('a migration that was taken back while libvirt was slow to answer begins nothing, and leaves no connection', async () => {
  let answer = () => {}
  const slow = new Promise<void>(resolve => {
    answer = resolve
  })
  const { live, done, open } = world({}, slow)
  const begun = codeOf(live.beginLive(uuid))
  await live.recallLive(uuid)
  answer()
  assert.is(await begun, 'MigrationInterrupted')
  assert.equal([done, open()], [[], 0])
})

test('a libvirtd that dies while it copies ends the migration, which is not begun anew when it is back', async () => {
  const { live } = world()
  await live.beginLive(uuid)
  const room = { cookie: '', ports: { memory: 1, disks: 2 } }
  const copied = live.performLive(uuid, room, { signal: new AbortController().signal, progress: () => {} })
  assert.is(await codeOf(copied), 'MigrationInterrupted')
})

test('a guest that stands still while the last of its memory does not arrive is not kept so', async () => {
  const { live, now } = world()
  await live.beginLive(uuid)
  Object.assign(now, { state: 'paused', reason: 'migration', isDumb: true })
  const room = { cookie: '', ports: { memory: 1, disks: 2 } }
  const copied = live.performLive(uuid, room, { signal: new AbortController().signal, progress: () => {} })
  assert.is(await codeOf(copied), 'MigrationInterrupted')
  now.isDumb = false
  await live.recallLive(uuid)
  assert.is(now.state, 'running')
})

test('a connection lasts from the beginning to the recall', async () => {
  const { live, open } = world()
  await live.beginLive(uuid)
  await live.beginLive(uuid)
  assert.is(open(), 1)
  await live.recallLive(uuid)
  assert.is(open(), 0)
})

test.run()
