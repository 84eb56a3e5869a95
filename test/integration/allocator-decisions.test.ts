/** Decisions of several allocators: whoever made one is found, and where nobody can say it, that is told apart from one that is not kept. */
import { randomUUID } from 'node:crypto'
import * as assert from 'uvu/assert'
import { KNOBS } from '../../actors/allocation/fleet.ts'
import { NOBODY } from '../../actors/contract/allocation.ts'
import { type NatsBackend, openNatsBackend } from '../../gateway/nats-backend.ts'
import { startAllocator } from '../../services/allocator/allocator.ts'
import { connectNats } from '../../services/nats/connect.ts'
import { provision } from '../../services/nats/provision.ts'
import { startNats, type TestNats } from '../nats.ts'
import { suite } from '../suite.ts'

const test = suite('decisions of several allocators')
const undo: (() => unknown)[] = []
let nats: TestNats
let backend: NatsBackend

test.before(async () => {
  nats = await startNats()
  undo.push(() => nats.stop())
  const nc = await connection('gateway')
  await provision(nc)
  backend = await openNatsBackend({ nc, sender: `test-${randomUUID()}`, warn: () => {} })
  undo.push(() => backend.close())
})
test.after(async () => {
  for (const step of undo.splice(0).reverse()) await step()
})

async function connection(inboxOwner: string) {
  const nc = await connectNats({ servers: nats.urls, name: inboxOwner, inboxOwner })
  undo.push(() => nc.close())
  return nc
}

const running = new Map<string, { stop(): Promise<void> }>()

async function start(allocatorId: string): Promise<void> {
  const nc = await connection('allocator')
  running.set(allocatorId, await startAllocator({ nc, knobs: KNOBS, allocatorId, warn: () => {} }))
  undo.push(() => stop(allocatorId))
}

async function stop(allocatorId: string): Promise<void> {
  await running.get(allocatorId)?.stop()
  running.delete(allocatorId)
}

/** There is no server, so every answer is a refusal, with the decision that led to it. */
async function decided(ram: number): Promise<string> {
  const vm = { vm_uuid: randomUUID(), owner_uuid: NOBODY, ram, brand: 'kvm', vcpus: 1 }
  const outcome = await backend.allocate({ vm, image: {}, nic_tags: [] } as never)
  if (!('decision' in outcome) || !outcome.decision) throw new Error(JSON.stringify(outcome))
  return outcome.decision.id
}

async function codeOf(id: string) {
  const outcome = await backend.decision(id, undefined)
  return 'error' in outcome ? outcome.error.code : 'told'
}

async function isQuick(asking: Promise<unknown>): Promise<boolean> {
  const begun = performance.now()
  await asking
  return performance.now() - begun < 1_000
}

const [one, two] = ['0000000a', '0000000b'] as const

test('without any allocator nobody knows whether a decision is kept', async () => {
  assert.is(await codeOf(randomUUID()), 'ServiceUnavailableError')
})

test('whichever of two allocators made a decision tells it, and one that it does not keep it says so at once', async () => {
  await Promise.all([start(one), start(two)])
  const ids = await Promise.all(Array.from({ length: 40 }, (_, n) => decided(n + 1)))
  for (const maker of [one, two]) assert.ok(ids.filter(id => id.startsWith(maker)).length > 3, `${ids}`)
  for (const [n, id] of ids.entries()) {
    const outcome = await backend.decision(id, undefined)
    assert.ok('value' in outcome, JSON.stringify(outcome))
    const { id: told, question } = outcome.value as { id: string; question: { vm: { ram: number } } }
    assert.equal([told, question.vm.ram], [id, n + 1])
  }
  for (const maker of [one, two]) {
    const unknown = `${maker}${randomUUID().slice(8)}`
    assert.ok(await isQuick(codeOf(unknown)))
    assert.is(await codeOf(unknown), 'ResourceNotFound')
  }
})

test('what an allocator decided is gone with it; the other still tells its own', async () => {
  const ids = await Promise.all(Array.from({ length: 40 }, (_, n) => decided(n + 1)))
  await stop(two)
  const [left] = ids.filter(id => id.startsWith(one))
  const [gone] = ids.filter(id => id.startsWith(two))
  assert.ok(await isQuick(codeOf(left!)))
  assert.is(await codeOf(left!), 'told')
  const outcome = await backend.decision(gone!, undefined)
  assert.ok('error' in outcome)
  assert.is(outcome.error.code, 'ResourceNotFound')
  assert.match(outcome.error.message, 'the allocator that made it is gone')
  await stop(one)
  assert.is(await codeOf(left!), 'ServiceUnavailableError')
})

test.run()
