/** The task that makes images of VMs, tried as `task-suite.ts` says; and beside others that want an image of the same name. */
import { randomUUID } from 'node:crypto'
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { eventually } from '../eventually.ts'
import { suite } from '../suite.ts'
import { type Agent, type Node, offer, simulatedNode, vmSpec } from './agent-fixture.ts'
import { IMAGE_CASES } from './image-cases.ts'
import { tryCases } from './task-suite.ts'

const test = suite('agent tasks that make images')

tryCases(test, IMAGE_CASES)

const name = 'made-here'
const parts = (node: Node) => readdirSync(join(node.stateDir, 'image-parts'))
const atStep = (node: Node, id: string, step: string) =>
  eventually(() => node.owner.reports.some(report => report.id === id && report.step === step), { what: step })

/** A stopped VM, and the order of an image of it. */
async function vmToKeep(node: Node, disk: string) {
  const spec = vmSpec()
  await node.hypervisor.defineVm(spec, { taskId: randomUUID() })
  node.hypervisor.world.write(spec.uuid, { disk })
  return offer('machine_create_image', { uuid: spec.uuid, manifest: { uuid: name } })
}

async function withNode(body: (node: Node, agent: Agent) => Promise<void>): Promise<void> {
  const node = await simulatedNode()
  const agent = await node.agent()
  try {
    await body(node, agent)
  } finally {
    await agent.kill()
    await node.remove()
  }
}

test('of two VMs only one becomes the image of a name, and the other task leaves it alone', () =>
  withNode(async (node, agent) => {
    const [first, second] = [await vmToKeep(node, 'of the first'), await vmToKeep(node, 'of the second')]
    const release = node.hypervisor.faults.add({ call: 'captureImage', when: 'before', hang: true })
    await agent.executor.accept(first)
    await atStep(node, first.id, 'copy_disk')
    await agent.executor.accept(second)
    assert.is((await node.owner.end(second.id)).error?.code, 'ImageExists')
    const fetched = offer('image_ensure_present', {
      image_uuid: name,
      url: 'http://127.0.0.1:1/x',
      md5: '0'.repeat(32),
    })
    await agent.executor.accept(fetched)
    assert.is((await node.owner.end(fetched.id)).error?.code, 'ImageExists')
    release()
    assert.is((await node.owner.end(first.id)).status, 'complete')
    const pieces: Uint8Array[] = []
    for await (const piece of await node.hypervisor.readImage(name)) pieces.push(piece)
    assert.match(Buffer.concat(pieces).toString(), /of the first/)
    assert.equal(parts(node), [])
  }))

test('who wants an image that is in the pool already takes nothing away of what is still made of it', () =>
  withNode(async (node, agent) => {
    const wanted = await vmToKeep(node, 'installed')
    const release = node.hypervisor.faults.add({ call: 'readImage', when: 'before', hang: true })
    await agent.executor.accept(wanted)
    await atStep(node, wanted.id, 'pack_image')
    const present = offer('image_ensure_present', { image_uuid: name })
    await agent.executor.accept(present)
    assert.is((await node.owner.end(present.id)).status, 'complete')
    assert.ok(existsSync(join(node.stateDir, 'image-parts', name)))
    release()
    assert.is((await node.owner.end(wanted.id)).status, 'complete')
    assert.equal(parts(node), [])
  }))

test('the name of an image that a cancelled task was yet to make is free again', () =>
  withNode(async (node, agent) => {
    const [first, second] = [await vmToKeep(node, 'of the first'), await vmToKeep(node, 'of the second')]
    const release = node.hypervisor.faults.add({ call: 'captureImage', when: 'before', hang: true })
    await agent.executor.accept(first)
    await atStep(node, first.id, 'copy_disk')
    agent.executor.cancel(first.id)
    release()
    assert.is((await node.owner.end(first.id)).error?.code, 'TaskCancelled')
    await agent.executor.accept(second)
    assert.is((await node.owner.end(second.id)).status, 'complete')
    assert.equal(parts(node), [])
  }))

test('cancelled while its disk is still copied, it waits for that, and leaves neither image nor a prepared VM', async () => {
  const node = await simulatedNode()
  let lateMs = 0
  const agent = await node.agent({ now: () => Date.now() + lateMs, retryMs: 5 })
  try {
    const wanted = await vmToKeep(node, 'installed')
    const uuid = String(wanted.params['uuid'])
    const { faults, world } = node.hypervisor
    world.setGuestAgent(uuid, true)
    await node.hypervisor.startVm(uuid)
    world.write(uuid, { memory: 'counted to 7' })
    const release = faults.add({ call: 'captureImage', when: 'before', hang: true })
    // As libvirt says it of a VM whose earlier call has not come back.
    const busy = (['pendingParts', 'rollbackSnapshot', 'deleteSnapshot'] as const).map(call =>
      faults.add({ call, fail: 'HypervisorUnavailable' }),
    )
    await agent.executor.accept({ ...wanted, params: { ...wanted.params, prepare_image_script: 'rm keys' } })
    await atStep(node, wanted.id, 'copy_disk')
    agent.executor.cancel(wanted.id)
    await eventually(() => world.guest(uuid)?.state === 'stopped', { what: 'the guest being ended' })
    lateMs = 30 * 60_000
    release()
    await eventually(async () => (await node.hypervisor.listImages()).some(image => image.name === name), {
      what: 'the copy that nobody wants any more',
    })
    for (const end of busy) end()
    assert.equal((await node.owner.end(wanted.id)).error, { code: 'TaskCancelled', message: 'The task was cancelled' })
    assert.equal([await node.hypervisor.listImages(), await node.hypervisor.listSnapshots(uuid)], [[], []])
    assert.equal(
      [world.guest(uuid)?.state, world.content(uuid)],
      ['running', { disk: 'installed', memory: 'counted to 7' }],
    )
    assert.equal(parts(node), [])
  } finally {
    await agent.kill()
    await node.remove()
  }
})

test.run()
