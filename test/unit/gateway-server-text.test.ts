/** Kept texts of servers are never old: after a change of anything they are made of they say what a fresh one says. */
import * as assert from 'uvu/assert'
import type { Capacities } from '../../gateway/backend.ts'
import { rounds } from '../../gateway/rounds.ts'
import { listedText, serverText } from '../../gateway/server-text.ts'
import { shownServer } from '../../gateway/shown-server.ts'
import { unreserved } from '../../gateway/unreserved.ts'
import { fakeBackend, SERVER, VM } from '../fake-backend.ts'
import { suite } from '../suite.ts'

const test = suite('texts of servers')

const nothing: Capacities = { capacities: {}, ratios: {}, errors: {} }
const some = (ram: number): Capacities => ({
  capacities: { [SERVER]: { cpu: 1, ram, disk: 3 } },
  ratios: { [SERVER]: { ram: 1 } },
  errors: {},
})

test('a kept text follows record, sysinfo, status, VMs, heartbeat and what is left', () => {
  const backend = fakeBackend()
  let version = 0
  backend.vms.version = () => version
  const changes: (() => Capacities | undefined)[] = [
    () => void backend.put.server({ hostname: 'one' }),
    () => void backend.put.sysinfo(SERVER, { UUID: SERVER, 'MiB of Memory': '4096' }),
    () => void backend.put.status(SERVER, { vms: {}, meminfo: { total_bytes: 5 } }),
    () => void backend.put.sysinfo(SERVER, { UUID: SERVER, 'MiB of Memory': '8192' }),
    () => void backend.put.status(SERVER, { vms: {}, meminfo: { total_bytes: 6 } }),
    () => {
      backend.put.vm({ server_uuid: SERVER, state: 'running' })
      version += 1
    },
    () => {
      backend.put.vm({ uuid: VM, server_uuid: SERVER, state: 'stopped' })
      version += 1
    },
    () => void backend.put.beat(SERVER, 1_700_000_000_000),
    () => void backend.put.beat(SERVER, 1_700_000_005_000),
    () => some(1),
    () => some(2),
    () => void backend.put.server({ hostname: 'two' }),
  ]
  const texts = new Set<string>()
  for (const [at, change] of changes.entries()) {
    const left = change() ?? nothing
    const server = backend.servers.get(SERVER)!
    const fresh = { ...shownServer(server, new Set(['all']), backend), ...unreserved(SERVER, left) }
    // Asked twice: the second time it was kept.
    for (let n = 0; n < 2; n++)
      assert.equal(JSON.parse(serverText(server, left, backend)), JSON.parse(JSON.stringify(fresh)), `${at}`)
    texts.add(serverText(server, left, backend))
    assert.equal(
      JSON.parse(listedText(server, backend)),
      JSON.parse(JSON.stringify(shownServer(server, new Set(), backend))),
    )
  }
  assert.is(texts.size, changes.length, 'every change shows')
})

test('questions that come while one is asked wait for the next: no answer is older than its question', async () => {
  const asked: number[][] = []
  const answers: ((answer: number) => void)[] = []
  const ask = rounds<number, number>(questions => {
    asked.push(questions)
    return new Promise(resolve => answers.push(resolve))
  })
  const turn = () => new Promise(setImmediate)
  const first = [ask(1), ask(2)]
  await turn()
  const later = [ask(3), ask(4)]
  await turn()
  assert.equal(asked, [[1, 2]])
  answers[0]?.(10)
  assert.equal(await Promise.all(first), [10, 10])
  await turn()
  assert.equal(asked, [
    [1, 2],
    [3, 4],
  ])
  answers[1]?.(20)
  assert.equal(await Promise.all(later), [20, 20])
})

test('a failed asking fails those who asked, and nobody after them', async () => {
  let broken = true
  const ask = rounds<number, number>(async questions => {
    if (broken) throw new Error('no leader')
    return questions.length
  })
  const outcomes = await Promise.allSettled([ask(1), ask(2)])
  assert.equal(
    outcomes.map(({ status }) => status),
    ['rejected', 'rejected'],
  )
  broken = false
  assert.is(await ask(3), 1)
})

test.run()
