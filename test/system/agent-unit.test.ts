// The agent as its package installs it, under a real systemd: enrolled by the printed commands, ready, hardened, killed by
// its watchdog when it hangs, and unmoved by a restart of libvirtd.
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { equal, match, not, ok } from 'uvu/assert'
import { eventually } from '../eventually.ts'
import { digestsOf, type ImageServer, imageServer } from '../image-server.ts'
import { suite } from '../suite.ts'
import { enrollAgent, installAgent } from './lab/agent-on-node.ts'
import { command } from './lab/command.ts'
import { whyNoLab } from './lab/lab.ts'
import { type Muster, startMuster, type Task } from './lab/muster.ts'
import { type SystemdNode, startSystemdNode } from './lab/nspawn.ts'
import { skipping } from './lab/suite.ts'

const reason = process.env['SYSTEM_TESTS'] === 'required' ? undefined : await whyNoLab()
const inner = suite("the agent's unit")
const test = reason ? skipping(inner, reason) : inner
const serverUuid = '5a1d9e4c-0b7e-4d0c-9a53-6f2c1e8b7d30'

let folder: string
let muster: Muster
let node: SystemdNode
let web: ImageServer

test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'muster-unit-'))
})
test.after(async () => {
  await web?.stop()
  await node?.stop()
  await muster?.stop()
  await rm(folder, { recursive: true, force: true })
})

const property = async (name: string) => (await node.run('systemctl', ['show', '-P', name, 'muster-agent'])).trim()

const journal = () => node.run('journalctl', ['-u', 'muster-agent', '--no-pager', '-o', 'cat'])

async function isRunning(): Promise<boolean> {
  return (await muster.request('GET', `/servers/${serverUuid}`)).body?.status === 'running'
}

// A test rather than a hook, because making the Debian takes minutes on a busy machine the first time.
test(
  'a node with systemd, libvirt and QEMU boots, and reaches a control plane that does not know it',
  async () => {
    node = await startSystemdNode({ network: 'host' })
    muster = await startMuster({ dataDir: join(folder, 'data'), env: { HYPERVISOR: 'simulated' } })
    match(await node.run('virsh', ['-c', 'qemu:///system', 'version']), /QEMU/)
    equal((await muster.request('GET', `/servers/${serverUuid}`)).status, 404)
  },
  { limitMs: 900_000 },
)

test(
  'the package installs, and after the commands that enroll prints the agent is ready and its server runs',
  async () => {
    await installAgent(node, folder)
    equal(await property('ActiveState'), 'inactive', 'it does not run before it is enrolled')
    await enrollAgent(node, muster, serverUuid)
    equal(await property('ActiveState'), 'active')
    equal(await property('NRestarts'), '0')
    await eventually(isRunning, { withinMs: 15_000, what: 'the server is running for the gateway' })
    not.equal(await property('StatusText'), '', 'systemctl status shows a line of its own')
  },
  { limitMs: 180_000 },
)

test('it runs as a user of its own, without capabilities and under a system call filter', async () => {
  const status = await node.run('cat', [`/proc/${await property('MainPID')}/status`])
  const uid = (await node.run('id', ['-u', 'muster-agent'])).trim()
  match(status, new RegExp(`^Uid:\\s+${uid}\\s`, 'm'))
  not.equal(uid, '0')
  match(status, /^CapEff:\s+0+$/m)
  match(status, /^NoNewPrivs:\s+1$/m)
  match(status, /^Seccomp:\s+2$/m)
  equal((await node.run('sh', ['-c', 'systemd-analyze verify muster-agent.service 2>&1'])).trim(), '')
})

test(
  'it goes on, in the same process, when libvirtd is restarted',
  async () => {
    const pid = await property('MainPID')
    await node.run('systemctl', ['restart', 'libvirtd'])
    // Work after the restart goes through a new connection.
    await eventually(async () => (await muster.request('GET', `/networks?server_uuid=${serverUuid}`)).status === 200, {
      withinMs: 30_000,
      what: 'the networks are read through the agent',
    })
    equal(await property('MainPID'), pid)
    equal(await property('NRestarts'), '0')
    ok(await isRunning())
  },
  { limitMs: 60_000 },
)

test(
  'its watchdog kills it when it hangs, and it is started again',
  async () => {
    const pid = await property('MainPID')
    await node.run('kill', ['-STOP', pid])
    await eventually(async () => (await property('NRestarts')) === '1', {
      withinMs: 120_000,
      everyMs: 500,
      what: 'systemd started it again',
    })
    match(await node.run('journalctl', ['-u', 'muster-agent', '--no-pager']), /Watchdog timeout/)
    await eventually(async () => (await property('ActiveState')) === 'active', { withinMs: 60_000, everyMs: 200 })
    not.equal(await property('MainPID'), pid)
    await eventually(isRunning, { withinMs: 20_000, what: 'the server is running again' })
  },
  { limitMs: 240_000 },
)

test(
  'it is upgraded over REST by its own package, while a task runs and a VM is defined, and its new release ends what the old one began',
  async () => {
    web = await imageServer()
    const refused = await installed(await serve('9.9.9'))
    equal([refused.status, refused.error?.code], ['failure', 'AgentInstallNotAllowed'], JSON.stringify(refused))
    await node.run('sh', [
      '-ec',
      'printf "AGENT_INSTALL_ALLOW=127.0.0.1\nDOMAIN_TYPE=qemu\n" >> /etc/default/muster-agent',
    ])
    await node.run('systemctl', ['enable', '--now', 'muster-agent-install.path'])
    await node.run('systemctl', ['restart', 'muster-agent'], { timeoutMs: 90_000 })
    await eventually(isRunning, { withinMs: 30_000, what: 'the server is running' })
    // Guests cannot start in here; one that is defined shows that an upgrade takes nothing away.
    const vm = await muster.request('POST', `/servers/${serverUuid}/vms`, { ram: 64, autoboot: false })
    await muster.completed(vm)
    const task = await muster.request('POST', `/servers/${serverUuid}/nop`, { sleep: 20 })
    const pid = await property('MainPID')

    const upgrade = await installed(await serve('9.9.9'))
    equal(upgrade.status, 'complete', JSON.stringify(upgrade))
    equal(await release(), '9.9.9')
    not.equal(await property('MainPID'), pid, 'it is another process')
    equal(await property('ActiveState'), 'active')
    const { agents } = (await muster.request('GET', `/servers/${serverUuid}`)).body
    const told = agents.find(({ name }: { name: string }) => name === 'muster-agent')
    equal(told, { name: 'muster-agent', version: '9.9.9' })
    await muster.completed(task)
    const defined = await node.run('virsh', ['-c', 'qemu:///system', 'list', '--all', '--uuid'])
    ok(defined.includes(vm.body.vm_uuid))
    const load = () => muster.request('GET', `/servers/${serverUuid}/vms/${vm.body.vm_uuid}`)
    await eventually(async () => (await load()).status === 200, {
      withinMs: 20_000,
      what: 'the new release shows the VM',
    })
  },
  { limitMs: 300_000 },
)

test(
  'a release that does not start gives way to the one before, and the agent works on',
  async () => {
    const end = await installed(await serve('10.0.0', '#!/bin/sh\nexit 1\n'))
    equal([end.status, end.error?.code], ['failure', 'AgentInstallFailed'], JSON.stringify(end))
    match(end.error?.message ?? '', /what was there before is back/)
    equal(await release(), '9.9.9')
    await eventually(isRunning, { withinMs: 30_000, what: 'the server is running' })
    equal(await property('ActiveState'), 'active')
    const uninstall = await muster.request('POST', `/servers/${serverUuid}/uninstall-agents`, {
      agents: ['muster-agent'],
    })
    equal((await muster.ended(uninstall)).error?.code, 'InvalidArgument')
  },
  { limitMs: 180_000 },
)

const release = async () => (await node.run('dpkg-query', ['-W', '-f=$' + '{Version}', 'muster-agent'])).trim()

/** The end of install-agent. */
async function installed(source: { url: string; sha256: string }): Promise<Task> {
  return muster.ended(await muster.request('POST', `/servers/${serverUuid}/install-agent`, source))
}

/** The agent's package as another release, served; with a postinst of its own where one is given. */
async function serve(version: string, postinst?: string): Promise<{ url: string; sha256: string }> {
  const root = join(folder, `release-${version}`)
  await rm(root, { recursive: true, force: true })
  await command('dpkg-deb', ['--raw-extract', join(node.root, 'root/0.deb'), root])
  const control = await readFile(join(root, 'DEBIAN/control'), 'utf8')
  await writeFile(join(root, 'DEBIAN/control'), control.replace(/^Version: .*$/m, `Version: ${version}`))
  if (postinst) await writeFile(join(root, 'DEBIAN/postinst'), postinst)
  await command('dpkg-deb', ['--root-owner-group', '-Znone', '--build', root, `${root}.deb`])
  const content = await readFile(`${root}.deb`)
  web.files.set(`/${version}.deb`, { content })
  return { url: `${web.url}/${version}.deb`, sha256: digestsOf(content).sha256 }
}

test('a stop is orderly and quick', async () => {
  const began = performance.now()
  await node.run('systemctl', ['stop', 'muster-agent'])
  ok(performance.now() - began < 10_000)
  equal(await property('Result'), 'success', await journal())
})

test.run()
