/** Two allocators on a nearly full fleet, one of them killed in the middle: nothing is promised twice, everybody is answered, and what lapses lapses. */
import { randomUUID } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import * as assert from 'uvu/assert'
import { NOBODY } from '../../actors/contract/allocation.ts'
import { ERRORS } from '../../actors/contract/errors.ts'
import type { Claim, ServerContext } from '../../actors/contract/server.ts'
import { openRecords } from '../../services/nats/records.ts'
import { request } from '../../services/nats/request.ts'
import { subject } from '../../services/nats/subjects.ts'
import { eventually } from '../eventually.ts'
import { type GatewayProcess, type MusterFixture, startMuster } from '../muster-fixture.ts'
import { suite } from '../suite.ts'
import { allocator, type Process } from '../waitlist/processes.ts'

const test = suite('faults of allocators')
let muster: MusterFixture
let gateway: GatewayProcess
let doomed: Process
/** With it begin the ids of its decisions. */
let doomedId = ''

test.before(async () => {
  muster = await startMuster({ nodes: 3 })
  doomed = allocator(muster.nats.url)
  ;[gateway] = await Promise.all([muster.gateway(), doomed.start()])
  doomedId = /"allocator":"([0-9a-f]{8})"/.exec(doomed.log())?.[1] ?? ''
})
test.after(async () => {
  await doomed?.kill()
  await muster?.stop()
})

const question = (ram: number, more: Record<string, unknown> = {}, of: Record<string, unknown> = {}) => ({
  vm: { vm_uuid: randomUUID(), owner_uuid: NOBODY, ram, brand: 'kvm', vcpus: 1, ...of },
  image: {},
  nic_tags: [],
  ...more,
})
const claimsOf = async (server: string): Promise<Record<string, Claim>> => {
  const record = await openRecords(muster.nc).get('cn', server)
  assert.ok(record)
  return (record.value as { snapshot: { context: ServerContext } }).snapshot.context.claims ?? {}
}
const promisedOn = async (server: string) =>
  Object.values(await claimsOf(server)).reduce((sum, { ram }) => sum + ram, 0)

interface Answered {
  status: number
  id?: string
  server?: string
  claim?: string
}

/** A claim for a minute, over REST. */
async function ask(ram: number): Promise<Answered> {
  const { status, body } = await gateway.ask('POST', '/allocate', { body: question(ram, { claim: true }) })
  return { status, id: body.allocation_id, server: body.server?.uuid, claim: body.claim?.id }
}

/** A shorter claim than REST gives, asked for as a gateway asks. */
async function askBriefly(ram: number, claimMs: number): Promise<Answered> {
  const limits = { deadlineMs: 10_000, attemptMs: 10_000 }
  const reply = await request(muster.nc, subject.allocator('choose'), question(ram, { claim_ms: claimMs }), limits)
  if ('error' in reply) return { status: ERRORS[reply.error.code].status }
  const { id, server_uuid, claim } = reply.value as { id: string; server_uuid: string; claim: { id: string } }
  return { status: 200, id, server: server_uuid, claim: claim.id }
}

test(
  '100 claims at once while an allocator is killed: never too much promised, all answered, and brief ones lapse',
  async () => {
    const { capacities } = (await gateway.ask('POST', '/capacity', { body: {} })).body
    const room = (server: string): number => capacities[server].ram
    const ram = Math.floor(Math.max(...muster.servers.map(room)) / 8)
    const briefMs = 5_000

    let done = false
    let killed: Promise<void> | undefined
    const kill = async (asked: Promise<Answered>) => {
      const answer = await asked
      // In the middle: it has answered one, and the others wait for it.
      if (answer.id?.startsWith(doomedId)) killed ??= doomed.kill('SIGKILL')
      await killed
      return answer
    }
    const asked = Array.from({ length: 100 }, (_, n) => kill(n % 2 === 0 ? ask(ram) : askBriefly(ram, briefMs)))
    let looks = 0
    const watch = async () => {
      while (!done) {
        for (const server of muster.servers) {
          const promised = await promisedOn(server)
          assert.ok(promised <= room(server), `${promised} MiB promised on ${server}, ${room(server)} there`)
          looks += 1
        }
        await pause(50)
      }
    }
    const watched = watch()
    const stored = new Set<string>()
    const firstKept = Promise.all(
      asked.map(async answering => {
        const { claim, server } = await answering
        if (claim && server && claim in (await claimsOf(server))) stored.add(claim)
      }),
    )
    const answers = await Promise.all(asked)
    await firstKept
    done = true
    await watched

    assert.not.ok(doomed.running(), 'one allocator was killed')
    const count = (status: number) => answers.filter(answer => answer.status === status).length
    console.log(`200: ${count(200)}, 409: ${count(409)}, 503: ${count(503)}; ${looks} looks at records`)
    assert.is(count(200) + count(409) + count(503), 100)
    assert.ok(count(200) > 0 && looks > 3)
    const taken = answers.flatMap(({ claim }) => claim ?? [])
    assert.is(taken.length, count(200))
    for (const claim of taken) assert.ok(stored.has(claim), `claim ${claim} was durable when it was answered`)
    const makers = new Set(answers.flatMap(({ id }) => (id ? [id.startsWith(doomedId)] : [])))
    assert.equal([...makers].sort(), [false, true], 'both have decided')

    // Those of the killed one that nobody was told of lapse as well.
    const asREST = new Set(answers.filter((_, n) => n % 2 === 0).flatMap(({ claim }) => claim ?? []))
    const brief = async () => {
      const left = await Promise.all(muster.servers.map(async server => Object.entries(await claimsOf(server))))
      return left.flat().filter(([id, { until }]) => !asREST.has(id) && until < Date.now() + briefMs)
    }
    await eventually(async () => (await brief()).length === 0, { withinMs: 15_000, what: 'brief claims to lapse' })
  },
  { limitMs: 60_000 },
)

test('the allocator that is left answers at once', async () => {
  const begun = performance.now()
  const answers = await Promise.all(
    Array.from({ length: 20 }, () => gateway.ask('POST', '/allocate', { body: question(1) })),
  )
  assert.equal([...new Set(answers.map(({ status }) => status))], [200])
  assert.ok(performance.now() - begun < 8_000)
})

test('a VM is found by its tag, as its record was made and as an update has changed it', async () => {
  const owner = randomUUID()
  const [server, other] = muster.servers as [string, string]
  const place = async (operator: '==' | '!=', value: string, servers = [server, other]) => {
    const affinity = [{ key: 'role', operator, value, valueType: 'exact', isSoft: false }]
    const of = { owner_uuid: owner, affinity }
    const { status, body } = await gateway.ask('POST', '/allocate', { body: question(1, { servers }, of) })
    return status === 200 ? (body.server.uuid as string) : status
  }
  const made = await gateway.ask('POST', `/servers/${server}/vms`, {
    body: { ram: 8, owner_uuid: owner, tags: { role: 'database' } },
  })
  assert.is(made.status, 200, JSON.stringify(made.body))
  assert.is(await place('==', 'database'), server)
  assert.is(await place('!=', 'database'), other)
  assert.is(await place('==', 'database', [other]), 409)

  await gateway.ask('GET', `/tasks/${made.body.id}/wait`)
  const uuid = made.body.vm_uuid
  const updated = await gateway.ask('POST', `/servers/${server}/vms/${uuid}/update`, {
    body: { set_tags: { role: 'cache' } },
  })
  assert.is(updated.status, 200, JSON.stringify(updated.body))
  await eventually(async () => (await place('==', 'cache')) === server, { what: 'the new tag to be found' })
  assert.is(await place('==', 'database'), 409)
})

test.run()
