/** The phases of a migration on the wire: what each end is told, and what it answers. */
import * as assert from 'uvu/assert'
import { suite } from '../../../test/suite.ts'
import { Hypervisor } from '../index.ts'
import { FakeServer } from './fake-server.ts'

const test = suite('phases of a migration')
const dom = { name: 'guest', uuid: Buffer.alloc(16, 1), id: 3 }
const flags = { live: true, nonSharedDisk: true, changeProtection: true }
const word = 1 + 64 + 256
const texts = (args: Record<string, unknown>) =>
  Object.fromEntries(
    (args['params'] as { field: string; value: { type: number; value: unknown } }[]).map(({ field, value }) => {
      assert.is(value.type, 7)
      return [field, value.value]
    }),
  )

test('begin and perform are the source\u2019s, prepare and finish the target\u2019s', async () => {
  const server = new FakeServer()
  const told: Record<string, Record<string, unknown>> = {}
  const answering = (phase: string, answer: object) => {
    server.answers[`domain_migrate_${phase}3_params`] = args => {
      told[phase] = args as Record<string, unknown>
      return answer
    }
  }
  answering('begin', { cookie_out: Buffer.from('one'), xml: '<domain/>' })
  answering('prepare', { cookie_out: Buffer.from('two'), uri_out: 'tcp://127.0.0.1:49152' })
  answering('perform', { cookie_out: Buffer.from('three') })
  answering('finish', { dom, cookie_out: Buffer.alloc(0) })
  server.answers['domain_lookup_by_name'] = () => ({ dom })
  await server.listen()
  const hypervisor = await Hypervisor.connect({ socketPath: server.socketPath, reconnect: false })
  try {
    const domain = await hypervisor.lookupDomainByName('guest')
    const begun = await domain.beginMigration(flags)
    assert.equal([begun.xml, Buffer.from(begun.cookie).toString()], ['<domain/>', 'one'])
    const wanted = { name: 'guest', xml: '<domain/>', uri: 'tcp://127.0.0.1', listenAddress: '127.0.0.1' }
    const prepared = await hypervisor.prepareMigration(wanted, begun.cookie, flags)
    assert.equal([prepared.uri, Buffer.from(prepared.cookie).toString()], ['tcp://127.0.0.1:49152', 'two'])
    const performed = await domain.performMigration({ uri: 'tcp://127.0.0.1:7' }, prepared.cookie, flags)
    assert.is(Buffer.from(performed).toString(), 'three')
    assert.is((await hypervisor.finishMigration('guest', performed, { ...flags, cancelled: true })).name, 'guest')
  } finally {
    await hypervisor.close()
    await server.remove()
  }
  assert.equal(
    Object.values(told).map(({ flags }) => flags),
    [word, word, word, word],
  )
  assert.equal(texts(told['prepare'] ?? {}), {
    destination_name: 'guest',
    destination_xml: '<domain/>',
    migrate_uri: 'tcp://127.0.0.1',
    listen_address: '127.0.0.1',
  })
  assert.equal(texts(told['perform'] ?? {}), { destination_name: 'guest', migrate_uri: 'tcp://127.0.0.1:7' })
  assert.equal([texts(told['finish'] ?? {}), told['finish']?.['cancelled']], [{ destination_name: 'guest' }, 1])
  const cookie = (phase: string) => Buffer.from(told[phase]?.['cookie_in'] as Uint8Array).toString()
  assert.equal([cookie('prepare'), cookie('perform'), cookie('finish')], ['one', 'two', 'three'])
})

test('what a domain is at is told with libvirt\u2019s own names', async () => {
  const server = new FakeServer()
  server.answers['domain_lookup_by_name'] = () => ({ dom })
  server.answers['domain_get_job_stats'] = () => ({
    type: 2,
    params: [{ field: 'memory_total', value: { type: 4, value: 118_300_672n } }],
  })
  await server.listen()
  const hypervisor = await Hypervisor.connect({ socketPath: server.socketPath, reconnect: false })
  try {
    const job = await (await hypervisor.lookupDomainByName('guest')).getJobStats()
    assert.equal(job, { type: 2, stats: { memory_total: 118_300_672 } })
  } finally {
    await hypervisor.close()
    await server.remove()
  }
})

test.run()
