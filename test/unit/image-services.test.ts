/** Which image services an agent gives images to: what a caller names is held to the hosts that the node may ask. */
import { randomUUID } from 'node:crypto'
import * as assert from 'uvu/assert'
import { suite } from '../suite.ts'
import { offer, simulatedNode, vmSpec } from './agent-fixture.ts'

const test = suite('image services of callers')

test('a service on a host that is not allowed is refused before anything is copied', async () => {
  const node = await simulatedNode()
  try {
    const spec = vmSpec()
    await node.hypervisor.defineVm(spec, { taskId: randomUUID() })
    const agent = await node.agent({ allowedHosts: ['images.example.com'] })
    for (const imgapi_url of ['http://127.0.0.1:1', 'http://user:secret@images.example.com']) {
      const wanted = offer('machine_create_image', { uuid: spec.uuid, manifest: { uuid: 'made-here' }, imgapi_url })
      node.hypervisor.faults.add({ call: 'captureImage', fail: 'InternalError' })
      await agent.executor.accept(wanted)
      const { error } = await node.owner.end(wanted.id)
      assert.is(error?.code, 'ImageServiceFailed')
      assert.match(error?.message ?? '', /not allowed|password/)
    }
    await agent.kill()
  } finally {
    await node.remove()
  }
})

test.run()
