/** A guest whose QEMU answers nothing: what is asked of it ends by force at its deadline, and others are not delayed by it. */
import { randomUUID } from 'node:crypto'
import * as assert from 'uvu/assert'
import { machine_found } from '../../hypervisor-agent/reads/machine_found.ts'
import type { ReadContext } from '../../hypervisor-agent/reads/read.ts'
import { suite } from '../suite.ts'
import { type Node, offer, simulatedNode, vmSpec } from './agent-fixture.ts'

const test = suite('a guest that is frozen')

async function frozen(body: (node: Node, uuid: string) => Promise<void>): Promise<void> {
  const node = await simulatedNode({ memoryMib: 8192 })
  const spec = vmSpec()
  await node.hypervisor.defineVm(spec, { taskId: randomUUID() })
  await node.hypervisor.startVm(spec.uuid)
  for (const call of ['pressPowerButton', 'requestReboot', 'resetVm'] as const)
    node.hypervisor.faults.add({ call, uuid: spec.uuid, hang: true })
  try {
    await body(node, spec.uuid)
  } finally {
    node.hypervisor.faults.clear()
    await node.remove()
  }
}

for (const [task, state, boots] of [
  ['machine_shutdown', 'stopped', 1],
  ['machine_reboot', 'running', 2],
] as const) {
  test(`${task} ends by force although the guest's QEMU never answers`, async () => {
    await frozen(async (node, uuid) => {
      const agent = await node.agent()
      const wanted = offer(task, { uuid, timeout: 0.2 })
      await agent.executor.accept(wanted)
      const end = await node.owner.end(wanted.id, 5_000)
      assert.is(end.status, 'complete', JSON.stringify(end))
      const guest = node.hypervisor.world.guest(uuid)
      assert.equal([guest?.state, guest?.boots], [state, boots])
      await agent.kill()
    })
  })
}

test('one VM that cannot be looked at is named, and the others are told', async () => {
  await frozen(async (node, uuid) => {
    const other = vmSpec({ nics: [] })
    await node.hypervisor.defineVm(other, { taskId: randomUUID() })
    node.hypervisor.faults.add({ call: 'lookAtVm', uuid, hang: true })
    const context = { hypervisor: node.hypervisor, ...node.tools } as unknown as ReadContext
    const page = (await machine_found(context, {})) as {
      vms: { uuid: string }[]
      unread: { uuid: string; code: string }[]
      next?: string
    }
    assert.equal(
      [page.vms.map(vm => vm.uuid), page.unread.map(one => [one.uuid, one.code]), page.next],
      [[other.uuid], [[uuid, 'HypervisorUnavailable']], undefined],
    )
  })
})

test('pages follow each other until every VM was told once', async () => {
  await frozen(async (node, uuid) => {
    const uuids = [uuid]
    for (let n = 0; n < 5; n++) {
      // Large enough that two fill a page.
      const spec = vmSpec({ nics: [], tags: { text: 'x'.repeat(120_000) } })
      await node.hypervisor.defineVm(spec, { taskId: randomUUID() })
      uuids.push(spec.uuid)
    }
    const context = { hypervisor: node.hypervisor, ...node.tools } as unknown as ReadContext
    const told: string[] = []
    let pages = 0
    for (let after: string | undefined; pages < 10; ) {
      const page = (await machine_found(context, after === undefined ? {} : { after })) as {
        vms: { uuid: string }[]
        next?: string
      }
      pages += 1
      told.push(...page.vms.map(vm => vm.uuid))
      assert.ok(JSON.stringify(page).length < 512 * 1024)
      after = page.next
      if (after === undefined) break
    }
    assert.equal(told, uuids.sort())
    assert.ok(pages > 1)
  })
})

test.run()
