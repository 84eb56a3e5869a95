/** Installer trees over a local HTTP server, what a hostile or broken one cannot do, and the way from installer to disk. */
import { createHash } from 'node:crypto'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { createServer, type RequestListener, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { HypervisorError } from '../../hypervisor-agent/hypervisor.ts'
import { type FetchOptions, fetcher } from '../../hypervisor-agent/install/fetch.ts'
import { findTree } from '../../hypervisor-agent/install/tree.ts'
import { eventually } from '../eventually.ts'
import { suite } from '../suite.ts'
import { offer, simulatedNode, vmSpec } from './agent-fixture.ts'

const test = suite('agent install')
/** Long enough for a busy machine to answer, short enough to wait for. */
const quietMs = 700
const kernel = 'a kernel'
const initrd = 'an initrd'
const sha256 = (text: string) => createHash('sha256').update(text).digest('hex')
const netboot = 'netboot/debian-installer/amd64'
const debian = '/debian/dists/bookworm/main/installer-amd64'

const files: Record<string, string> = {
  [`${debian}/current/images/MANIFEST`]: `${netboot}/linux -- kernel for debian`,
  [`${debian}/current/images/SHA256SUMS`]: `${sha256(kernel)}  ./${netboot}/linux\n${sha256(initrd)}  ./${netboot}/initrd.gz\n`,
  [`${debian}/current/images/${netboot}/linux`]: kernel,
  [`${debian}/current/images/${netboot}/initrd.gz`]: initrd,
  '/focal/installer-arm64/current/legacy-images/MANIFEST': 'Ubuntu netboot',
  '/fedora/os/.treeinfo': `[general]\narch = x86_64\n[images-i386]\nkernel = wrong\ninitrd = wrong\n[images-x86_64]\nkernel = images/pxeboot/vmlinuz\ninitrd = images/pxeboot/initrd.img\n[checksums]\nimages/pxeboot/vmlinuz = sha256:${sha256(kernel)}\n`,
  '/elsewhere/treeinfo': '[general]\n[images-x86_64]\nkernel = http://other.example.com/vmlinuz\ninitrd = initrd\n',
  '/other-distro/current/images/MANIFEST': 'something of nobody',
  '/changed/installer-amd64/current/images/MANIFEST': 'debian',
  '/changed/installer-amd64/current/images/SHA256SUMS': `${sha256('another')}  ./${netboot}/linux\n`,
  [`/changed/installer-amd64/current/images/${netboot}/linux`]: kernel,
  [`/changed/installer-amd64/current/images/${netboot}/initrd.gz`]: initrd,
}

/** What is served besides files. */
const special: Record<string, RequestListener> = {
  '/loop': (_, response) => response.writeHead(302, { location: '/loop' }).end(),
  '/moved': (_, response) => response.writeHead(301, { location: '/small' }).end(),
  '/to-file': (_, response) => response.writeHead(302, { location: 'file:///etc/passwd' }).end(),
  '/to-other': (_, response) => response.writeHead(302, { location: 'http://other.example.com/small' }).end(),
  '/small': (_, response) => response.end('small'),
  '/endless': (request, response) => {
    const timer = setInterval(() => response.write('x'.repeat(1024)), 1)
    request.on('close', () => clearInterval(timer))
  },
  '/honest-but-large': (_, response) => response.writeHead(200, { 'content-length': 10_000 }).end('x'.repeat(10_000)),
  '/silent': () => {},
  '/stalls': (_, response) => void response.write('begun'),
  '/breaks': (_, response) => {
    response.writeHead(200, { 'content-length': 100 })
    response.write('begun')
    setImmediate(() => response.destroy())
  },
  '/error': (_, response) => response.writeHead(500).end('secret of the server'),
}

let server: Server
let origin = ''
const requests: string[] = []
test.before(async () => {
  server = createServer((request, response) => {
    const path = request.url ?? ''
    requests.push(path)
    const act = special[path]
    if (act) return act(request, response)
    const body = files[path]
    response.writeHead(body === undefined ? 404 : 200).end(body)
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
})
test.after(() => {
  server.close()
  server.closeAllConnections()
})

const never = new AbortController().signal
const find = (path: string) => findTree(fetcher(), origin + path, never)

test('a Debian tree is found by its MANIFEST, with digests from SHA256SUMS', async () => {
  for (const path of [debian, `${debian}/`]) {
    const tree = await find(path)
    assert.is(tree.kind, 'debian')
    assert.equal(tree.kernel, { url: `${origin}${debian}/current/images/${netboot}/linux`, sha256: sha256(kernel) })
    assert.equal(tree.initrd, { url: `${origin}${debian}/current/images/${netboot}/initrd.gz`, sha256: sha256(initrd) })
  }
})

test('an older Ubuntu tree is found below legacy-images, for the architecture its address names', async () => {
  const tree = await find('/focal/installer-arm64')
  assert.is(tree.kind, 'ubuntu')
  assert.is(
    tree.kernel.url,
    `${origin}/focal/installer-arm64/current/legacy-images/netboot/ubuntu-installer/arm64/linux`,
  )
})

test('a tree with .treeinfo gives the images of its architecture, and its installer is told where it came from', async () => {
  const tree = await find('/fedora/os')
  assert.equal(tree.kernel, { url: `${origin}/fedora/os/images/pxeboot/vmlinuz`, sha256: sha256(kernel) })
  assert.equal(tree.initrd, { url: `${origin}/fedora/os/images/pxeboot/initrd.img` })
  assert.is(tree.cmdline, `inst.repo=${origin}/fedora/os/`)
})

test('what is no tree is refused, saying what was looked for', async () => {
  for (const path of ['/nothing', '/other-distro']) {
    const refusal = await refused(find(path))
    assert.match(refusal.message, /\.treeinfo/)
    assert.match(refusal.message, /MANIFEST/)
  }
})

test('a .treeinfo cannot lead to another server', async () => {
  assert.match((await refused(find('/elsewhere'))).message, /another server/)
})

const text = (path: string, options: FetchOptions = {}, maxBytes = 4096) =>
  fetcher({ idleMs: quietMs, ...options }).text(path.includes(':') ? path : origin + path, { maxBytes, signal: never })

test('redirects are followed, but not without end and not away from http', async () => {
  assert.is(await text('/moved'), 'small')
  assert.match((await refused(text('/loop'))).message, /more than 5 times/)
  assert.match((await refused(text('/to-file'))).message, /neither http nor https/)
})

test('only allowed hosts are asked, also after a redirect', async () => {
  assert.is(await text('/small', { allowedHosts: ['127.0.0.1'] }), 'small')
  assert.match((await refused(text('/small', { allowedHosts: ['mirror.example.com'] }))).message, /INSTALL_ALLOW/)
  assert.match((await refused(text('/to-other', { allowedHosts: ['127.0.0.1'] }))).message, /other\.example\.com/)
})

test('other schemes and passwords in the address are refused', async () => {
  await refused(text('file:///etc/passwd'))
  await refused(text('http://user:password@127.0.0.1/'))
})

test('size and silence are bounded', async () => {
  assert.match((await refused(text('/endless'))).message, /more than the 4096 bytes/)
  assert.match((await refused(text('/honest-but-large'))).message, /10000 bytes/)
  assert.match((await refused(text('/silent'))).message, /no answer within 700 ms/)
  assert.match((await refused(text('/stalls'))).message, /silent for 700 ms/)
})

test('an answer that breaks off, an error and a closed port are refusals that keep the server’s words to themselves', async () => {
  await refused(text('/breaks'))
  const error = await refused(text('/error'))
  assert.match(error.message, /answers 500/)
  assert.not.match(error.message, /secret/)
  const closed = createServer()
  await new Promise<void>(resolve => closed.listen(0, '127.0.0.1', resolve))
  const { port } = closed.address() as AddressInfo
  await new Promise(resolve => closed.close(resolve))
  assert.match((await refused(text(`http://127.0.0.1:${port}/`))).message, /ECONNREFUSED/)
})

test('an aborted fetch ends at once with the reason of the abort', async () => {
  const abort = new AbortController()
  const waiting = fetcher().text(`${origin}/silent`, { maxBytes: 1, signal: abort.signal })
  abort.abort(new Error('enough'))
  try {
    await waiting
    assert.unreachable()
  } catch (error) {
    assert.is((error as Error).message, 'enough')
  }
})

test('a file is written only when it is whole and right', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'muster-fetch-'))
  try {
    const path = join(folder, 'linux')
    const get = (from: string, more: object = {}) =>
      fetcher({ idleMs: quietMs }).file(origin + from, path, { maxBytes: 4096, signal: never, ...more })
    await refused(get('/small', { sha256: sha256('large') }))
    await refused(get('/breaks'))
    await refused(get('/endless'))
    await refused(get('/absent'))
    assert.equal(readdirSync(folder), [])
    await get('/small', { sha256: sha256('small') })
    assert.is(readFileSync(path, 'utf8'), 'small')
    assert.is(statSync(path).mode & 0o777, 0o644, 'QEMU runs as another user')
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})

const installing = (more: object = {}) => ({
  ...vmSpec(),
  install: { location: origin + debian, console: false, ...more },
})

test('an install gives the VM its files and arguments, the caller’s last', async () => {
  const node = await simulatedNode({ delays: { install: Number.POSITIVE_INFINITY } })
  const agent = await node.agent()
  const spec = installing({ console: true, cmdline: 'auto=true priority=critical' })
  const task = offer('machine_create', { spec })
  await agent.executor.accept(task)
  assert.is((await node.owner.end(task.id)).status, 'complete')
  assert.is(
    node.hypervisor.world.guest(spec.uuid)?.installer?.cmdline,
    'console=ttyS0,115200n8 DEBIAN_FRONTEND=text auto=true priority=critical',
  )
  assert.is(readFileSync(join(node.stateDir, 'installers', spec.uuid, 'linux'), 'utf8'), kernel)
  await agent.kill()
  await node.remove()
})

test('a kernel that is not what SHA256SUMS says is not started, and nothing is left', async () => {
  const node = await simulatedNode()
  const agent = await node.agent()
  const spec = installing({ location: `${origin}/changed/installer-amd64` })
  const task = offer('machine_create', { spec })
  await agent.executor.accept(task)
  const end = await node.owner.end(task.id)
  assert.is(end.error?.code, 'InstallSourceInvalid')
  assert.match(end.error?.message ?? '', /SHA-256/)
  assert.is(node.hypervisor.world.guest(spec.uuid), undefined)
  assert.equal(readdirSync(join(node.stateDir, 'installers')), [])
  await agent.kill()
  await node.remove()
})

/** A node whose VM runs from its installer, and its agent. */
async function installed() {
  const node = await simulatedNode({ delays: { install: Number.POSITIVE_INFINITY, acpi: 2 } })
  const agent = await node.agent()
  const spec = installing()
  const task = offer('machine_create', { spec })
  await agent.executor.accept(task)
  await node.owner.end(task.id)
  await eventually(() => agent.journal.open().length === 0)
  return { node, agent, spec, uuid: spec.uuid, world: node.hypervisor.world }
}

test('while the installer runs the VM is running and installing; after it stopped it starts from disk, once', async () => {
  const { node, agent, uuid, world } = await installed()
  const { installs } = agent
  const list = () => node.hypervisor.listVms()
  const [vm] = await list()
  assert.is(vm && installs.annotate(vm)['installing'], true)
  assert.equal(installs.due(await list()), [])
  world.finishInstaller(uuid)
  assert.equal(installs.due(await list()), [uuid])
  assert.is(await installs.proceed(node.hypervisor, uuid), 'started_from_disk')
  assert.is(world.guest(uuid)?.state, 'running')
  assert.is(world.guest(uuid)?.installer, null)
  assert.is(world.guest(uuid)?.boots, 2)
  assert.is(await installs.proceed(node.hypervisor, uuid), 'nothing')
  world.guestPowersOff(uuid)
  assert.equal(installs.due(await list()), [], 'a stop later is none of its business')
  assert.not.ok(existsSync(join(node.stateDir, 'installers', uuid)))
  await agent.kill()
  await node.remove()
})

test('an agent that died while the installer ran starts the VM from disk when it is back', async () => {
  const { node, agent, uuid, world } = await installed()
  await agent.kill()
  world.finishInstaller(uuid)
  const { installs, kill } = await node.agent()
  assert.equal(installs.due(await node.hypervisor.listVms()), [uuid])
  await installs.proceed(node.hypervisor, uuid)
  assert.is(world.guest(uuid)?.boots, 2)
  await kill()
  await node.remove()
})

for (const when of ['before', 'after'] as const) {
  test(`an agent that dies ${when} it started the VM from disk starts it once in all`, async () => {
    const { node, agent, uuid, world } = await installed()
    world.finishInstaller(uuid)
    const release = node.hypervisor.faults.add({ call: 'startVm', when, hang: true })
    agent.installs.proceed(node.hypervisor, uuid).catch(() => {})
    await eventually(() => readFileSync(join(node.stateDir, 'installs', `${uuid}.json`), 'utf8').includes('finishing'))
    if (when === 'after') await eventually(() => world.guest(uuid)?.boots === 2)
    await agent.kill()
    const again = await node.agent()
    assert.equal(again.installs.due(await node.hypervisor.listVms()), [uuid])
    release()
    await again.installs.proceed(node.hypervisor, uuid)
    assert.is(world.guest(uuid)?.boots, 2)
    assert.equal(again.installs.due(await node.hypervisor.listVms()), [])
    await again.kill()
    await node.remove()
  })
}

test('an installer that crashes is not followed by a start', async () => {
  const { node, agent, uuid, world } = await installed()
  world.crash(uuid)
  assert.is(await agent.installs.proceed(node.hypervisor, uuid), 'given_up')
  assert.is(world.guest(uuid)?.state, 'failed')
  assert.equal(agent.installs.due(await node.hypervisor.listVms()), [])
  await agent.kill()
  await node.remove()
})

test('a VM that is stopped on purpose while it installs stays stopped', async () => {
  const { node, agent, uuid, world } = await installed()
  const task = offer('machine_shutdown', { uuid })
  await agent.executor.accept(task)
  await node.owner.end(task.id)
  assert.equal(agent.installs.due(await node.hypervisor.listVms()), [])
  assert.is(world.guest(uuid)?.state, 'stopped')
  await agent.kill()
  await node.remove()
})

test('a reboot while it installs means its disks', async () => {
  const { node, agent, uuid, world } = await installed()
  const task = offer('machine_reboot', { uuid })
  await agent.executor.accept(task)
  assert.is((await node.owner.end(task.id)).status, 'complete')
  assert.is(world.guest(uuid)?.state, 'running')
  assert.is(world.guest(uuid)?.installer, null)
  assert.not.ok(agent.installs.isInstalling(uuid))
  await agent.kill()
  await node.remove()
})

async function refused(call: Promise<unknown>): Promise<HypervisorError> {
  try {
    await call
  } catch (error) {
    assert.instance(error, HypervisorError)
    assert.is((error as HypervisorError).code, 'InstallSourceInvalid')
    return error as HypervisorError
  }
  throw new Error('it should have been refused')
}

test.run()
