/** Cases of the tasks that fetch and remove images, and of those about agents, for the suite of all tasks. Orders to the installer: agent-installer.test.ts. */
import { createHash, randomUUID } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import type { TaskReport } from '../../actors/contract/messages.ts'
import type { Case, Scene } from './task-suite.ts'

const name = 'fetched'
const images = async ({ node }: Scene) => (await node.hypervisor.listImages()).map(image => image.name)
const there = async ({ node }: Scene) => node.hypervisor.world.addImage(name, 16)
const nothingLeft = ({ node }: Scene) => assert.equal(readdirSync(join(node.stateDir, 'image-parts')), [])

/** `file`: an address and its content. */
export function fetchCases(file: () => { url: string; content: string }): Case[] {
  const wanted = (more: object = {}) => {
    const { url, content } = file()
    return { image_uuid: name, url, sha256: createHash('sha256').update(content).digest('hex'), ...more }
  }
  return [
    {
      task: 'image_ensure_present',
      name: 'fetches an image into the pool',
      params: () => wanted(),
      check: async scene => {
        assert.equal(await images(scene), [name])
        nothingLeft(scene)
      },
    },
    {
      task: 'image_ensure_present',
      name: 'of something else than its checksum says fails and leaves no image',
      params: () => wanted({ sha256: '0'.repeat(64) }),
      failure: 'ImageChecksumMismatch',
      check: async scene => assert.equal(await images(scene), []),
    },
    {
      task: 'image_get',
      name: 'tells of an image',
      prepare: there,
      params: () => ({ uuid: name }),
      check: async (_, end) => assert.is((end.result as { uuid: string }).uuid, name),
    },
    {
      task: 'image_delete',
      name: 'removes an image',
      prepare: there,
      params: () => ({ uuid: name }),
      check: async scene => assert.equal(await images(scene), []),
    },
    {
      task: 'image_delete',
      name: 'of an image that a disk stands on fails and leaves it',
      prepare: async scene => {
        await there(scene)
        scene.spec = { ...scene.spec, disks: [{ size_mib: 64, image: name }] }
        await scene.node.hypervisor.defineVm(scene.spec, { taskId: randomUUID() })
      },
      params: () => ({ uuid: name }),
      failure: 'ImageInUse',
      check: async scene => assert.equal(await images(scene), [name]),
    },
    {
      task: 'agent_install',
      name: 'where agents are not allowed fails and says what to set',
      params: () => ({ ...wanted({ image_uuid: undefined }), package_name: 'firewaller' }),
      failure: 'AgentInstallNotAllowed',
      check: saysWhatToSet,
    },
    {
      task: 'agents_uninstall',
      name: 'where agents are not allowed fails and says what to set',
      params: () => ({ agents: ['firewaller'] }),
      failure: 'AgentInstallNotAllowed',
      check: saysWhatToSet,
    },
  ]
}

async function saysWhatToSet({ node }: Scene, end: TaskReport): Promise<void> {
  assert.match(end.error?.message ?? '', /AGENT_INSTALL_ALLOW/)
  assert.equal(readdirSync(join(node.stateDir, 'agent-orders')), [])
}
