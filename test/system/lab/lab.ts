/**
 * A hypervisor for the system tests on one machine, without systemd and without KVM: Open vSwitch with a userspace bridge,
 * virtlogd, libvirtd and a storage pool with the lab's bootable image. Stopping it removes everything that was made since
 * the start, whoever made it; a lab that was killed is cleared away by the next one.
 */
import { existsSync } from 'node:fs'
import { chmod, chown, mkdir, readFile, readlink, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { eventually } from '../../eventually.ts'
import { attempt, command } from './command.ts'
import { GuestConsole } from './console.ts'
import { libvirtReady, runningPid, type Started, startDaemons, stopDaemons, uri } from './daemons.ts'
import { guest } from './guest.ts'

export interface Lab {
  uri: string
  /** Removed with the lab; QEMU's own user can walk to it, as to what agents keep for it. */
  folder: string
  bridge: string
  pool: string
  /** Name of the bootable volume in the pool (qcow2); see guest.ts for what it does. */
  image: string
  virsh(...args: string[]): Promise<string>
  /** What exists now and did not when the lab started; the pool and the image are not counted. */
  leftovers(): Promise<string[]>
  ports(): Promise<Port[]>
  console(domain: string): Promise<GuestConsole>
  qemuPid(domain: string): Promise<number>
  /** Down until startLibvirtd(); guests go on. Only where the lab started libvirtd itself. */
  stopLibvirtd(): Promise<void>
  startLibvirtd(): Promise<void>
  /** libvirtd is killed without a chance to say goodbye, and started again. */
  crashLibvirtd(): Promise<void>
  /** Twice equals once. */
  stop(): Promise<void>
}

/** A port of the bridge, with the VLAN it is an access port of (null: none). */
export interface Port {
  name: string
  tag: number | null
}

/** What libvirt and the bridge hold, by name. */
interface World {
  domains: string[]
  networks: string[]
  pools: string[]
  volumes: string[]
  ports: string[]
}

interface State {
  ownerPid: number
  started: Started
  madeBridge: boolean
  kvm: { mode: number; gid: number } | null
  before: World | null
}

const bridge = 'br0'
const pool = 'muster'
const image = 'lab-guest'
const folder = '/var/lib/libvirt/muster-lab'
const runFolder = '/run/muster-lab'
const stateFile = join(runFolder, 'state.json')
const packagesScript = new URL('packages.sh', import.meta.url).pathname

/** Why the lab cannot run here, in words for people that begin with `no lab:`; undefined where it can. */
export async function whyNoLab(): Promise<string | undefined> {
  if (process.platform !== 'linux' || process.arch !== 'x64') return 'no lab: needs Linux on x86-64'
  if (process.getuid?.() !== 0) return 'no lab: needs root'
  if (!existsSync('/usr/bin/dpkg-query')) return 'no lab: needs Debian'
  const missing = (await command('sh', [packagesScript, '--missing'])).trim()
  return missing ? `no lab: sh test/system/lab/packages.sh installs what is missing: ${missing}` : undefined
}

/** Starts it, or throws; about 6 s when everything is built, 15 s the first time. */
export async function startLab(): Promise<Lab> {
  const reason = await whyNoLab()
  if (reason) throw new Error(reason)
  const files = await guest()
  const state: State = {
    ownerPid: process.pid,
    started: { openvswitch: false, virtlogdPid: null, reaperPid: null },
    madeBridge: false,
    kvm: null,
    before: null,
  }
  const note = () => writeState(state)
  await claim(state)
  try {
    state.kvm = await openKvm()
    await startDaemons(state.started, runFolder, note)
    if ((await attempt('ovs-vsctl', ['--timeout=5', 'br-exists', bridge])) === undefined) {
      state.madeBridge = true
      await note()
      await command('ovs-vsctl', [
        '--timeout=10',
        'add-br',
        bridge,
        '--',
        'set',
        'bridge',
        bridge,
        'datapath_type=netdev',
      ])
    }
    await command('ip', ['link', 'set', bridge, 'up'])
    state.before = await world()
    await note()
    await makePool(files.qcow2)
  } catch (error) {
    await clear(state)
    throw error
  }
  return lab(state)
}

function lab(state: State): Lab {
  const consoles: GuestConsole[] = []
  let ended = false
  const signalReaper = (signal: NodeJS.Signals) => {
    if (state.started.reaperPid === null) throw new Error('libvirtd was running before the lab: it is not stopped here')
    process.kill(state.started.reaperPid, signal)
  }
  const stopped = async (pid: number) => {
    await eventually(async () => (await runningPid('/run/libvirtd.pid', 'libvirtd')) !== pid, { withinMs: 20_000 })
  }
  return {
    uri,
    folder,
    bridge,
    pool,
    image,
    virsh,
    leftovers: async () =>
      difference(await world(), state.before ?? (await world())).filter(name => name !== `pool ${pool}`),
    ports,
    async console(domain) {
      const made = await GuestConsole.from(() => virsh('dumpxml', domain))
      consoles.push(made)
      return made
    },
    async qemuPid(domain) {
      const pid = await runningPid(`/run/libvirt/qemu/${domain}.pid`, 'qemu-system-x86_64')
      if (pid === undefined) throw new Error(`${domain} has no running QEMU`)
      return pid
    },
    async stopLibvirtd() {
      const pid = await libvirtdPid()
      signalReaper('SIGUSR1')
      await stopped(pid)
    },
    async startLibvirtd() {
      signalReaper('SIGUSR2')
      await libvirtReady()
    },
    async crashLibvirtd() {
      const pid = await libvirtdPid()
      process.kill(pid, 'SIGKILL')
      await stopped(pid)
      await libvirtReady()
    },
    async stop() {
      if (ended) return
      ended = true
      for (const each of consoles) each.close()
      await clear(state)
    },
  }
}

async function virsh(...args: string[]): Promise<string> {
  return command('virsh', ['-q', '-c', uri, ...args])
}

const ports = () => portsOf((...args) => command('ovs-vsctl', args))

/** `vsctl` asks the Open vSwitch whose they are. */
export async function portsOf(vsctl: (...args: string[]) => Promise<string>): Promise<Port[]> {
  const text = await vsctl('--timeout=10', '--format=json', '--columns=name,tag', 'list', 'port')
  const rows = (JSON.parse(text) as { data: [string, number | unknown[]][] }).data
  return rows
    .map(([name, tag]) => ({ name, tag: typeof tag === 'number' ? tag : null }))
    .filter(port => port.name !== bridge)
}

async function libvirtdPid(): Promise<number> {
  return eventually(() => runningPid('/run/libvirtd.pid', 'libvirtd'), { what: 'libvirtd runs' })
}

async function world(): Promise<World> {
  const lines = async (...args: string[]) =>
    (await virsh(...args))
      .split('\n')
      .map(line => line.trim())
      .filter(Boolean)
  const pools = await lines('pool-list', '--all', '--name')
  const volumes: string[] = []
  for (const name of pools) {
    await attempt('virsh', ['-q', '-c', uri, 'pool-refresh', name])
    const listed = (await attempt('virsh', ['-q', '-c', uri, 'vol-list', name])) ?? ''
    for (const line of listed.split('\n')) {
      const volume = line.trim().split(/\s{2,}/)[0]
      if (volume && !(name === pool && volume === image)) volumes.push(`${name}/${volume}`)
    }
  }
  return {
    domains: await lines('list', '--all', '--name'),
    networks: await lines('net-list', '--all', '--name'),
    pools,
    volumes,
    ports: (await ports()).map(port => port.name),
  }
}

function difference(now: World, before: World): string[] {
  const kinds = ['domains', 'networks', 'pools', 'volumes', 'ports'] as const
  return kinds.flatMap(kind =>
    now[kind].filter(name => !before[kind].includes(name)).map(name => `${kind.slice(0, -1)} ${name}`),
  )
}

// libvirt-qemu must be able to walk to the disks, so the pool is not below a checkout that may lie in a private home.
async function makePool(qcow2: string): Promise<void> {
  const target = join(folder, 'pool')
  await mkdir(target, { recursive: true, mode: 0o755 })
  await mkdir(join(folder, 'consoles'), { mode: 0o755 })
  await virsh('pool-define-as', pool, 'dir', '--target', target)
  await virsh('pool-start', pool)
  const bytes = String((await stat(qcow2)).size)
  await virsh('vol-create-as', pool, image, bytes, '--format', 'qcow2')
  await virsh('vol-upload', image, qcow2, '--pool', pool)
  await virsh('pool-refresh', pool)
}

// Where no udev runs, /dev/kvm is 0600: libvirt then probes QEMU again at every use, and a define takes over a minute.
async function openKvm(): Promise<State['kvm']> {
  const found = await stat('/dev/kvm').catch(() => undefined)
  const group = (await attempt('getent', ['group', 'kvm']))?.split(':')[2]
  if (!found || !group || (found.mode & 0o060) === 0o060) return null
  await chown('/dev/kvm', found.uid, Number(group))
  await chmod('/dev/kvm', 0o660)
  return { mode: found.mode & 0o777, gid: found.gid }
}

/**
 * Takes this machine for one lab: waits for that of another living process, and clears away that of a dead one. The file is
 * made by exactly one process and taken over by exactly one.
 */
async function claim(state: State): Promise<void> {
  await mkdir(runFolder, { recursive: true })
  await eventually(
    async () => {
      await clearAborted()
      await mkdir(runFolder, { recursive: true })
      await writeFile(stateFile, JSON.stringify(state), { flag: 'wx' })
      return true
    },
    { withinMs: 80_000, everyMs: 250, what: `the lab of another process to end (see ${stateFile})` },
  )
}

async function clearAborted(): Promise<void> {
  const state = await readFile(stateFile, 'utf8').then(
    text => JSON.parse(text) as State,
    () => undefined,
  )
  if (!state) return
  const owner = await readlink(`/proc/${state.ownerPid}/exe`).catch(() => '')
  if (owner === process.execPath) throw new Error(`process ${state.ownerPid} has its lab here`)
  const taken = `${stateFile}.${process.pid}`
  await rename(stateFile, taken)
  try {
    await clear(state)
  } catch (error) {
    await rename(taken, stateFile)
    throw error
  }
}

async function clear(state: State): Promise<void> {
  if (state.before) {
    if (state.started.reaperPid !== null) await revive(state.started.reaperPid)
    await remove(state.before)
  }
  if (state.madeBridge) await command('ovs-vsctl', ['--timeout=10', '--if-exists', 'del-br', bridge])
  await stopDaemons(state.started)
  if (state.kvm) {
    await chmod('/dev/kvm', state.kvm.mode)
    await chown('/dev/kvm', 0, state.kvm.gid)
  }
  await rm(folder, { recursive: true, force: true })
  await rm(runFolder, { recursive: true, force: true })
}

// Clean-up needs libvirt: a libvirtd that a test left stopped is started again.
async function revive(reaperPid: number): Promise<void> {
  try {
    process.kill(reaperPid, 'SIGUSR2')
    await libvirtReady()
  } catch (error) {
    throw new Error('libvirtd does not come back for the clean-up of the lab', { cause: error })
  }
}

async function remove(before: World): Promise<void> {
  const now = await world()
  const made = (kind: keyof World) => now[kind].filter(name => !before[kind].includes(name))
  const quietly = (...args: string[]) => attempt('virsh', ['-q', '-c', uri, ...args])
  for (const domain of made('domains')) {
    await quietly('destroy', domain)
    await quietly('undefine', domain, '--managed-save', '--snapshots-metadata', '--nvram')
  }
  for (const network of made('networks')) {
    await quietly('net-destroy', network)
    await quietly('net-undefine', network)
  }
  for (const volume of made('volumes')) {
    const [inPool = '', ...name] = volume.split('/')
    await quietly('vol-delete', name.join('/'), '--pool', inPool)
  }
  for (const name of made('pools')) {
    await quietly('pool-destroy', name)
    await quietly('pool-undefine', name)
  }
  for (const port of made('ports'))
    await attempt('ovs-vsctl', ['--timeout=10', '--if-exists', 'del-port', bridge, port])
  const left = difference(await world(), before)
  if (left.length > 0) throw new Error(`the lab could not remove: ${left.join(', ')}`)
}

async function writeState(state: State): Promise<void> {
  await writeFile(stateFile, JSON.stringify(state))
}
