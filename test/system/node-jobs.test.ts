// What is done to a node as a whole, on a node with a real systemd, polkit and Open vSwitch, by the agent as its package installs
// it: scripts refused and run, nic tags moved, the name set, and a reboot from which the node comes back.
import { appendFile, copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { equal, match, not, ok } from 'uvu/assert'
import { eventually } from '../eventually.ts'
import { suite } from '../suite.ts'
import { enrollAgent, installAgent } from './lab/agent-on-node.ts'
import { attempt, command } from './lab/command.ts'
import { type Lab, startLab, whyNoLab } from './lab/lab.ts'
import { logs, type Muster, startMuster } from './lab/muster.ts'
import { type SystemdNode, startSystemdNode } from './lab/nspawn.ts'
import { skipping } from './lab/suite.ts'

const reason = process.env['SYSTEM_TESTS'] === 'required' ? undefined : await whyNoLab()
const inner = suite('jobs on a node')
const test = reason ? skipping(inner, reason) : inner
const serverUuid = '7c2f5b90-3d41-4a6e-8f0b-1e9d6a4c2b57'
const at = `/servers/${serverUuid}`
/** A second bridge with a NIC of its own, beside the lab's. */
const bridge = 'br-jobs'
const nic = 'nic-jobs'

let folder: string
let lab: Lab
let muster: Muster
let node: SystemdNode

test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'muster-jobs-'))
})
test.after(async () => {
  await node?.stop()
  await muster?.stop()
  await attempt('ovs-vsctl', ['--timeout=10', '--if-exists', 'del-br', bridge])
  await lab?.stop()
  await rm(folder, { recursive: true, force: true })
})

const server = async () => (await muster.request('GET', at)).body
const tagsOf = async (name: string) =>
  (await muster.request('GET', `${at}?`)).body.sysinfo['Network Interfaces'][name]['NIC Names'].sort()

/** The job of an answer as it ended; what the processes said comes along where it failed. */
async function ended(answer: { status: number; body: { job_uuid?: string } }) {
  equal(answer.status, 202, JSON.stringify(answer.body))
  const { body: job } = await muster.request('GET', `/jobs/${answer.body.job_uuid}/wait?timeout=120`)
  if (job.execution !== 'succeeded') console.log(await logs(muster.dataDir), await agentLog())
  equal(job.execution, 'succeeded', JSON.stringify(job))
  return job
}
const agentLog = () => node.run('journalctl', ['-u', 'muster-agent', '--no-pager', '-o', 'cat', '-n', '40'])

/** Adds settings to the agent's and starts it anew. */
async function configure(lines: string): Promise<void> {
  await appendFile(join(node.root, 'etc/default/muster-agent'), lines)
  await node.run('systemctl', ['restart', 'muster-agent'])
}

/** ovs-vsctl with the libraries that the node's own Debian lacks; the database is the lab's. */
async function shareOvsVsctl(root: string): Promise<void> {
  const program = '/usr/bin/ovs-vsctl'
  const needed = (await command('ldd', [program])).match(/\/\S+(?= \()/g) ?? []
  for (const file of [program, ...needed]) {
    if ((await attempt('test', ['-e', join(root, file)])) === undefined) await copyFile(file, join(root, file))
  }
}

test(
  'a node with systemd is enrolled, and tells the bridges and NICs that Open vSwitch has',
  async () => {
    lab = await startLab()
    await command('ovs-vsctl', ['add-br', bridge, '--', 'set', 'bridge', bridge, 'datapath_type=netdev'])
    await command('ovs-vsctl', ['add-port', bridge, nic, '--', 'set', 'interface', nic, 'type=internal'])
    ;[node, muster] = await Promise.all([
      startSystemdNode({ network: 'host', binds: ['/run/openvswitch'] }),
      startMuster({ dataDir: join(folder, 'data'), env: { HYPERVISOR: 'simulated' } }),
    ])
    await shareOvsVsctl(node.root)
    await installAgent(node, folder)
    await enrollAgent(node, muster, serverUuid)
    await configure(`DOMAIN_TYPE=qemu\nNIC_TAGS=admin=${lab.bridge}\n`)
    await eventually(async () => (await server())?.status === 'running', { withinMs: 15_000, what: 'a running server' })
    equal(await tagsOf(lab.bridge), ['admin'])
    equal((await server()).sysinfo['Network Interfaces'][nic].Bridge, bridge)
  },
  { limitMs: 900_000 },
)

test('scripts are refused until the node allows them, then run as the user it names', async () => {
  const execute = (body: object) => muster.request('POST', `${at}/execute`, body)
  const refused = await execute({ script: 'id' })
  equal([refused.status, refused.body.code], [409, 'ExecuteNotAllowed'])
  const rule = `polkit.addRule(function (action, subject) {
    if (subject.user === 'muster-agent' && action.id === 'org.freedesktop.systemd1.manage-units') return polkit.Result.YES
  })`
  await writeFile(join(node.root, 'etc/polkit-1/rules.d/70-muster-execute.rules'), rule, { mode: 0o644 })
  await configure('EXECUTE=on\nEXECUTE_USER=root\n')
  const ran = await execute({ script: 'id -un; echo "$1 $FOO"', args: ['a; b'], env: { FOO: '$(x)' } })
  equal([ran.status, ran.body], [200, 'root\na; b $(x)'], JSON.stringify(ran.body))
  const late = await execute({ script: 'echo begun; sleep 600', timeout: 1_000, json: true })
  equal(late.status, 200, JSON.stringify(late.body))
  match(late.body.err, /killed after 1000 ms/)
  await eventually(async () => (await attempt('pgrep', ['-f', '^sleep 600$'])) === undefined, { what: 'its end' })
})

test('nic tags move between bridges, and one that a VM uses is not taken away', async () => {
  const mac = (await readFile(`/sys/class/net/${nic}/address`, 'utf8')).trim()
  const nics = (...nic_tags_provided: string[]) => [{ mac, nic_tags_provided }]
  await ended(await muster.request('PUT', `${at}/nics`, { action: 'update', nics: nics('storage', 'admin') }))
  equal([await tagsOf(nic), await tagsOf(lab.bridge)], [['admin', 'storage'], []])
  const vm = { ram: 64, autoboot: false, nics: [{ mac: '52:54:00:12:34:56', nic_tag: 'storage' }] }
  await muster.completed(await muster.request('POST', `${at}/vms`, vm))
  const refused = await muster.request('PUT', `${at}/nics`, { action: 'delete', nics: nics('storage') })
  equal([refused.status, refused.body.code], [409, 'NicTagInUse'], JSON.stringify(refused.body))
  await ended(await muster.request('PUT', `${at}/nics`, { action: 'replace', nics: nics('storage') }))
  await node.run('systemctl', ['restart', 'muster-agent'])
  equal(await tagsOf(nic), ['storage'], 'also for an agent that was restarted')
})

test('setup gives the node its name and runs the script after it', async () => {
  equal((await muster.request('POST', at, { setup: false })).status, 204)
  const job = await ended(
    await muster.request('PUT', `${at}/setup`, {
      hostname: 'cn7.example.com',
      postsetup_script: '#!/bin/bash\nhostname > /root/after-setup',
    }),
  )
  ok(job.chain.includes('script'), JSON.stringify(job.chain))
  equal(await readFile(join(node.root, 'root/after-setup'), 'utf8'), 'cn7.example.com\n')
  equal((await readFile(join(node.root, 'etc/hostname'), 'utf8')).trim(), 'cn7.example.com')
  const { hostname, setup, sysinfo } = await server()
  equal([hostname, setup, sysinfo.Hostname], ['cn7.example.com', true, 'cn7.example.com'])
})

test(
  'a reboot takes the node away and the job sees it come back, in another boot and with its tags',
  async () => {
    const before = await server()
    const bootId = () => node.run('cat', ['/proc/sys/kernel/random/boot_id'])
    const first = await bootId()
    // Something takes its time to stop, so that the node is silent for longer than it may be.
    const slow = ['--unit=slow', '--property=RemainAfterExit=yes', '--property=ExecStop=/bin/sleep 15', '/bin/true']
    await node.run('systemd-run', slow)
    const answer = await muster.request('POST', `${at}/reboot`, { drain: true })
    await eventually(async () => (await server()).status === 'rebooting', { withinMs: 60_000, what: 'rebooting' })
    const job = await ended(answer)
    equal(job.chain, ['drain', 'reboot', 'boot', 'resume'])
    equal(node.boots(), 2, 'once')
    not.equal(await bootId(), first)
    const after = await server()
    equal([after.status, after.hostname], ['running', 'cn7.example.com'])
    ok(Date.parse(after.last_boot) > Date.parse(before.last_boot), `${before.last_boot} -> ${after.last_boot}`)
    equal(await tagsOf(nic), ['storage'])
  },
  { limitMs: 180_000 },
)

test(
  'a factory reset waits for no VM to be left, takes away what Muster made, and the node comes back not set up',
  async () => {
    const vms = (await muster.request('GET', `${at}/vms`)).body as { uuid: string }[]
    equal(vms.length, 1)
    const refused = await muster.request('PUT', `${at}/factory-reset`)
    equal([refused.status, refused.body], [409, 'Server may not be reset because it has 1 vms'])
    await muster.completed(await muster.request('DELETE', `${at}/vms/${vms[0]?.uuid}`))
    const network = { bridge: lab.bridge, vlan: 7 }
    const made = await muster.request('POST', `/networks/before?server_uuid=${serverUuid}`, network)
    equal(made.status, 201, JSON.stringify(made.body))
    const job = await ended(await muster.request('PUT', `${at}/factory-reset`))
    ok(job.chain.includes('boot'), JSON.stringify(job.chain))
    equal(node.boots(), 3)
    const { status, setup } = await server()
    equal([status, setup], ['running', false])
    const networks = (await muster.request('GET', `/networks?server_uuid=${serverUuid}`)).body as { name: string }[]
    equal(
      networks.filter(({ name }) => name === 'before'),
      [],
    )
    equal([await tagsOf(nic), await tagsOf(lab.bridge)], [[], ['admin']], 'as the settings have them')
  },
  { limitMs: 180_000 },
)

test.run()
