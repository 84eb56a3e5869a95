/** The ZFS API on a simulated node, properties that are refused in the middle, and a node that has no ZFS. */
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

test('properties that are set in part are set back', async () => {
  const zfs = simulatedZfs()
  await zfs.create('zones/b')
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
  const task = offer('zfs_set_properties', { dataset: 'zones/b', properties: { 'a:a': 'new', 'c:c': 'y', 'b:b': 'x' } })
  await agent.executor.accept(task)
  assert.is((await node.owner.end(task.id)).status, 'failure')
  // What had not been set is not set again.
  assert.equal(await zfs.properties('zones/b', ['a:a', 'c:c']), { 'zones/b': { 'a:a': 'old', 'c:c': '-' } })
  await agent.kill()
  await node.remove()
})

test.run()
