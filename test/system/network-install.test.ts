// Network installs from every kind of tree, with the agent and libvirt failing in the middle.
import { equal, match, ok } from 'uvu/assert'
import { eventually } from '../eventually.ts'
import { type InstallerTrees, installerMemoryMib, serveInstallerTrees } from './lab/installer-tree.ts'
import type { Answer } from './lab/muster.ts'
import { shutOff } from './lab/stories.ts'
import { systemSuite } from './lab/suite.ts'

const { test, lab, muster } = await systemSuite('network installs', { muster: true })

let served: InstallerTrees | undefined
const trees = async () => {
  served ??= await serveInstallerTrees()
  return served
}
test.after(() => served?.stop())

function install(host: string, location: string, cmdline?: string): Promise<Answer> {
  const body = { memory: installerMemoryMib, disks: [1], networks: [], install: true, location }
  return muster().request('POST', `/hosts/${host}`, { ...body, ...(cmdline ? { cmdline } : {}) })
}

async function bootsFromDisk(host: string): Promise<void> {
  await (await lab().console(host)).sees(/INSTALLER done[\s\S]*?DISKBOOT-OK[\s\S]*?MUSTER-GUEST ready/)
  equal((await lab().virsh('domstate', host)).trim(), 'running')
  const xml = await lab().virsh('dumpxml', host)
  ok(!xml.includes('<kernel>'), 'it runs without the installer kernel')
  equal((await muster().request('DELETE', `/hosts/${host}`)).status, 204)
}

for (const kind of ['debian', 'focal', 'treeinfo'] as const) {
  test(`an installer from a ${kind} tree gets the kernel arguments and the host boots from disk afterwards`, async () => {
    const created = await install(`${kind}.lab.example.com`, (await trees())[kind], 'preseed/url=http://lab.invalid/x')
    equal(created.status, 201, JSON.stringify(created.body))
    match(
      (await (await lab().console(`${kind}.lab.example.com`)).sees(/INSTALLER started: (.*)/))[1] ?? '',
      /preseed\/url=http:\/\/lab\.invalid\/x/,
    )
    await bootsFromDisk(`${kind}.lab.example.com`)
  })
}

test('a location that is no installer tree is refused by name and leaves nothing behind', async () => {
  const before = await lab().leftovers()
  const answer = await install('absent.lab.example.com', (await trees()).absent)
  ok(answer.status >= 400 && answer.status < 500, `${answer.status}`)
  equal(answer.body.code, 'InstallSourceInvalid')
  equal(await lab().leftovers(), before)
  equal((await muster().request('GET', '/host/absent.lab.example.com/')).status, 404)
})

test('a host whose agent is dead while its installer ends boots from disk when the agent is back', async () => {
  const host = 'dead-agent.lab.example.com'
  equal((await install(host, (await trees()).ubuntu, 'muster.hold=6')).status, 201)
  await (await lab().console(host)).sees(/INSTALLER started/)
  await muster().withoutAgent(async () => {
    await shutOff(lab(), host)
  })
  await bootsFromDisk(host)
})

test('a create whose agent is killed while it fetches ends with 201 all the same', async () => {
  const host = 'killed-agent.lab.example.com'
  const hold = (await trees()).hold()
  const answer = install(host, (await trees()).ubuntu)
  await eventually(hold.asked, { withinMs: 20_000, what: 'the agent fetches the initrd' })
  await muster().killAgent()
  hold.release()
  equal((await answer).status, 201)
  await bootsFromDisk(host)
})

test('a create during which libvirtd crashes ends with 201 all the same', async () => {
  const host = 'crashed-libvirtd.lab.example.com'
  const hold = (await trees()).hold()
  const answer = install(host, (await trees()).ubuntu)
  await eventually(hold.asked, { withinMs: 20_000, what: 'the agent fetches the initrd' })
  await lab().crashLibvirtd()
  hold.release()
  equal((await answer).status, 201)
  await bootsFromDisk(host)
})

test('nothing is left behind', async () => {
  equal(await lab().leftovers(), [])
})

test.run()
