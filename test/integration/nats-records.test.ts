/** services/nats on a real server: buckets as wanted, compare-and-set, views with barriers, waits, requests that outlive silence. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { aptDownload, unpack } from '../../scripts/nats-server.ts'
import { api } from '../../services/nats/api.ts'
import { BUCKETS, type Bucket, streamOf } from '../../services/nats/buckets.ts'
import { connectNats, type NatsConnection } from '../../services/nats/connect.ts'
import { decode, encode } from '../../services/nats/json.ts'
import { announce, isAnnounced } from '../../services/nats/micro.ts'
import { checkServer, provision } from '../../services/nats/provision.ts'
import { ConflictError, JetStreamRefusal, openRecords, type Records } from '../../services/nats/records.ts'
import { request } from '../../services/nats/request.ts'
import { openView } from '../../services/nats/view.ts'
import { openWaits } from '../../services/nats/waits.ts'
import { eventually } from '../eventually.ts'
import { startNats, type TestNats } from '../nats.ts'
import { suite } from '../suite.ts'

const test = suite('services/nats')
let nats: TestNats
let nc: NatsConnection
let records: Records

test.before(async () => {
  nats = await startNats()
  nc = await connectNats({ servers: nats.urls, name: 'test', inboxOwner: 'admin' })
  await provision(nc)
  records = openRecords(nc)
})
test.after(async () => {
  await nc?.close()
  await nats?.stop()
})

test('provisioning twice changes nothing, and every bucket is as the table says', async () => {
  await provision(nc)
  for (const bucket of Object.keys(BUCKETS) as Bucket[]) {
    const { config } = await api<{ config: Record<string, unknown> }>(nc, `STREAM.INFO.${streamOf(bucket)}`)
    assert.is(config['max_msgs_per_subject'], 1)
    assert.ok(Number(config['max_consumers']) > 1000)
    assert.not(config['allow_direct'])
    assert.is(config['storage'], 'file', 'a single server forgets streams in memory when it restarts')
  }
})

test('a bucket whose limits changed in a release is updated in place', async () => {
  const stream = streamOf('task')
  const { config } = await api<{ config: Record<string, unknown> }>(nc, `STREAM.INFO.${stream}`)
  await api(nc, `STREAM.UPDATE.${stream}`, { ...config, description: 'older words' })
  await provision(nc)
  const after = await api<{ config: Record<string, unknown> }>(nc, `STREAM.INFO.${stream}`)
  assert.is(after.config['description'], BUCKETS.task.description)
})

test('a write with an old revision is a conflict, and so is a second first value', async () => {
  const first = await records.create('vm', 'a1', { n: 1 })
  const second = await records.update('vm', 'a1', { n: 2 }, first)
  await rejects(records.update('vm', 'a1', { n: 3 }, first), ConflictError)
  await rejects(records.create('vm', 'a1', { n: 4 }), ConflictError)
  assert.equal(await records.get('vm', 'a1'), { value: { n: 2 }, revision: second })
})

test('a value beyond what its bucket takes is refused before it is sent, however large', async () => {
  for (const bytes of [BUCKETS.vm.maxValueBytes + 1, 8 * 1024 * 1024]) {
    await rejects(records.put('vm', 'large', { text: 'x'.repeat(bytes) }), JetStreamRefusal)
  }
  assert.is(await records.get('vm', 'large'), undefined)
})

test('a deleted key reads as absent and can be created again', async () => {
  await records.create('vm', 'a2', { n: 1 })
  await records.delete('vm', 'a2')
  assert.is(await records.get('vm', 'a2'), undefined)
  await records.create('vm', 'a2', { n: 2 })
  assert.equal((await records.get('vm', 'a2'))?.value, { n: 2 })
})

test('after a barrier the view holds every write acknowledged before it', async () => {
  const view = await openView({ nc, bucket: 'vm', project: (_key, value) => (value as { n: number }).n })
  for (let n = 1; n <= 50; n++) {
    await records.put('vm', 'barrier', { n })
    await view.barrier()
    assert.is(view.get('barrier'), n)
  }
  await Promise.all(Array.from({ length: 40 }, () => view.barrier()))
  await records.delete('vm', 'barrier')
  await view.barrier()
  assert.is(view.get('barrier'), undefined)
  view.close()
})

test('a view that missed changes while its connection was gone tells them after it', async () => {
  const own = await startNats()
  const [writer, reader] = await Promise.all(
    ['writer', 'reader'].map(name => connectNats({ servers: own.urls, name, inboxOwner: 'admin' })),
  )
  assert.ok(writer && reader)
  await provision(writer)
  const view = await openView({ nc: reader, bucket: 'cn', project: (_key, value) => (value as { n: number }).n })
  const heard: number[] = []
  view.onChange(change => heard.push(change.value ?? 0))
  const put = openRecords(writer)
  await put.put('cn', 'k', { n: 1 })
  await eventually(() => heard.length === 1)
  await own.restart()
  await eventually(() => put.put('cn', 'k', { n: 2 }), { withinMs: 15_000 })
  await eventually(() => view.get('k') === 2, { withinMs: 15_000, what: 'the change after the restart' })
  await eventually(() => view.barrier().then(() => true), { withinMs: 10_000 })
  view.close()
  await Promise.all([writer.close(), reader.close()])
  await own.stop()
})

test('a wait ends with the first value that satisfies it, and with nothing when time is up', async () => {
  const waits = openWaits(nc, 'task')
  const done = (value: unknown) => (value as { status: string }).status === 'complete'
  await records.put('task', 't1', { status: 'active' })
  const waiting = waits.until('t1', done, { deadlineMs: 5_000 })
  await records.put('task', 't1', { status: 'complete' })
  assert.equal(await waiting, { status: 'complete' })
  assert.equal(await waits.until('t1', done, { deadlineMs: 5_000 }), { status: 'complete' })
  assert.is(await waits.until('t2', done, { deadlineMs: 50 }), undefined)
  const aborted = new AbortController()
  const given = waits.until('t2', done, { deadlineMs: 5_000, signal: aborted.signal })
  aborted.abort()
  assert.is(await given, undefined)
  waits.close()
})

test('what is not JSON ends neither the connection nor the wait for what comes after it', async () => {
  const own = await connectNats({ servers: nats.urls, name: 'reader', inboxOwner: 'gateway' })
  const events: string[] = []
  const listen = async () => {
    for await (const { type } of own.status()) events.push(type)
  }
  listen().catch(() => {})
  const waits = openWaits(own, 'task')
  const ended = waits.until('odd', value => (value as { done: boolean }).done, { deadlineMs: 10_000 })
  await own.flush()
  for (const text of ['{', 'null']) await nc.request('$KV.task.odd', text)
  await records.put('task', 'odd', { done: true })
  assert.equal(await ended, { done: true })
  await own.flush()
  assert.not.ok(events.includes('disconnect'), events.join())
  waits.close()
  await own.close()
})

test('a request waits for somebody to answer, repeats itself, and takes a late answer', async () => {
  const answer = request(nc, 'vm.late.cmd.get', { n: 1 }, { deadlineMs: 5_000, attemptMs: 100 })
  const seen: unknown[] = []
  const subscription = nc.subscribe('p.*.vm.late.cmd.get', {
    callback: (_error, message) => {
      seen.push(decode(message.data))
      // The first attempt is answered after the second was sent.
      if (seen.length === 2) message.respond(encode({ value: 'ok' }))
    },
  })
  assert.equal(await answer, { value: 'ok' })
  assert.equal(seen, [{ n: 1 }, { n: 1 }])
  subscription.unsubscribe()
})

test('past its deadline a request is ServiceUnavailableError, with or without listeners', async () => {
  const nobody = await request(nc, 'vm.none.cmd.get', {}, { deadlineMs: 150 })
  assert.is('error' in nobody && nobody.error.code, 'ServiceUnavailableError')
  const mute = nc.subscribe('p.*.vm.mute.cmd.get', { callback: () => {} })
  const silent = await request(nc, 'vm.mute.cmd.get', {}, { deadlineMs: 150, attemptMs: 50 })
  assert.is('error' in silent && silent.error.code, 'ServiceUnavailableError')
  mute.unsubscribe()
})

test('a process that announced itself answers $SRV', async () => {
  assert.not(await isAnnounced(nc, 'probe'))
  const stop = await announce(nc, { name: 'probe', version: '1.0.0', description: 'test' })
  assert.ok(await isAnnounced(nc, 'probe'))
  await stop()
})

test('a server without JetStream or without mappings is refused in one line that says what to add', async () => {
  const bare = await startNats({ muster: false })
  const bareNc = await connectNats({ servers: bare.urls, name: 'test', inboxOwner: 'admin' })
  await refuses(checkServer(bareNc), /JetStream is off .*jetstream \{ store_dir/)
  await bareNc.close()
  await bare.stop()
  const unmapped = await startNats({ muster: false, conf: 'jetstream { store_dir: $NATS_STORE }' })
  const unmappedNc = await connectNats({ servers: unmapped.urls, name: 'test', inboxOwner: 'admin' })
  await refuses(
    checkServer(unmappedNc),
    /mappings .* lack "cn\.\*\.cmd\.\*": "p\.\{\{partition\(64,1\)\}\}.*nats\.conf/,
  )
  await unmappedNc.close()
  await unmapped.stop()
})

const claim = 'a server that is too old is refused by version, with what to install'
const old = await aptDownload({ suite: 'trixie' }).catch((error: Error) => error.message.split('\n')[0] ?? 'no mirror')
if (typeof old === 'string') test.skip(claim, `no Debian mirror here: ${old}`)
else
  test(claim, async () => {
    const folder = mkdtempSync(join(tmpdir(), 'muster-old-nats-'))
    const program = join(await unpack(old, folder), 'usr/sbin/nats-server')
    const aged = await startNats({ program, muster: false, conf: 'jetstream { store_dir: $NATS_STORE }' })
    const agedNc = await connectNats({ servers: aged.urls, name: 'test', inboxOwner: 'admin' })
    await refuses(checkServer(agedNc), /nats-server 2\.10\.\d+ is too old.*Install 2\.12 or newer/)
    await refuses(provision(agedNc), /too old/)
    await agedNc.close()
    await aged.stop()
    rmSync(folder, { recursive: true })
  })

test.run()

async function refuses(promise: Promise<unknown>, expected: RegExp): Promise<void> {
  const error = (await promise.then(
    () => undefined,
    reason => reason,
  )) as Error | undefined
  assert.ok(error, 'it should have been refused')
  assert.match(error.message, expected)
  assert.not.match(error.message, '\n')
}

async function rejects(promise: Promise<unknown>, type: new (...a: never[]) => Error): Promise<void> {
  const error = await promise.then(
    () => undefined,
    reason => reason,
  )
  assert.instance(error, type)
}
