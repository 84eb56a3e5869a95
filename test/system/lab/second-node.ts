/**
 * A second compute node on the lab's machine: another libvirtd with its own state, configuration and host uuid, another Open vSwitch and an
 * agent, in mount and network namespaces of their own. A cable leads from its bridge to the lab's. Its loopback is another one: what crosses
 * besides (NATS, and streams between the two agents) goes through a relay, port by port.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { appendFile, copyFile, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { eventually } from '../../eventually.ts'
import { freePorts } from '../../nats.ts'
import { attempt, command } from './command.ts'
import { GuestConsole } from './console.ts'
import { runningPid } from './daemons.ts'
import type { Port } from './lab.ts'
import { portsOf } from './lab.ts'
import type { Muster } from './muster.ts'
import { relay } from './relay.ts'

export interface SecondNode {
  uuid: string
  virsh(...args: string[]): Promise<string>
  console(domain: string): Promise<GuestConsole>
  /** Of its bridge. */
  ports(): Promise<Port[]>
  /** kill -9, and another life over the same state. */
  restartAgent(): Promise<void>
  /** Of the agent that runs now. */
  agentPid(): number
  /** libvirtd is killed without a chance to say goodbye, and started again. */
  crashLibvirtd(): Promise<void>
  /** Domains and volumes there. */
  leftovers(): Promise<string[]>
  stop(): Promise<void>
}

const root = '/var/lib/muster-lab-second'
const own = [
  'run/libvirt',
  'var/lib/libvirt',
  'var/cache/libvirt',
  'var/log/libvirt',
  'etc/libvirt',
  'run/openvswitch',
  'etc/openvswitch',
  'var/log/openvswitch',
]
const bridge = 'br0'
/** The cable's ends: here and there. */
const cable = ['muster-lab-0', 'muster-lab-1'] as const
const reaper = new URL('reaper.pl', import.meta.url).pathname
const projectDir = new URL('../../..', import.meta.url).pathname
const environment = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' }

/** In the namespaces: its folders stand where the daemons look for their own. */
const script = `set -e
for folder in ${own.join(' ')}; do mount --bind "${root}/$folder" "/$folder"; done
ip link set lo up
/usr/share/openvswitch/scripts/ovs-ctl start --system-id=random
ovs-vsctl --timeout=10 add-br ${bridge} -- set bridge ${bridge} datapath_type=netdev
ip link set ${bridge} up
virtlogd -d -p "${root}/virtlogd.pid"
exec "${reaper}" libvirtd -p "${root}/libvirtd.pid"
`

/** The environment of `muster` says where its agent's streams are: STREAM_PORT. */
export async function startSecondNode(muster: Muster): Promise<SecondNode> {
  const undo: (() => unknown)[] = []
  const stop = async () => {
    while (undo.length > 0) await undo.pop()?.()
  }
  try {
    return { ...(await start(muster, undo)), stop }
  } catch (error) {
    await stop()
    throw error
  }
}

/** What it has started is taken back in reverse by what it puts into `undo`. */
async function start(muster: Muster, undo: (() => unknown)[]): Promise<Omit<SecondNode, 'stop'>> {
  await rm(root, { recursive: true, force: true })
  await unplug()
  undo.push(() => rm(root, { recursive: true, force: true }))
  await makeFolders()
  const libvirtd = spawn('unshare', ['--mount', '--net', '--propagation', 'private', 'sh', join(root, 'start.sh')], {
    env: environment,
    stdio: 'ignore',
  })
  const inside = ['--target', String(libvirtd.pid), '--mount', '--net', `--wd=${projectDir}`]
  const run: Run = (program, ...args) => command('nsenter', [...inside, program, ...args])
  undo.push(async () => {
    const daemons = ['virtlogd.pid', 'run/openvswitch/ovs-vswitchd.pid', 'run/openvswitch/ovsdb-server.pid']
    const gone = once(libvirtd, 'exit')
    libvirtd.kill('SIGTERM')
    await gone
    for (const file of daemons) await endOf(join(root, file))
  })
  const socket = `${root}/run/libvirt/libvirt-sock`
  const uri = `qemu+unix:///system?socket=${socket}`
  const virsh = (...args: string[]) => command('virsh', ['-q', '-c', uri, ...args])
  const answers = () =>
    eventually(() => attempt('virsh', ['-q', '-c', uri, 'version'], { timeoutMs: 20_000 }), {
      withinMs: 60_000,
      everyMs: 200,
      what: 'the second libvirtd answers',
    })
  await answers()
  undo.push(async () => {
    for (const domain of (await virsh('list', '--all', '--name')).split('\n').filter(Boolean)) {
      await attempt('virsh', ['-q', '-c', uri, 'destroy', domain])
      await attempt('virsh', ['-q', '-c', uri, 'undefine', domain])
    }
  })
  undo.push(unplug)
  await plug(run, libvirtd.pid as number)
  const [streamPort = 0] = await freePorts(1)
  const outward = [Number(new URL(muster.natsUrl).port), Number(muster.env['STREAM_PORT'])]
  undo.push(await connectLoopbacks(inside, { outward, inward: [streamPort] }))

  const uuid = randomUUID()
  const seedFile = join(root, 'state/agent.nk')
  await writeFile(seedFile, await enroll(muster, uuid), { mode: 0o600 })
  const settings = {
    ...environment,
    PATH: process.env['PATH'] ?? environment.PATH,
    NATS_URL: muster.natsUrl,
    STATE_DIR: join(root, 'state'),
    NATS_SEED_FILE: seedFile,
    SERVER_UUID: uuid,
    HYPERVISOR: 'libvirt',
    DOMAIN_TYPE: 'qemu',
    LIBVIRT_SOCKET: socket,
    STORAGE_POOL: 'muster',
    STORAGE_PATH: join(root, 'pool'),
    CONSOLE_DIR: join(root, 'consoles'),
    STREAM_PORT: String(streamPort),
  }
  let agent: ChildProcess | undefined
  const startAgent = () => {
    agent = spawn('nsenter', [...inside, process.execPath, '--import', 'tsx', 'hypervisor-agent/main.ts'], {
      env: settings,
      stdio: ['ignore', 'ignore', 'inherit'],
    })
  }
  const killAgent = async () => {
    if (!agent || agent.exitCode !== null || agent.signalCode !== null) return
    const gone = once(agent, 'exit')
    agent.kill('SIGKILL')
    await gone
  }
  startAgent()
  undo.push(killAgent)
  await eventually(async () => (await muster.request('GET', `/servers/${uuid}`)).status === 200, {
    withinMs: 60_000,
    what: 'the second node to register',
  })
  return {
    uuid,
    virsh,
    console: async domain => {
      const made = await GuestConsole.from(() => virsh('dumpxml', domain))
      undo.push(() => made.close())
      return made
    },
    ports: () => portsOf((...args) => run('ovs-vsctl', ...args)),
    restartAgent: async () => {
      await killAgent()
      startAgent()
    },
    agentPid: () => {
      if (agent?.pid === undefined) throw new Error('no agent runs')
      return agent.pid
    },
    crashLibvirtd: async () => {
      const pidFile = join(root, 'libvirtd.pid')
      const pid = (await runningPid(pidFile, 'libvirtd')) ?? 0
      process.kill(pid, 'SIGKILL')
      await eventually(async () => ![undefined, pid].includes(await runningPid(pidFile, 'libvirtd')), {
        withinMs: 20_000,
        what: 'the second libvirtd runs again',
      })
      await answers()
    },
    leftovers: async () => {
      const domains = (await virsh('list', '--all', '--name')).split('\n').filter(Boolean)
      return [...domains, ...(await readdir(join(root, 'pool')))]
    },
  }
}

async function makeFolders(): Promise<void> {
  for (const folder of [...own, 'pool', 'consoles', 'state']) {
    await mkdir(join(root, folder), { recursive: true, mode: 0o755 })
  }
  // Settings only: what is defined there is the first node's.
  for (const file of (await readdir('/etc/libvirt')).filter(name => name.endsWith('.conf'))) {
    await copyFile(join('/etc/libvirt', file), join(root, 'etc/libvirt', file))
  }
  await appendFile(join(root, 'etc/libvirt/libvirtd.conf'), `host_uuid = "${randomUUID()}"\n`)
  await writeFile(join(root, 'start.sh'), script)
}

/** Ends the daemon whose pid is in the file. */
async function endOf(pidFile: string): Promise<void> {
  const pid = Number(await readFile(pidFile, 'utf8').catch(() => ''))
  if (pid > 0) process.kill(pid)
}

type Run = (program: string, ...args: string[]) => Promise<string>

/** Lays the cable between the two bridges. */
async function plug(run: Run, pid: number): Promise<void> {
  const [here, there] = cable
  await command('ip', ['link', 'add', here, 'type', 'veth', 'peer', 'name', there, 'netns', String(pid)])
  await command('ovs-vsctl', ['--timeout=10', 'add-port', bridge, here])
  await run('ovs-vsctl', '--timeout=10', 'add-port', bridge, there)
  await command('ip', ['link', 'set', here, 'up'])
  await run('ip', 'link', 'set', there, 'up')
}

async function unplug(): Promise<void> {
  await attempt('ovs-vsctl', ['--timeout=10', '--if-exists', 'del-port', bridge, cable[0]])
  await attempt('ip', ['link', 'del', cable[0]])
}

/** `outward`: ports of the lab's loopback that are reached on the node's, and `inward` the other way round. Answers how to end it. */
async function connectLoopbacks(
  inside: string[],
  { outward, inward }: { outward: number[]; inward: number[] },
): Promise<() => Promise<void>> {
  const meeting = (port: number) => join(root, `${port}.sock`)
  const toSocket = (ports: number[]) => ports.map(port => ({ listen: port, connect: meeting(port) }))
  const fromSocket = (ports: number[]) => ports.map(port => ({ listen: meeting(port), connect: port }))
  const links = JSON.stringify([...toSocket(outward), ...fromSocket(inward)])
  const program = ['--import', 'tsx', new URL('relay.ts', import.meta.url).pathname, links]
  const there = spawn('nsenter', [...inside, process.execPath, ...program], { stdio: ['ignore', 'pipe', 'inherit'] })
  const exited = once(there, 'exit')
  const said = await Promise.race([once(there.stdout, 'data'), exited.then(() => undefined)])
  if (!said) throw new Error('the relay between the loopbacks did not start')
  const end = await relay([...fromSocket(outward), ...toSocket(inward)])
  return async () => {
    end()
    there.kill('SIGKILL')
    await exited
  }
}

/** As the commands say that `npm run enroll` prints; answers the seed. */
async function enroll(muster: Muster, uuid: string): Promise<string> {
  const printed = await command(process.execPath, ['--import', 'tsx', join(projectDir, 'scripts/enroll.ts'), uuid], {
    env: muster.env,
  })
  const seed = /^(S[A-Z0-9]{40,})$/m.exec(printed)?.[1]
  if (!seed) throw new Error(`no seed in ${printed}`)
  process.kill(Number(await readFile(join(muster.dataDir, 'nats/nats-server.pid'), 'utf8')), 'SIGHUP')
  return seed
}
