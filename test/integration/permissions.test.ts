/**
 * Least privilege, tried on a real server with the configuration that `npm start` writes: for each identity what it must do
 * works, and what it must not do does not arrive. An observer with every right decides both, never the client's own word.
 */
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { jetstreamManager } from '@nats-io/jetstream'
import { Kvm } from '@nats-io/kv'
import { connect, type Msg, type NatsConnection, nkeyAuthenticator } from 'nats'
import * as assert from 'uvu/assert'
import { admitAgent, ensureIdentities, newKey } from '../../scripts/keyring.ts'
import { allKeys, BUCKETS, type Bucket, key, keySubject, streamOf } from '../../services/nats/buckets.ts'
import { type Identity, inboxOf, userEntry } from '../../services/nats/permissions.ts'
import { KINDS, partitionOf, pattern, subject } from '../../services/nats/subjects.ts'
import { eventually } from '../eventually.ts'
import { startNats, type TestNats } from '../nats.ts'
import { suite } from '../suite.ts'

const test = suite('rights of identities')
const mine = 'aaaaaaaa-0000-4000-8000-000000000001'
const other = 'bbbbbbbb-0000-4000-8000-000000000002'
const vm = 'cccccccc-0000-4000-8000-000000000003'
const identities = ['host', 'gateway', 'allocator', { agent: mine }] as const satisfies Identity[]
const buckets = Object.keys(BUCKETS) as Bucket[]
const everything: Identity = 'admin'

const dataDir = mkdtempSync(join(tmpdir(), 'muster-rights-'))
let nats: TestNats
let observer: NatsConnection
const connections = new Map<string, NatsConnection>()

test.before(async () => {
  const made = await ensureIdentities(dataDir, [mine, other])
  nats = await startNats({ muster: false, conf: `include "..${made.confFile.slice(tmpdir().length)}"\n` })
  observer = await as(everything)
  for (const identity of identities) await as(identity)
  const kvm = new Kvm(observer)
  for (const bucket of buckets) await (await kvm.create(bucket, { history: 1 })).put('there', '{}')
})
test.after(async () => {
  for (const nc of connections.values()) await nc.close()
  await nats?.stop()
  rmSync(dataDir, { recursive: true })
})

test('keys are readable by their owner only, and a second start keeps them', async () => {
  const made = await ensureIdentities(dataDir, [mine])
  for (const identity of [...identities, everything]) {
    const file = made.seedFile(identity)
    assert.is(statSync(file).mode & 0o777, 0o600, file)
  }
  assert.is(statSync(made.confFile).mode & 0o777, 0o600)
  const before = readFileSync(made.seedFile('host'), 'utf8')
  await ensureIdentities(dataDir)
  assert.is(readFileSync(made.seedFile('host'), 'utf8'), before)
  assert.match(readFileSync(made.confFile, 'utf8'), userEntry({ agent: other }, publicKeyIn(made.confFile, other)))
})

interface Claims {
  sends: string[]
  doesNotSend: string[]
  hears: [filter: string, published: string][]
  doesNotHear: [filter: string, published: string][]
}

const taskOf = (uuid: string) => subject.agent(uuid, 'task')
const writes = (bucket: Bucket) => keySubject(bucket, 'forged')
const api = (call: string, bucket: Bucket) => `$JS.API.${call}.${streamOf(bucket)}`
const commands = KINDS.map(kind => subject.command(kind, vm, 'probe'))
const inbox = (identity: Identity) => `${inboxOf(identity)}.one.two`
const administration = [
  '$JS.API.STREAM.LIST',
  '$JS.API.STREAM.CREATE.KV_more',
  ...buckets.flatMap(bucket => [
    api('STREAM.DELETE', bucket),
    api('STREAM.PURGE', bucket),
    api('STREAM.UPDATE', bucket),
    api('STREAM.MSG.DELETE', bucket),
  ]),
]
const nobodyHears: [string, string][] = [
  ['>', 'any.thing'],
  ['$KV.>', keySubject('lease', key.lease('h9'))],
  ...buckets.map((bucket): [string, string] => [allKeys(bucket), keySubject(bucket, 'x9')]),
  ['_INBOX.>', inbox('host')],
]

/** The agent of one node, except for what names the node itself. */
const nothingOfAnAgent = [taskOf(mine), subject.agentCall(mine, 'report'), subject.agentCall(mine, 'sync')]

const claims: [Identity, Claims][] = [
  [
    { agent: mine },
    {
      sends: [subject.heartbeat(mine), ...['report', 'sync', 'sysinfo', 'status'].map(v => subject.agentCall(mine, v))],
      doesNotSend: [
        subject.heartbeat(other),
        ...['report', 'sync', 'sysinfo', 'status'].map(verb => subject.agentCall(other, verb)),
        `p.${partitionOf(other)}.cn.${other}.agent.report`,
        ...commands,
        subject.command('cn', mine, 'task_add'),
        taskOf(mine),
        taskOf(other),
        subject.event('vm', vm),
        subject.allocator('choose'),
        ...KINDS.map(subject.machines),
        subject.metrics(),
        ...buckets.flatMap(bucket => [writes(bucket), api('STREAM.MSG.GET', bucket), api('STREAM.INFO', bucket)]),
        ...buckets.map(bucket => `${api('DIRECT.GET', bucket)}.${keySubject(bucket, 'there')}`),
        ...buckets.map(bucket => `${api('CONSUMER.CREATE', bucket)}.c1.${allKeys(bucket)}`),
        '$JS.API.INFO',
        ...administration,
        inbox('host'),
        inbox('gateway'),
        inbox({ agent: other }),
      ],
      hears: [
        [pattern.agent(mine), taskOf(mine)],
        [pattern.agent(mine), subject.agent(mine, 'read')],
        [`${inboxOf({ agent: mine })}.>`, inbox({ agent: mine })],
      ],
      doesNotHear: [
        ...nobodyHears,
        [pattern.agent(other), taskOf(other)],
        [pattern.agents(), taskOf(mine)],
        ['agent.*.task', taskOf(other)],
        [pattern.partitions(), subject.heartbeat(other)],
        [pattern.heartbeats(), subject.heartbeat(other)],
        [pattern.commands('cn'), subject.command('cn', mine, 'task_add')],
        [pattern.events(), subject.event('vm', vm)],
        [`${inboxOf({ agent: other })}.>`, inbox({ agent: other })],
        [`${inboxOf('gateway')}.>`, inbox('gateway')],
      ],
    },
  ],
  [
    'gateway',
    {
      sends: [
        ...commands,
        ...KINDS.map(subject.machines),
        subject.metrics(),
        subject.allocator('choose'),
        subject.heartbeat(other),
      ],
      doesNotSend: [
        ...nothingOfAnAgent,
        subject.agentCall(other, 'sysinfo'),
        subject.agentCall(other, 'status'),
        subject.event('vm', vm),
        ...buckets.map(writes),
        ...administration,
        inbox('host'),
        inbox({ agent: mine }),
      ],
      hears: [
        [pattern.heartbeats(), subject.heartbeat(other)],
        [pattern.events(), subject.event('vm', vm)],
        [`${inboxOf('gateway')}.>`, inbox('gateway')],
        ['$SRV.>', '$SRV.PING'],
      ],
      doesNotHear: [
        ...nobodyHears,
        [pattern.agents(), taskOf(mine)],
        [pattern.partitions(), subject.command('vm', vm, 'start')],
        [pattern.commands('vm'), subject.command('vm', vm, 'start')],
        ['p.*.cn.*.agent.*', subject.agentCall(mine, 'report')],
        [`${inboxOf({ agent: mine })}.>`, inbox({ agent: mine })],
        [pattern.machines(), subject.machines('vm')],
      ],
    },
  ],
  [
    'allocator',
    {
      sends: [subject.command('cn', mine, 'claim')],
      doesNotSend: [
        ...nothingOfAnAgent,
        subject.command('vm', vm, 'destroy'),
        subject.command('host', vm, 'destroy'),
        subject.heartbeat(mine),
        subject.event('vm', vm),
        ...buckets.map(writes),
        ...administration,
        inbox('gateway'),
      ],
      hears: [
        [subject.allocator('choose'), subject.allocator('choose')],
        [pattern.heartbeats(), subject.heartbeat(other)],
        ['$SRV.>', '$SRV.PING'],
      ],
      doesNotHear: [
        ...nobodyHears,
        [pattern.agents(), taskOf(mine)],
        [pattern.partitions(), subject.command('vm', vm, 'start')],
        [`${inboxOf('gateway')}.>`, inbox('gateway')],
      ],
    },
  ],
  [
    'host',
    {
      sends: [
        ...commands,
        taskOf(mine),
        subject.agent(other, 'read'),
        subject.event('vm', vm),
        ...buckets.map(writes),
        inbox('gateway'),
        inbox({ agent: mine }),
      ],
      doesNotSend: [
        subject.heartbeat(mine),
        subject.agentCall(mine, 'report'),
        subject.allocator('choose'),
        ...administration,
      ],
      hears: [
        [pattern.partition(partitionOf(vm)), subject.command('vm', vm, 'start')],
        [pattern.partition(partitionOf(mine)), subject.agentCall(mine, 'report')],
        [pattern.partition(partitionOf(mine)), subject.heartbeat(mine)],
        [pattern.machines(), subject.machines('vm')],
        ['$SRV.>', '$SRV.PING'],
      ],
      doesNotHear: [
        ...nobodyHears,
        [pattern.agents(), taskOf(mine)],
        [`${inboxOf('gateway')}.>`, inbox('gateway')],
        [`${inboxOf({ agent: mine })}.>`, inbox({ agent: mine })],
      ],
    },
  ],
]

for (const [identity, claim] of claims) {
  const name = typeof identity === 'object' ? 'an agent' : `the ${identity}`
  test(`${name} sends what it must and nothing else`, async () => {
    const nc = await as(identity)
    assert.equal(await arriving(nc, claim.sends), claim.sends, 'all of what it must send arrives')
    assert.equal(await arriving(nc, claim.doesNotSend), [], 'nothing of what it must not send arrives')
  })
  test(`${name} hears what it must and nothing else`, async () => {
    const nc = await as(identity)
    for (const [filter, published] of claim.hears) assert.ok(await hears(nc, filter, published), `${filter} is heard`)
    for (const [filter, published] of claim.doesNotHear) {
      assert.not(await hears(nc, filter, published), `${filter} is not heard`)
    }
  })
}

test('host, gateway and allocator read records and keep views of them; the gateway sees no lease', async () => {
  for (const identity of ['host', 'gateway', 'allocator'] as const) {
    const nc = await as(identity)
    for (const bucket of buckets) {
      if (bucket === 'lease' && identity !== 'host') continue
      const kv = await new Kvm(nc).open(bucket)
      assert.is((await kv.get('there'))?.string(), '{}', `${identity} reads ${bucket}`)
      const watch = await kv.watch()
      for await (const entry of watch) if (entry.key === 'there') break
      assert.ok((await kv.status()).streamInfo.state.last_seq > 0, `${identity} reads the state of ${bucket}`)
    }
  }
  for (const identity of ['gateway', 'allocator'] as const) {
    assert.equal(await arriving(await as(identity), [api('STREAM.INFO', 'lease'), writes('lease')]), [])
  }
})

test('the host writes records and renews leases by compare-and-set', async () => {
  const kv = await new Kvm(await as('host')).open('vm')
  const revision = await kv.create(key.actor('vm', vm), '{"state":"stopped"}')
  assert.ok((await kv.update(vm, '{"state":"running"}', revision)) > revision)
  await kv.purge(vm)
})

test('requests are answered across identities, though none can read inboxes of others', async () => {
  const [host, gateway, agent] = [await as('host'), await as('gateway'), await as({ agent: mine })]
  const told = agent.subscribe(pattern.agent(mine), { callback: (_, msg) => void msg.respond('accepted') })
  const served = host.subscribe(pattern.partitions(), { callback: (_, msg) => void msg.respond(`from ${msg.subject}`) })
  await Promise.all([agent.flush(), host.flush()])
  const asked: [NatsConnection, string, string][] = [
    [gateway, subject.command('vm', vm, 'start'), `from p.${partitionOf(vm)}.vm.${vm}.cmd.start`],
    [agent, subject.agentCall(mine, 'sync'), `from p.${partitionOf(mine)}.cn.${mine}.agent.sync`],
    [host, taskOf(mine), 'accepted'],
  ]
  for (const [nc, to, answer] of asked) assert.is((await nc.request(to, '', { timeout: 2_000 })).string(), answer)
  told.unsubscribe()
  served.unsubscribe()
})

test('an agent answers each offer once, and nobody who did not ask', async () => {
  const agent = await as({ agent: mine })
  const offers: Msg[] = []
  const told = agent.subscribe(pattern.agent(mine), { callback: (_, msg) => void offers.push(msg) })
  await agent.flush()
  await observer.publish(taskOf(mine), '', { reply: inbox('host') })
  await settle(observer, agent)
  assert.is(offers.length, 1)
  assert.equal(await arriving(agent, [inbox('host'), inbox('host'), inbox('gateway')]), [inbox('host')])
  told.unsubscribe()
})

test('admin provisions, and sees all of the account but nothing of the system', async () => {
  const manager = await jetstreamManager(observer)
  const info = await manager.streams.info(streamOf('cn'))
  assert.is(info.config.name, 'KV_cn')
  const asked = await observer.request('$SYS.REQ.SERVER.PING', '', { timeout: 500 }).then(
    () => 'answered',
    () => 'not answered',
  )
  assert.is(asked, 'not answered', 'the system account is another one')
})

test('an enrolled agent gets in after a reload, a stranger never', async () => {
  const uuid = 'dddddddd-0000-4000-8000-000000000004'
  const { seed, publicKey } = newKey()
  const stranger = () => connectWith(seed, { agent: uuid })
  const refused = await stranger().then(
    nc => nc.close().then(() => undefined),
    (error: Error) => error,
  )
  assert.match(String(refused), /[Aa]uthorization/)
  await admitAgent(dataDir, uuid, publicKey)
  nats.reload()
  const nc = await eventually(stranger, { what: 'a connection of the enrolled agent' })
  assert.equal(await arriving(nc, [subject.heartbeat(uuid), subject.heartbeat(mine)]), [subject.heartbeat(uuid)])
  await nc.close()
})

test.run()

async function as(identity: Identity): Promise<NatsConnection> {
  const name = JSON.stringify(identity)
  const open = connections.get(name)
  if (open) return open
  const { seedFile } = await ensureIdentities(dataDir)
  const nc = await connectWith(readFileSync(seedFile(identity), 'utf8').trim(), identity)
  connections.set(name, nc)
  return nc
}

function connectWith(seed: string, identity: Identity): Promise<NatsConnection> {
  const authenticator = nkeyAuthenticator(new TextEncoder().encode(seed))
  return connect({ servers: nats.urls, authenticator, inboxPrefix: inboxOf(identity), reconnect: false })
}

/** Those of `subjects` that, published by `nc`, reach an observer of everything (under the name before or after the mapping). */
async function arriving(nc: NatsConnection, subjects: string[]): Promise<string[]> {
  const seen: string[] = []
  const marks = new Map(subjects.map((_, at) => [`${process.pid}-${Math.random()}-${at}`, at]))
  const watching = observer.subscribe('>', { callback: (_, msg) => void seen.push(msg.string()) })
  await observer.flush()
  for (const [mark, at] of marks) nc.publish(subjects[at] ?? '', mark)
  await settle(nc, observer)
  watching.unsubscribe()
  return subjects.filter((_, at) => [...marks].some(([mark, n]) => n === at && seen.includes(mark)))
}

/** Whether a subscription of `nc` gets what the observer publishes. */
async function hears(nc: NatsConnection, filter: string, published: string): Promise<boolean> {
  const mark = `${process.pid}-${Math.random()}`
  let heard = false
  const sub = nc.subscribe(filter, {
    callback: (error, msg) => {
      if (!error && msg.string() === mark) heard = true
    },
  })
  await nc.flush()
  observer.publish(published, mark)
  await settle(observer, nc)
  if (!sub.isClosed()) sub.unsubscribe()
  return heard
}

/** After two round trips on both connections everything published before has been delivered or refused. */
async function settle(...ncs: NatsConnection[]): Promise<void> {
  for (let round = 0; round < 2; round++) for (const nc of ncs) await nc.flush()
}

function publicKeyIn(confFile: string, uuid: string): string {
  const users = readFileSync(confFile, 'utf8').split('{ nkey: ')
  return users.find(text => text.includes(`p.*.hb.${uuid}`))?.slice(0, 56) ?? ''
}
