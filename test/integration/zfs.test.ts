/** The ZFS API on a simulated node, its tasks through crashes, and a node that has no ZFS. */
import * as assert from 'uvu/assert'
import { HypervisorError } from '../../hypervisor-agent/hypervisor.ts'
import { simulatedZfs } from '../../hypervisor-agent/simulated/zfs.ts'
import { zfsCommands } from '../../hypervisor-agent/zfs/commands.ts'
import type { Zfs } from '../../hypervisor-agent/zfs/zfs.ts'
import { type GatewayProcess, type MusterFixture, startMuster } from '../muster-fixture.ts'
import { suite } from '../suite.ts'
import { offer, simulatedNode } from '../unit/agent-fixture.ts'
import { zfsStories } from './zfs-stories.ts'

const test = suite('zfs')
let muster: MusterFixture
let gateway: GatewayProcess

test.before(async () => {
  muster = await startMuster()
  gateway = await muster.gateway()
})
test.after(async () => {
  await muster?.stop()
})

zfsStories(test, () => ({ gateway, server: muster.servers[0]!, pool: 'zones' }))

test('a server without ZFS says so', async () => {
  const zfs = zfsCommands({ env: { PATH: '/nonexistent' } })
  const error = await zfs.datasets().catch((error: unknown) => error)
  assert.instance(error, HypervisorError)
  assert.is((error as HypervisorError).code, 'ZfsNotAvailable')
})

/** Each task, what must be there before it, and what is there after it. */
const TASKS = [
  ['zfs_create_dataset', {}, 'zones/a', (zfs: Zfs) => zfs.datasets()],
  ['zfs_snapshot_dataset', {}, 'zones/b@s', (zfs: Zfs) => zfs.snapshots('zones/b')],
  ['zfs_rollback_dataset', {}, 'zones/b@first', (zfs: Zfs) => zfs.snapshots('zones/b')],
  ['zfs_set_properties', { properties: { 'x:y': 'z' } }, 'zones/b', (zfs: Zfs) => zfs.properties('zones/b', ['x:y'])],
  ['zfs_destroy_dataset', {}, 'zones/b@first', (zfs: Zfs) => zfs.snapshots('zones/b')],
] as const

async function prepared(): Promise<Zfs> {
  const zfs = simulatedZfs()
  await zfs.create('zones/b')
  await zfs.snapshot('zones/b@first')
  return zfs
}

/** Calls of ZFS so far; the one with this number ends the agent, before or after its effect. */
function failing(zfs: Zfs, at: number, when: 'before' | 'after', die: () => void): { zfs: Zfs; calls: () => number } {
  let calls = 0
  const through = Object.fromEntries(
    Object.entries(zfs).map(([name, call]) => [
      name,
      async (...args: never[]) => {
        calls += 1
        const dies = calls === at
        if (dies && when === 'before') {
          die()
          return new Promise(() => {})
        }
        const value = await (call as (...args: never[]) => Promise<unknown>)(...args)
        if (!dies) return value
        die()
        return new Promise(() => {})
      },
    ]),
  )
  return { zfs: through as unknown as Zfs, calls: () => calls }
}

for (const [task, more, dataset, look] of TASKS) {
  test(`${task} ends as if once after a crash at each of its steps`, async () => {
    const wanted = await prepared()
    const whole = await simulatedNode()
    const first = await whole.agent({ throughTools: tools => ({ ...tools, zfs: wanted }) })
    const once = offer(task, { dataset, ...more })
    await first.executor.accept(once)
    assert.is((await whole.owner.end(once.id)).status, 'complete')
    await first.kill()
    await whole.remove()
    const expected = JSON.stringify(await look(wanted))

    for (let at = 1; at <= 12; at += 1) {
      for (const when of ['before', 'after'] as const) {
        const zfs = await prepared()
        const node = await simulatedNode()
        let die = () => {}
        const died = new Promise<'died'>(resolve => {
          die = () => resolve('died')
        })
        const broken = failing(zfs, at, when, die)
        const agent = await node.agent({ throughTools: tools => ({ ...tools, zfs: broken.zfs }) })
        const one = offer(task, { dataset, ...more })
        await agent.executor.accept(one)
        const end = await Promise.race([died, node.owner.end(one.id)])
        await agent.kill()
        if (end === 'died') {
          const again = await node.agent({ throughTools: tools => ({ ...tools, zfs }) })
          again.executor.resume()
          const report = await node.owner.end(one.id)
          assert.is(report.status, 'complete', `${when} call ${at}: ${JSON.stringify(report)}`)
          await again.kill()
        }
        assert.is(JSON.stringify(await look(zfs)), expected, `${when} call ${at}`)
        await node.remove()
        if (end !== 'died' && broken.calls() < at) return
      }
    }
  })
}

test('properties that are set in part are set back', async () => {
  const zfs = await prepared()
  await zfs.set('zones/b', { 'a:a': 'old' })
  const node = await simulatedNode()
  const refusing: Zfs = {
    ...zfs,
    set: async (dataset, given) => {
      if ('b:b' in given) throw new HypervisorError('ZfsFailed', 'not this one')
      return zfs.set(dataset, given)
    },
  }
  const agent = await node.agent({ throughTools: tools => ({ ...tools, zfs: refusing }) })
  const task = offer('zfs_set_properties', { dataset: 'zones/b', properties: { 'a:a': 'new', 'b:b': 'x' } })
  await agent.executor.accept(task)
  assert.is((await node.owner.end(task.id)).status, 'failure')
  assert.equal(await zfs.properties('zones/b', ['a:a']), { 'zones/b': { 'a:a': 'old' } })
  await agent.kill()
  await node.remove()
})

test.run()
