/** What surrounds the agent's work: settings, identity, sysinfo, bridges, systemd, the timing of status events. */
import { randomUUID } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import * as v from 'valibot'
import { StatusEvent, Sysinfo } from '../../actors/contract/server.ts'
import { READS, TASKS } from '../../actors/contract/task.ts'
import { agentConfig } from '../../hypervisor-agent/config.ts'
import { serverIdentity } from '../../hypervisor-agent/identity.ts'
import { type BridgeSources, openVswitch } from '../../hypervisor-agent/openvswitch/bridges.ts'
import { READ_HANDLERS } from '../../hypervisor-agent/reads/table.ts'
import { serviceManager } from '../../hypervisor-agent/service-manager.ts'
import { simulatedHypervisor } from '../../hypervisor-agent/simulated/simulated.ts'
import { takeStatus } from '../../hypervisor-agent/status-event.ts'
import { openStatusLoop } from '../../hypervisor-agent/status-loop.ts'
import { sysinfoOf } from '../../hypervisor-agent/sysinfo.ts'
import { TASK_HANDLERS } from '../../hypervisor-agent/tasks/table.ts'
import { eventually } from '../eventually.ts'
import { suite } from '../suite.ts'
import { offer, silent, simulatedNode, vmSpec } from './agent-fixture.ts'

const test = suite('agent process')

test('every task and every read of the contract has its handler, and there are no others', () => {
  assert.equal(Object.keys(TASK_HANDLERS).sort(), Object.keys(TASKS).sort())
  assert.equal(Object.keys(READ_HANDLERS).sort(), Object.keys(READS).sort())
})

const least = { HYPERVISOR: 'simulated', STATE_DIR: '/state' }

test('settings have defaults, and empty ones count as absent', () => {
  const config = agentConfig({ ...least, SERVER_UUID: '', NATS_SEED_FILE: '', NIC_TAGS: '' })
  assert.equal(config.natsServers, ['nats://127.0.0.1:4222'])
  assert.is(config.serverUuid, undefined)
  assert.is(config.natsSeedFile, undefined)
  assert.is(config.nicTags, undefined)
  assert.is(config.libvirt.domainType, 'kvm')
  assert.is(config.simulatedNodes, 1)
})

test('settings are read as documented', () => {
  const uuid = randomUUID()
  const config = agentConfig({
    ...least,
    NATS_URL: 'nats://a:4222, nats://b:4222',
    SERVER_UUID: uuid.toUpperCase(),
    NIC_TAGS: 'admin=br0, external=br1',
    INSTALL_ALLOW: 'Mirror.example.com,10.0.0.1',
    DOMAIN_TYPE: 'qemu',
    WATCHDOG_USEC: '30000000',
  })
  assert.equal(config.natsServers, ['nats://a:4222', 'nats://b:4222'])
  assert.is(config.serverUuid, uuid)
  assert.equal(config.nicTags, { admin: 'br0', external: 'br1' })
  assert.equal(config.installAllow, ['mirror.example.com', '10.0.0.1'])
  assert.is(config.libvirt.domainType, 'qemu')
  assert.is(config.watchdogMs, 30_000)
})

test('all problems of the settings are told at once, each by its name', () => {
  const message = thrown(() =>
    agentConfig({
      NATS_URL: ',',
      HYPERVISOR: 'xen',
      NIC_TAGS: 'admin',
      DOMAIN_TYPE: 'lxc',
      SERVER_UUID: '1',
      LOG_LEVEL: 'loud',
    }),
  )
  for (const name of ['NATS_URL', 'HYPERVISOR', 'STATE_DIR', 'NIC_TAGS', 'DOMAIN_TYPE', 'SERVER_UUID', 'LOG_LEVEL']) {
    assert.match(message, new RegExp(`^ {2}${name}: `, 'm'))
  }
})

test('several nodes in one process are simulated ones, and none is given its uuid', () => {
  assert.match(
    thrown(() => agentConfig({ ...least, HYPERVISOR: 'libvirt', SIMULATED_NODES: '2' })),
    /SIMULATED_NODES/,
  )
  assert.match(
    thrown(() => agentConfig({ ...least, SIMULATED_NODES: '2', SERVER_UUID: randomUUID() })),
    /SERVER_UUID/,
  )
  assert.is(agentConfig({ ...least, SIMULATED_NODES: '10000' }).simulatedNodes, 10_000)
})

test('a node keeps its uuid; another one’s folder and an unusable folder are refused in words', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'muster-identity-'))
  try {
    const uuid = await serverIdentity(join(folder, 'a'))
    assert.is(await serverIdentity(join(folder, 'a')), uuid)
    assert.is(await serverIdentity(join(folder, 'a'), uuid), uuid)
    assert.is(readFileSync(join(folder, 'a', 'uuid'), 'utf8'), `${uuid}\n`)
    const other = randomUUID()
    assert.match(await rejected(serverIdentity(join(folder, 'a'), other)), new RegExp(`belongs to server ${uuid}`))
    assert.is(await serverIdentity(join(folder, 'b'), other), other)
    writeFileSync(join(folder, 'file'), '')
    assert.match(await rejected(serverIdentity(join(folder, 'file', 'x'))), /STATE_DIR=.*writable/)
    writeFileSync(join(folder, 'b', 'uuid'), 'nonsense')
    assert.match(await rejected(serverIdentity(join(folder, 'b'))), /holds no UUID/)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})

test('simulated hosts differ by seed and stay the same by seed; each gives a valid sysinfo', async () => {
  const hosts = await Promise.all(
    ['a', 'b', 'c', 'a'].map(async seed => {
      const hypervisor = simulatedHypervisor({ seed })
      await hypervisor.open()
      return hypervisor.inventory()
    }),
  )
  assert.equal(hosts[0], hosts[3])
  assert.is(new Set(hosts.map(host => host.hostname)).size, 3)
  for (const host of hosts) {
    const sysinfo = v.parse(Sysinfo, sysinfoOf(randomUUID(), 'simulated', host))
    assert.ok(sysinfo['Live Image'], 'placement refuses a server without a platform')
    for (const nic of Object.values(sysinfo['Network Interfaces'] ?? {})) {
      assert.ok(['up', 'down', 'unknown'].includes(String(nic['Link Status'])))
      assert.ok(Array.isArray(nic['NIC Names']))
    }
    assert.match(sysinfo['Admin IP'] ?? '', /^10\./)
  }
})

test('a VM that a task is making shows as provisioning, one whose installer runs as installing', async () => {
  const node = await simulatedNode()
  const agent = await node.agent()
  const release = node.hypervisor.faults.add({ call: 'startVm', hang: true })
  const spec = vmSpec()
  await agent.executor.accept(offer('machine_create', { spec }))
  await eventually(() => node.hypervisor.world.guest(spec.uuid))
  const take = async () => {
    const { hypervisor } = node
    const { installs, executor } = agent
    const status = await takeStatus({ hypervisor, installs, creating: executor.creating, now: () => 1_000 })
    return v.parse(StatusEvent, status)
  }
  assert.is((await take()).vms?.[spec.uuid]?.state, 'provisioning')
  release()
  await eventually(async () => (await take()).vms?.[spec.uuid]?.state === 'running')
  const { diskinfo, timestamp } = await take()
  assert.is(timestamp, new Date(1_000).toISOString())
  assert.is(diskinfo?.kvm_zvol_volsize_bytes, 64 * 1024 ** 2)
  assert.is(
    diskinfo?.pool_alloc_bytes,
    (diskinfo?.kvm_zvol_used_bytes ?? 0) +
      (diskinfo?.installed_images_used_bytes ?? 0) +
      (diskinfo?.system_used_bytes ?? 0),
  )
  await agent.kill()
  await node.remove()
})

const ovs = (list: string): BridgeSources => ({
  ovsVsctl: async ([what]) => (what === 'list-br' ? list : 'ovs-vsctl (Open vSwitch) 3.1.0\nDB Schema 8.3.1\n'),
  interfaces: async () => ['lo', 'eth0', 'br0'],
})

test('bridges are what Open vSwitch lists; a nic tag that leads nowhere is noted once', async () => {
  const notes: string[] = []
  const nicTags = { admin: 'br0', external: 'br1' }
  const switches = openVswitch({ nicTags, note: line => void notes.push(line), sources: ovs('br0\nbr7\n') })
  assert.equal(await switches.bridges(), ['br0', 'br7'])
  assert.equal(await switches.bridges(), ['br0', 'br7'])
  assert.is(await switches.version(), '3.1.0')
  assert.is(notes.length, 1)
  assert.match(notes[0] ?? '', /external.*br1/)
})

test('without leave to ask Open vSwitch, configured bridges that exist are taken, and it is said', async () => {
  const notes: string[] = []
  const sources: BridgeSources = {
    ...ovs(''),
    ovsVsctl: async () => {
      throw Object.assign(new Error('failed'), {
        stderr: 'ovs-vsctl: unix:/run/db.sock: connection failed (Permission denied)\n',
      })
    },
  }
  const switches = openVswitch({
    nicTags: { admin: 'br0', external: 'br1' },
    note: line => void notes.push(line),
    sources,
  })
  assert.equal(await switches.bridges(), ['br0'])
  assert.is(await switches.version(), undefined)
  assert.match(notes[0] ?? '', /Permission denied/)
})

test('systemd hears of readiness and life; a check that hangs silences the watchdog', async () => {
  const sent: string[] = []
  const send = async (args: string[]) => void sent.push(args.join(' '))
  const manager = serviceManager({ notifySocket: '/run/notify', watchdogMs: 30, log: silent, send })
  await manager.ready('all is well')
  assert.equal(sent, ['--ready --status=all is well'])
  let isHanging = false
  const stop = manager.watch(() => (isHanging ? new Promise(() => {}) : Promise.resolve(true)))
  const lives = () => sent.filter(line => line === 'WATCHDOG=1').length
  await eventually(() => lives() >= 2)
  isHanging = true
  const before = lives()
  let checks = 0
  await eventually(() => ++checks > 10, { everyMs: 10 })
  assert.ok(lives() <= before + 1)
  stop()
  const quiet = serviceManager({ log: silent, send: async () => assert.unreachable() })
  await quiet.ready('nobody listens')
})

test('status events follow a change soon, not in a storm, and a status that nobody heard is sent anew', async () => {
  const sent: number[] = []
  let isHeard = false
  const send = async () => {
    sent.push(performance.now())
    return isHeard
  }
  const loop = openStatusLoop(send, { settleMs: 10, apartMs: 60, againMs: 60_000, everyMs: 60_000 }, silent)
  loop.changed()
  loop.changed()
  await eventually(() => sent.length === 3, { what: 'the third try' })
  isHeard = true
  await eventually(() => sent.length === 4)
  for (let n = 1; n < sent.length; n++) assert.ok((sent[n] ?? 0) - (sent[n - 1] ?? 0) >= 45, 'apart')
  loop.changed()
  await eventually(() => sent.length === 5)
  loop.stop()
})

test('a change is reported twice, since the owner may hold the first report for older than its own change', async () => {
  const sent: number[] = []
  const send = async () => sent.push(performance.now()) > 0
  const timings = { settleMs: 5, apartMs: 20, againMs: 150, everyMs: 60_000 }
  const loop = openStatusLoop(send, timings, silent)
  loop.changed()
  await eventually(() => sent.length === 2, { what: 'the second report' })
  assert.ok((sent[1] ?? 0) - (sent[0] ?? 0) >= 145, 'the second one later')
  loop.changed()
  await eventually(() => sent.length === 4, { what: 'two more, and none between' })
  assert.ok((sent[2] ?? 0) - (sent[1] ?? 0) < 145, 'a new change is not kept waiting')
  loop.stop()
})

function thrown(act: () => unknown): string {
  try {
    act()
  } catch (error) {
    return (error as Error).message
  }
  throw new Error('it should have been refused')
}

async function rejected(call: Promise<unknown>): Promise<string> {
  try {
    await call
  } catch (error) {
    return (error as Error).message
  }
  throw new Error('it should have been refused')
}

test.run()
