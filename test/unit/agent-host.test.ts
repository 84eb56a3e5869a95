/** What an agent does to its host: which boot it is, its name and reboot, its nic tags, the ports of its bridges. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { agentConfig } from '../../hypervisor-agent/config.ts'
import { type HostSources, linuxHost } from '../../hypervisor-agent/host/linux.ts'
import { openNicTags } from '../../hypervisor-agent/host/nic-tags.ts'
import { openResetMark } from '../../hypervisor-agent/host/reset-mark.ts'
import { readPorts } from '../../hypervisor-agent/openvswitch/ports.ts'
import { sysinfoOf, takeSysinfo } from '../../hypervisor-agent/sysinfo.ts'
import { suite } from '../suite.ts'
import { simulatedNode } from './agent-fixture.ts'

const test = suite("the agent's host")

async function withFolder(body: (stateDir: string) => Promise<void>): Promise<void> {
  const stateDir = mkdtempSync(join(tmpdir(), 'muster-host-'))
  try {
    await body(stateDir)
  } finally {
    rmSync(stateDir, { recursive: true, force: true })
  }
}

interface FakeHost {
  bootId: string
  btime: number
  systemd: boolean
  /** µs since the epoch, in a container. */
  userspace?: number
  ran: string[]
  failing?: string
  written: Record<string, string>
}

const fakeHost = (more: Partial<FakeHost> = {}): FakeHost => ({
  bootId: 'boot-1',
  btime: 1_790_000_000,
  systemd: true,
  ran: [],
  written: {},
  ...more,
})

const sourcesOf = (host: FakeHost): HostSources => ({
  run: async (program, args) => {
    if (program === 'busctl') {
      if (host.userspace === undefined) throw new Error('no bus')
      return `t ${args.at(-1) === 'UserspaceTimestamp' ? host.userspace : host.userspace - host.btime * 1e6}\n`
    }
    host.ran.push([program, ...args].join(' '))
    if (host.failing) throw Object.assign(new Error('it failed'), { stderr: host.failing })
    return ''
  },
  read: async path => (path === '/proc/stat' ? `cpu 1 2\nbtime ${host.btime}\n` : `${host.bootId}\n`),
  write: async (path, text) => {
    host.written[path] = text
  },
  exists: async path => (path === '/run/systemd/container' ? host.userspace !== undefined : host.systemd),
})

test('many may ask at once when the boot began, also for the first time', () =>
  withFolder(async stateDir => {
    const host = linuxHost({ stateDir, sources: sourcesOf(fakeHost()) })
    const told = await Promise.all(Array.from({ length: 8 }, () => host.bootTimeS()))
    assert.equal([...new Set(told)], [1_790_000_000])
  }))

test('a boot began when the kernel says; a clock that is set later does not move it, another boot does', () =>
  withFolder(async stateDir => {
    const machine = fakeHost()
    const opened = () => linuxHost({ stateDir, sources: sourcesOf(machine) })
    const host = opened()
    assert.is(await host.bootTimeS(), 1_790_000_000)
    machine.btime += 3600
    assert.is(await host.bootTimeS(), 1_790_000_000)
    assert.is(await opened().bootTimeS(), 1_790_000_000, 'nor after a restart of the agent')
    machine.bootId = 'boot-2'
    assert.is(await host.bootTimeS(), 1_790_003_600)
    assert.is(await host.bootId(), 'boot-2')
    writeFileSync(join(stateDir, 'boot.json'), '{"id":')
    assert.is(await opened().bootTimeS(), 1_790_003_600, 'a damaged file is looked up anew')
  }))

test('in a container a boot began when its systemd did, else with the kernel', () =>
  withFolder(async stateDir => {
    const machine = fakeHost({ userspace: 1_795_000_000_900_000 })
    const host = linuxHost({ stateDir, sources: sourcesOf(machine) })
    assert.is(await host.bootTimeS(), 1_795_000_000)
    const first = await host.bootId()
    machine.userspace = 1_795_000_060_000_000
    assert.not.equal(await host.bootId(), first, 'another boot of the container, the same of the machine')
    assert.is(await host.bootTimeS(), 1_795_000_060)
    const mute = { ...sourcesOf(fakeHost({ bootId: 'boot-2' })), exists: async () => true }
    assert.is(await linuxHost({ stateDir, sources: mute }).bootTimeS(), 1_790_000_000)
  }))

test('the name is set through systemd, or by hand where there is none; a refusal is told with its reason', () =>
  withFolder(async stateDir => {
    const machine = fakeHost()
    await linuxHost({ stateDir, sources: sourcesOf(machine) }).setHostname('cn1.example.com')
    assert.equal(machine.ran, ['hostnamectl set-hostname --static -- cn1.example.com'])
    const bare = fakeHost({ systemd: false })
    await linuxHost({ stateDir, sources: sourcesOf(bare) }).setHostname('cn1')
    assert.equal([bare.ran, bare.written], [['hostname -- cn1'], { '/etc/hostname': 'cn1\n' }])
    const denied = fakeHost({ failing: 'Hint: ask polkit\nCould not set static hostname: Access denied\n' })
    try {
      await linuxHost({ stateDir, sources: sourcesOf(denied) }).setHostname('cn1')
      assert.unreachable()
    } catch (error) {
      assert.match((error as Error).message, /static hostname: Access denied$/)
    }
  }))

test('a reboot is asked of systemd, or of the configured command; without either the check says so', () =>
  withFolder(async stateDir => {
    const machine = fakeHost()
    await linuxHost({ stateDir, sources: sourcesOf(machine) }).reboot()
    const bare = fakeHost({ systemd: false })
    const own = linuxHost({ stateDir, rebootCommand: ['/sbin/reboot', '-f'], sources: sourcesOf(bare) })
    await own.reboot()
    assert.equal([machine.ran, bare.ran], [['systemctl reboot'], ['/sbin/reboot -f']])
    const ok = async (host: ReturnType<typeof linuxHost>) => (await host.checks())[0]?.ok
    assert.is(await ok(own), true)
    assert.is(await ok(linuxHost({ stateDir, sources: sourcesOf(machine) })), true)
    assert.is(await ok(linuxHost({ stateDir, sources: sourcesOf(bare) })), false)
  }))

test('an order of a reboot that is ended by a signal fails only when the node is still there long after', () =>
  withFolder(async stateDir => {
    const killed = {
      ...sourcesOf(fakeHost()),
      run: async () => Promise.reject({ signal: 'SIGTERM', message: 'killed' }),
    }
    const host = linuxHost({ stateDir, goneWithinMs: 150, sources: killed })
    const began = performance.now()
    const error = await host.reboot().then(
      () => undefined,
      error => error,
    )
    assert.match(error?.message, /systemctl reboot: killed/)
    assert.ok(performance.now() - began >= 140)
  }))

test('nic tags are the configuration\u2019s until they are changed, outlive the agent then, and can be reset', () =>
  withFolder(async stateDir => {
    const configured = { admin: 'br0' }
    const tags = await openNicTags({ stateDir, configured })
    const held = tags.byTag
    assert.equal(held, configured)
    await tags.replace({ storage: 'br1' })
    assert.equal(held, { storage: 'br1' }, 'who holds them sees the change')
    const again = await openNicTags({ stateDir, configured: { admin: 'br7' } })
    assert.equal(again.byTag, { storage: 'br1' })
    await again.reset()
    await again.reset()
    assert.equal(again.byTag, { admin: 'br7' })
    assert.equal((await openNicTags({ stateDir, configured })).byTag, configured)
  }))

test('an agent does not start with nic tags that it cannot read', () =>
  withFolder(async stateDir => {
    for (const text of ['{"admin":', '{"admin":"not a bridge name"}', '[]', '{"a/b":"br0"}']) {
      writeFileSync(join(stateDir, 'nic-tags.json'), text)
      try {
        await openNicTags({ stateDir, configured: {} })
        assert.unreachable(text)
      } catch (error) {
        assert.match((error as Error).message, /nic-tags\.json cannot be used .*NIC_TAGS counts/)
      }
    }
  }))

test('a reset node is not set up until it is prepared, also after a restart of the agent', () =>
  withFolder(async stateDir => {
    const node = await simulatedNode()
    const host = await node.hypervisor.inventory()
    const mark = await openResetMark(stateDir)
    assert.is(sysinfoOf('a', 'simulated', host, { isReset: mark.isSet() }).Setup, true)
    await mark.set()
    const again = await openResetMark(stateDir)
    assert.is(sysinfoOf('a', 'simulated', host, { isReset: again.isSet() }).Setup, false)
    await again.clear()
    await again.clear()
    assert.is((await openResetMark(stateDir)).isSet(), false)
    await node.remove()
  }))

test('every port of a bridge is found, those of a bond too', () => {
  const id = (n: number) => ['uuid', `00000000-0000-4000-8000-00000000000${n}`]
  const lines = [
    {
      data: [
        ['br1', id(1)],
        ['br0', ['set', [id(2), id(3)]]],
        ['br2', ['set', []]],
      ],
      headings: ['name', 'ports'],
    },
    {
      data: [
        [id(1), id(4)],
        [id(2), id(5)],
        [id(3), ['set', [id(6), id(7)]]],
      ],
      headings: ['_uuid', 'interfaces'],
    },
    {
      data: [
        [id(4), 'br1'],
        [id(5), 'eth0'],
        [id(6), 'eth1'],
        [id(7), 'eth2'],
      ],
      headings: ['_uuid', 'name'],
    },
  ]
  const answer = lines.map(line => `${JSON.stringify(line)}\n`).join('')
  assert.equal(readPorts(answer), { br1: 'br1', eth0: 'br0', eth1: 'br0', eth2: 'br0' })
  assert.throws(() => readPorts('ovs-vsctl: connection failed\n'))
})

test('the sysinfo tells the nic tags of a bridge at each of its ports, and an agent that passes the version gates', async () => {
  const node = await simulatedNode()
  const sysinfo = sysinfoOf('a', 'simulated', await node.hypervisor.inventory())
  const { eth0, br0 } = sysinfo['Network Interfaces'] ?? {}
  assert.equal([eth0?.['NIC Names'], eth0?.Bridge], [['admin'], 'br0'])
  assert.equal([br0?.['NIC Names'], br0?.Bridge], [['admin'], 'br0'])
  assert.equal(sysinfo['SDC Agents'], [{ name: 'cn-agent', version: '2.15.0' }])
  await node.remove()
})

test('scripts are off unless EXECUTE says on; user and reboot command are checked', () => {
  const base = { STATE_DIR: '/x', HYPERVISOR: 'simulated' }
  assert.is(agentConfig(base).execute, undefined)
  assert.is(agentConfig({ ...base, EXECUTE: 'off', EXECUTE_USER: 'ops' }).execute, undefined)
  assert.equal(agentConfig({ ...base, EXECUTE: 'on' }).execute, {})
  assert.equal(agentConfig({ ...base, EXECUTE: 'on', EXECUTE_USER: 'ops' }).execute, { user: 'ops' })
  assert.equal(agentConfig({ ...base, REBOOT_COMMAND: '/sbin/reboot  -f' }).rebootCommand, ['/sbin/reboot', '-f'])
  for (const wrong of [{ EXECUTE: 'yes' }, { EXECUTE_USER: '-x' }, { EXECUTE_USER: 'a b' }, { REBOOT_COMMAND: ' ' }]) {
    assert.throws(() => agentConfig({ ...base, ...wrong }), new RegExp(Object.keys(wrong)[0] ?? ''))
  }
})

test('a hostname that was given outlives a simulated host\u2019s agent', () =>
  withFolder(async folder => {
    const node = await simulatedNode({ folder })
    await node.tools.host.setHostname('cn9')
    await node.remove()
    const again = await simulatedNode({ folder })
    assert.is((await again.hypervisor.inventory()).hostname, 'cn9')
    assert.match(readFileSync(join(folder, 'guests.json'), 'utf8'), /cn9/)
    await again.remove()
  }))

test('a sysinfo tells which boot it is of, also where two boots began in the same second', () =>
  withFolder(async stateDir => {
    const node = await simulatedNode()
    const machine = fakeHost({ userspace: 1_795_000_000_100_000 })
    const host = linuxHost({ stateDir, sources: sourcesOf(machine) })
    const told = async () => {
      const sysinfo = await takeSysinfo('a', node.hypervisor, { ...node.tools, host })
      return [sysinfo['Boot Id'], sysinfo['Boot Time']]
    }
    const first = await told()
    assert.equal(first, [await host.bootId(), 1_795_000_000])
    assert.equal(await told(), first)
    machine.userspace = 1_795_000_000_900_000
    const second = await told()
    assert.equal([second[0] === first[0], second[1]], [false, first[1]])
    await node.remove()
  }))

test('a reboot that was ordered comes even if the agent dies first', () =>
  withFolder(async folder => {
    const node = await simulatedNode({ folder, goneAfterMs: 60_000 })
    const before = await node.tools.host.bootId()
    node.hypervisor.world.power.order()
    await node.remove()
    const again = await simulatedNode({ folder })
    assert.not.equal(await again.tools.host.bootId(), before)
    assert.is(again.hypervisor.world.power.boots(), 2)
    await again.remove()
    const third = await simulatedNode({ folder })
    assert.is(third.hypervisor.world.power.boots(), 2, 'once')
    await third.remove()
  }))

test.run()
