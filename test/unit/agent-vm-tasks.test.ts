/** Tasks that change VMs, take snapshots of them and move them, tried as `task-suite.ts` says; and a stream that is taken back. */
import { randomUUID } from 'node:crypto'
import { createConnection } from 'node:net'
import * as assert from 'uvu/assert'
import { sendDisks } from '../../hypervisor-agent/streams/disks.ts'
import { connectStream } from '../../hypervisor-agent/streams/streams.ts'
import { suite } from '../suite.ts'
import { offer, simulatedNode, vmSpec } from './agent-fixture.ts'
import { CHANGE_CASES } from './change-cases.ts'
import { MIGRATE_CASES } from './migrate-cases.ts'
import { cookies, guest, roomMade, stateOf, step } from './migrate-scenes.ts'
import { SNAPSHOT_CASES } from './snapshot-cases.ts'
import { type Scene, tryCases } from './task-suite.ts'

const test = suite('agent tasks that change, keep and move VMs')

tryCases(test, [...CHANGE_CASES, ...SNAPSHOT_CASES, ...MIGRATE_CASES])

test('a guest that goes on and at once powers itself off has arrived: what it did here is nowhere else', async () => {
  const node = await simulatedNode({ memoryMib: 8192 })
  const agent = await node.agent()
  try {
    const scene: Scene = { node, spec: vmSpec(), closing: [] }
    await roomMade(scene)
    node.hypervisor.onChange(({ uuid, what }) => {
      if (what === 'resumed' && uuid !== undefined) node.hypervisor.world.guestPowersOff(uuid)
    })
    const start = offer('machine_migrate_start', { ...step(scene), cookie: cookies.get(scene) })
    await agent.executor.accept(start)
    const end = await node.owner.end(start.id)
    assert.equal([end.status, stateOf(end), guest(scene)?.incoming], ['complete', 'stopped', false])
  } finally {
    await agent.kill()
    await node.remove()
  }
})

for (const when of ['before its disks come', 'while its disks come'] as const) {
  test(`a migration that is discarded ${when} takes none any more`, async () => {
    const node = await simulatedNode()
    const agent = await node.agent()
    try {
      const spec = vmSpec()
      const [token, step] = ['a1'.repeat(32), { uuid: spec.uuid, migration: randomUUID() }]
      const receive = offer('machine_migrate_receive', { ...step, spec, token })
      await agent.executor.accept(receive)
      const { result } = await node.owner.end(receive.id)
      const { stream } = (result as { found: { stream: { host: string; port: number } } }).found
      let begun = () => {}
      let goOn = () => {}
      const isUnderWay = new Promise<void>(resolve => {
        begun = resolve
      })
      const isDiscarded = new Promise<void>(resolve => {
        goOn = resolve
      })
      async function* disk() {
        yield Buffer.from('half of it')
        begun()
        await isDiscarded
        yield Buffer.from('the rest')
      }
      const send = async () => {
        const socket = await connectStream({ ...stream, token }, createConnection, new AbortController().signal)
        return sendDisks(socket, [async () => disk()], () => {}).catch(error => error.code)
      }
      const isEarly = when === 'while its disks come'
      const early = isEarly ? send() : undefined
      if (isEarly) await isUnderWay
      const discard = offer('machine_migrate_discard', { ...step, token })
      await agent.executor.accept(discard)
      assert.is((await node.owner.end(discard.id)).status, 'complete')
      assert.is(node.hypervisor.world.guest(spec.uuid), undefined)
      goOn()
      assert.is(await (early ?? send()), 'MigrationInterrupted')
    } finally {
      await agent.kill()
      await node.remove()
    }
  })
}

test.run()
