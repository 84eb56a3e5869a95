/** Agents installed by order: packages and tarballs, the way back, and an installer or agent that dies in between. */
import { execFileSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { carryOutOrders } from '../../hypervisor-agent/agents/installer.ts'
import { ordersFolder } from '../../hypervisor-agent/agents/order.ts'
import { packages, type Run, runProgram } from '../../hypervisor-agent/agents/packages.ts'
import { HypervisorError } from '../../hypervisor-agent/hypervisor.ts'
import { fetcher } from '../../hypervisor-agent/install/fetch.ts'
import { eventually } from '../eventually.ts'
import { digestsOf, type ImageServer, imageServer } from '../image-server.ts'
import { suite } from '../suite.ts'
import { type Agent, type Node, offer, simulatedNode } from './agent-fixture.ts'

const test = suite('agent installer')

let web: ImageServer
let folder = ''
test.before(async () => {
  web = await imageServer()
  folder = mkdtempSync(join(tmpdir(), 'muster-packages-'))
})
test.after(async () => {
  await web.stop()
  rmSync(folder, { recursive: true, force: true })
})

/** A real package, served; `version` decides its content. */
function debOf(name: string, version: string) {
  const root = join(folder, `${name}-${version}`)
  mkdirSync(join(root, 'DEBIAN'), { recursive: true })
  const control = {
    Package: name,
    Version: version,
    Architecture: 'all',
    Maintainer: 'a <a@localhost>',
    Description: 'an agent',
  }
  const lines = Object.entries(control).map(([field, value]) => `${field}: ${value}\n`)
  writeFileSync(join(root, 'DEBIAN/control'), lines.join(''))
  execFileSync('dpkg-deb', ['--root-owner-group', '-Znone', '--build', root, `${root}.deb`])
  return servedAs(`/${name}_${version}.deb`, readFileSync(`${root}.deb`))
}

function tarballOf(name: string, content: string) {
  const root = join(folder, randomUUID())
  mkdirSync(root)
  writeFileSync(join(root, 'agent.js'), content)
  execFileSync('tar', ['-czf', `${root}.tgz`, '-C', root, 'agent.js'])
  return { ...servedAs(`/${name}-${randomUUID()}.tgz`, readFileSync(`${root}.tgz`)), package_name: name }
}

function servedAs(path: string, content: Buffer) {
  web.files.set(path, { content })
  return { url: web.url + path, sha256: digestsOf(content).sha256 }
}

/** dpkg of a machine that is only this map; what it looks at in files is done by the real programs. */
function machine() {
  const installed = new Map<string, string>()
  const commands: string[] = []
  const broken = new Set<string>()
  let onInstall = () => {}
  const run: Run = async (program, args) => {
    const last = args.at(-1) ?? ''
    if (program === 'dpkg-query' && args.includes('-W')) return installed.has(last) ? 'installed' : ''
    if (program === 'dpkg-query' && args.includes('-L')) return '/.\n'
    if (program === 'dpkg-query')
      return `Package: ${last}\nStatus: install ok installed\nVersion: ${installed.get(last)}\nArchitecture: all\nMaintainer: a <a@localhost>\nDescription: an agent\n`
    if (program !== 'dpkg') return runProgram(program, args)
    commands.push(`${args[0]} ${last}`)
    if (args[0] === '--remove') installed.delete(last)
    else {
      onInstall()
      const field = async (name: string) => (await runProgram('dpkg-deb', ['--field', last, name])).trim()
      const [name, version] = [await field('Package'), await field('Version')]
      if (broken.has(version)) {
        installed.set(name, `${version} (half)`)
        throw new HypervisorError('AgentInstallFailed', 'dpkg: its postinst failed')
      }
      installed.set(name, version)
    }
    return ''
  }
  const setOnInstall = (act: () => void) => {
    onInstall = act
  }
  return { installed, commands, broken, run, onInstall: setOnInstall }
}

type Machine = ReturnType<typeof machine>

interface Place {
  node: Node
  agent: Agent
  dpkg: Machine
  again(): Promise<Agent>
  /** Runs the installer once, as the path unit does. */
  install(run?: Run): Promise<void>
  /** Orders and carries out; answers how the task ended. */
  done(task: 'agent_install' | 'agents_uninstall', params: Record<string, unknown>): ReturnType<Node['owner']['end']>
  prefix: string
}

async function withNode(body: (place: Place) => Promise<void>, { allowed = ['127.0.0.1'] as string[] | null } = {}) {
  const node = await simulatedNode()
  const dpkg = machine()
  const agents: Agent[] = []
  const start = async () => {
    const made = await node.agent(allowed ? { agentInstallAllow: allowed } : {})
    agents.push(made)
    return made
  }
  const prefix = join(node.stateDir, 'opt')
  const install = (run: Run = dpkg.run) =>
    carryOutOrders({
      ordersDir: join(node.stateDir, ordersFolder),
      dir: join(node.stateDir, 'installer'),
      web: fetcher({ allowedHosts: allowed ?? [], setting: 'AGENT_INSTALL_ALLOW', idleMs: 2_000 }),
      service: `${web.url}/imgapi`,
      packages: packages({ run, prefix }),
      retryMs: 10,
      log: () => {},
    })
  const place: Place = {
    node,
    dpkg,
    prefix,
    agent: await start(),
    again: start,
    install,
    done: async (task, params) => {
      const made = offer(task, params)
      await agents.at(-1)?.executor.accept(made)
      await eventually(() => orders(node).length === 1 || node.owner.ends(made.id).length === 1)
      await install()
      return node.owner.end(made.id)
    },
  }
  try {
    await body(place)
  } finally {
    for (const agent of agents) await agent.kill()
    await node.remove()
  }
}

const orders = (node: Node) => readdirSync(join(node.stateDir, ordersFolder)).filter(name => name.endsWith('.json'))
const agentsOf = (result: unknown) =>
  (result as { sysinfo: { 'SDC Agents': { name: string; version: string }[] } }).sysinfo['SDC Agents'].filter(
    ({ name }) => name !== 'cn-agent',
  )

test('a package is installed and its agent is told with its version', () =>
  withNode(async ({ node, dpkg, done }) => {
    const end = await done('agent_install', debOf('firewaller', '1.2.0'))
    assert.is(end.status, 'complete', JSON.stringify(end.error))
    assert.is(dpkg.installed.get('firewaller'), '1.2.0')
    assert.equal(agentsOf(end.result), [{ name: 'firewaller', version: '1.2.0' }])
    assert.equal(orders(node), [], 'the order is gone')
    assert.equal(readdirSync(join(node.stateDir, 'installer/work')), [], 'nothing is left of the download')
  }))

test('a package that does not install gives way to the one before', () =>
  withNode(async ({ dpkg, done }) => {
    await done('agent_install', debOf('firewaller', '1.0.0'))
    dpkg.broken.add('2.0.0')
    const end = await done('agent_install', debOf('firewaller', '2.0.0'))
    assert.is(end.error?.code, 'AgentInstallFailed')
    assert.match(end.error?.message ?? '', /postinst failed; what was there before is back/)
    assert.is(dpkg.installed.get('firewaller'), '1.0.0')
  }))

test('a new package that does not install is removed again', () =>
  withNode(async ({ dpkg, done }) => {
    dpkg.broken.add('0.1.0')
    assert.is((await done('agent_install', debOf('broken', '0.1.0'))).status, 'failure')
    assert.not.ok(dpkg.installed.has('broken'))
  }))

test('a tarball goes into a folder of its version, and the link leads to the newest', () =>
  withNode(async ({ done, prefix }) => {
    const current = () => readFileSync(join(prefix, 'metrics/current/agent.js'), 'utf8')
    for (const content of ['one', 'two', 'three']) {
      assert.is((await done('agent_install', tarballOf('metrics', content))).status, 'complete')
      assert.is(current(), content)
    }
    assert.is(readdirSync(join(prefix, 'metrics')).length, 3, 'the newest, the one before it, and the link')
    const nameless = tarballOf('metrics', 'four')
    const end = await done('agent_install', { ...nameless, package_name: undefined })
    assert.match(end.error?.message ?? '', /give package_name/)
  }))

test('a tarball that cannot be unpacked leaves the link where it was', () =>
  withNode(async ({ done, prefix }) => {
    const good = tarballOf('metrics', 'good')
    await done('agent_install', good)
    const before = readlinkSync(join(prefix, 'metrics/current'))
    const end = await done('agent_install', {
      ...servedAs('/rubbish', Buffer.from('no tarball')),
      package_name: 'metrics',
    })
    assert.is(end.error?.code, 'AgentInstallFailed')
    assert.is(readlinkSync(join(prefix, 'metrics/current')), before)
  }))

test('what is not what its checksum says is not installed', () =>
  withNode(async ({ dpkg, done }) => {
    const end = await done('agent_install', { ...debOf('firewaller', '3.0.0'), sha256: '0'.repeat(64) })
    assert.is(end.error?.code, 'ImageChecksumMismatch')
    assert.equal(dpkg.commands, [])
  }))

test('a package under another name than asked for is not installed', () =>
  withNode(async ({ dpkg, done }) => {
    const end = await done('agent_install', { ...debOf('other', '1.0.0'), package_name: 'firewaller' })
    assert.match(end.error?.message ?? '', /the package is other, not firewaller/)
    assert.equal(dpkg.commands, [])
  }))

test('an agent comes from the image service too, by its manifest', () =>
  withNode(async ({ done }) => {
    const { url } = debOf('served', '1.0.0')
    const content = web.files.get(new URL(url).pathname)?.content ?? Buffer.alloc(0)
    const uuid = randomUUID()
    const manifest = { uuid, files: [{ sha1: digestsOf(content).sha1, size: content.length, compression: 'none' }] }
    web.files.set(`/imgapi/images/${uuid}`, { content: Buffer.from(JSON.stringify(manifest)) })
    web.files.set(`/imgapi/images/${uuid}/file`, { content })
    const end = await done('agent_install', { image_uuid: uuid })
    assert.equal(agentsOf(end.result), [{ name: 'served', version: '1.0.0', image_uuid: uuid }])
  }))

test('without AGENT_INSTALL_ALLOW nothing is ordered, and the refusal says what to set', () =>
  withNode(
    async ({ node, done }) => {
      for (const [task, params] of [
        ['agent_install', debOf('firewaller', '1.0.0')],
        ['agents_uninstall', { agents: ['firewaller'] }],
      ] as const) {
        const end = await done(task, params)
        assert.is(end.error?.code, 'AgentInstallNotAllowed')
        assert.match(end.error?.message ?? '', /AGENT_INSTALL_ALLOW/)
      }
      assert.equal(orders(node), [])
    },
    { allowed: null },
  ))

test('the installer asks allowed hosts only, whatever an order says', () =>
  withNode(
    async ({ dpkg, done }) => {
      const end = await done('agent_install', debOf('firewaller', '1.0.0'))
      assert.match(end.error?.message ?? '', /127\.0\.0\.1 is not allowed.*AGENT_INSTALL_ALLOW/)
      assert.equal(dpkg.commands, [])
    },
    { allowed: ['packages.example.com'] },
  ))

test('an order that nobody takes up is withdrawn, and it is said what to enable', () =>
  withNode(async ({ node, agent }) => {
    const task = offer('agent_install', debOf('firewaller', '1.0.0'))
    await agent.executor.accept(task)
    const end = await node.owner.end(task.id)
    assert.match(end.error?.message ?? '', /muster-agent-install\.path/)
    assert.equal(orders(node), [])
  }))

test('agents are removed, absent ones are success, and only what was installed by order is touched', () =>
  withNode(async ({ dpkg, done, prefix }) => {
    dpkg.installed.set('systemd', '252')
    await done('agent_install', debOf('firewaller', '1.0.0'))
    await done('agent_install', tarballOf('metrics', 'one'))
    for (const _ of ['once', 'twice']) {
      const end = await done('agents_uninstall', { agents: ['firewaller', 'metrics', 'systemd', 'absent'] })
      assert.is(end.status, 'complete')
      assert.equal(agentsOf(end.result), [])
    }
    assert.equal([...dpkg.installed], [['systemd', '252']])
    assert.not.ok(existsSync(join(prefix, 'metrics')))
  }))

test('the agent does not remove itself, under either of its names', () =>
  withNode(async ({ node, done }) => {
    for (const name of ['muster-agent', 'cn-agent']) {
      const end = await done('agents_uninstall', { agents: ['firewaller', name] })
      assert.is(end.error?.code, 'InvalidArgument')
      assert.match(end.error?.message ?? '', new RegExp(name))
    }
    assert.equal(orders(node), [])
  }))

test('an agent that is replaced by what it ordered ends the task as its new release', () =>
  withNode(async ({ node, agent, dpkg, install, again }) => {
    const task = offer('agent_install', debOf('muster-agent', '9.9.9'))
    await agent.executor.accept(task)
    await eventually(() => orders(node).length === 1)
    let killed: Promise<void> = Promise.resolve()
    // As the package's postinst restarts it.
    dpkg.onInstall(() => {
      killed = agent.kill()
    })
    await install()
    await killed
    assert.is(node.owner.ends(task.id).length, 0)
    const next = await again()
    next.executor.resume()
    const end = await node.owner.end(task.id)
    assert.is(end.status, 'complete')
    assert.equal(agentsOf(end.result), [{ name: 'muster-agent', version: '9.9.9' }])
    assert.is(dpkg.commands.filter(command => command.startsWith('--install')).length, 1, 'once, by both agents')
  }))

const steps = ['dpkg-deb --field', 'dpkg-query', 'dpkg --install'] as const
for (const step of steps) {
  for (const when of ['before', 'after'] as const) {
    test(`an installer that dies ${when} ${step} is followed by one that ends the order`, () =>
      withNode(async ({ node, agent, dpkg, install }) => {
        dpkg.installed.set('firewaller', '1.0.0')
        const task = offer('agent_install', debOf('firewaller', '2.0.0'))
        await agent.executor.accept(task)
        await eventually(() => orders(node).length === 1)
        let isDead = false
        const died = new Promise<void>(resolve => {
          const run: Run = async (program, args) => {
            const isHere = `${program} ${args.join(' ')}`.startsWith(step)
            const die = () => {
              isDead = true
              resolve()
              return new Promise<never>(() => {})
            }
            if (isDead || (isHere && when === 'before')) return die()
            const said = await dpkg.run(program, args)
            return isHere ? die() : said
          }
          install(run).catch(() => {})
        })
        await died
        await install()
        assert.is((await node.owner.end(task.id)).status, 'complete')
        assert.is(dpkg.installed.get('firewaller'), '2.0.0')
        assert.equal(orders(node), [])
      }))
  }
}

test('what is no order, and a link to one, is put away and nothing is done', () =>
  withNode(async ({ node, dpkg, install }) => {
    const at = join(node.stateDir, ordersFolder)
    const id = randomUUID()
    const elsewhere = join(node.stateDir, 'elsewhere')
    writeFileSync(elsewhere, JSON.stringify({ id, kind: 'install', ...debOf('firewaller', '1.0.0') }))
    symlinkSync(elsewhere, join(at, `${id}.json`))
    writeFileSync(join(at, 'rubbish.json'), '{')
    writeFileSync(join(at, `${randomUUID()}.json`), JSON.stringify({ id, kind: 'uninstall', agents: [] }))
    await install()
    assert.equal(orders(node), [])
    assert.equal(dpkg.commands, [])
    assert.ok(existsSync(elsewhere))
  }))

test('a folder that an agent has put in the place of its orders is left as it is', () =>
  withNode(async ({ node, dpkg, install }) => {
    const at = join(node.stateDir, ordersFolder)
    const elsewhere = join(node.stateDir, 'elsewhere')
    mkdirSync(elsewhere)
    writeFileSync(join(elsewhere, 'precious.json'), '{}')
    rmSync(at, { recursive: true })
    symlinkSync(elsewhere, at)
    const refusal = await install().then(
      () => 'nothing was refused',
      (error: NodeJS.ErrnoException) => error.code,
    )
    assert.ok(['ELOOP', 'ENOTDIR'].includes(String(refusal)), refusal)
    assert.ok(existsSync(join(elsewhere, 'precious.json')))
    assert.equal(dpkg.commands, [])
  }))

test('a package is kept as it was, also where a folder of it is a link on this node', async () => {
  // As /lib, which leads to /usr/lib.
  const place = join(folder, 'merged')
  mkdirSync(join(place, 'real'), { recursive: true })
  writeFileSync(join(place, 'real/agent.service'), 'the old one')
  symlinkSync('real', join(place, 'link'))
  symlinkSync('agent.service', join(place, 'real/alias.service'))
  const listed = ['/.', place, `${place}/link`, `${place}/link/agent.service`, `${place}/link/alias.service`]
  const run: Run = async (program, args) => {
    if (program !== 'dpkg-query') return runProgram(program, args)
    if (args.includes('-W')) return 'installed'
    return args.includes('-L') ? `${listed.join('\n')}\n` : controlFile
  }
  const controlFile =
    'Package: a-b\nStatus: install ok installed\nVersion: 1\nArchitecture: all\nMaintainer: a <a@localhost>\nDescription: an agent\n'
  const way = join(folder, 'way/previous')
  const info = join(folder, 'no-info')
  await packages({ run, prefix: folder, info }).keep({ name: 'a-b', version: '2', kind: 'deb' }, way)
  const unpacked = join(folder, 'unpacked')
  execFileSync('dpkg-deb', ['--extract', `${way}.deb`, unpacked])
  assert.is(readFileSync(join(unpacked, place, 'link/agent.service'), 'utf8'), 'the old one')
  assert.is(readlinkSync(join(unpacked, place, 'link/alias.service')), 'agent.service')
})

test.run()
