/**
 * A compute node with systemd as pid 1, to test units for real: a Debian of the same release with libvirt and QEMU, built
 * once into `.cache/lab` and booted from a copy by systemd-nspawn in namespaces of its own. It has no network but loopback
 * unless asked for the host's, and guests cannot start in it (their cgroups are read-only there).
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { chmod, copyFile, mkdir, open, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { eventually } from '../../eventually.ts'
import { type CommandOptions, command } from './command.ts'
import { cacheFolder } from './guest-kernel.ts'

export interface SystemdNode {
  /** Its root folder as seen from outside. */
  root: string
  /** Runs a program inside as root and answers its output; throws when it fails. */
  run(program: string, args?: readonly string[], options?: CommandOptions): Promise<string>
  /** Everything it printed while booting. */
  bootLog(): Promise<string>
  /** How often it was booted. */
  boots(): number
  stop(): Promise<void>
}

export interface SystemdNodeOptions {
  /** `host` shares the host's network, so that servers on its 127.0.0.1 can be reached. */
  network: 'private' | 'host'
  /** Folders of the host that it shares. */
  binds?: readonly string[]
}

// Installed by apt after debootstrap, whose own resolver does not see through alternatives like `default-logind | logind`.
const packages = [
  'systemd-sysv',
  'dbus',
  'polkitd',
  'procps',
  'libvirt-daemon-system',
  'libvirt-clients',
  'qemu-system-x86',
]

/** Boots a node and waits until systemd says running: 8 s, and about 80 s more the first time for building its Debian. */
export async function startSystemdNode({ network, binds = [] }: SystemdNodeOptions): Promise<SystemdNode> {
  const pristine = await buildDebian()
  const root = join(cacheFolder, `node-${process.pid}`)
  await command('cp', ['-a', '--reflink=auto', pristine, root], { timeoutMs: 120_000 })
  await copyFile(process.execPath, join(root, 'usr/bin/node'))
  await chmod(join(root, 'usr/bin/node'), 0o755)
  // What hangs at its stop holds a reboot up for so long, instead of for 90 s.
  await mkdir(join(root, 'etc/systemd/system.conf.d'), { recursive: true })
  await writeFile(join(root, 'etc/systemd/system.conf.d/lab.conf'), '[Manager]\nDefaultTimeoutStopSec=20s\n')
  const logFile = `${root}.log`
  const log = await open(logFile, 'w')
  const env = { ...process.env, ...(await cgroupVersion()) }
  let outer: ChildProcess
  let boots = 0
  let isStopping = false
  const ended = new Promise<void>(resolve => {
    const boot = () => {
      boots += 1
      outer = spawn('unshare', [...unshared, 'systemd-nspawn', ...nspawnArguments(root, network, binds)], {
        stdio: ['ignore', log.fd, log.fd],
        env,
      })
      outer.once('exit', code => {
        if (code === rebooted && !isStopping) boot()
        else resolve()
      })
    }
    boot()
  })
  const bootLog = () => readFile(logFile, 'utf8')
  const stop = async () => {
    isStopping = true
    // unshare takes its whole pid namespace with it, and with that everything inside.
    outer.kill('SIGKILL')
    await ended
    await log.close()
    await rm(root, { recursive: true, force: true })
    await rm(logFile, { force: true })
    await rm(join(cacheFolder, `.#node-${process.pid}.lck`), { force: true })
  }
  /** Its pid 1 as it is now. */
  const init = () => eventually(() => initOf(outer.pid ?? 0), { withinMs: 20_000, what: 'systemd runs as pid 1' })
  const run: SystemdNode['run'] = async (program, args = [], options = {}) =>
    command('nsenter', ['-t', String(await init()), '-a', program, ...args], { timeoutMs: 60_000, ...options })
  try {
    await eventually(async () => (await run('systemctl', ['is-system-running']).catch(() => '')).trim() === 'running', {
      withinMs: 90_000,
      everyMs: 250,
      what: 'systemd is running',
    })
    return { root, run, bootLog, boots: () => boots, stop }
  } catch (error) {
    const said = (await bootLog()).slice(-2_000)
    await stop()
    throw new Error(`the node did not boot: ${said}`, { cause: error })
  }
}

/** How systemd-nspawn ends where it keeps no unit of its own and the node reboots: whoever started it starts it again. */
const rebooted = 133

const unshared = ['--mount', '--pid', '--fork', '--mount-proc', '--kill-child']

function nspawnArguments(root: string, network: SystemdNodeOptions['network'], binds: readonly string[]): string[] {
  const wanted = ['--register=no', '--keep-unit', '--quiet', '--machine=muster-node', '--resolv-conf=off', '-D', root]
  const shared = binds.map(folder => `--bind=${folder}`)
  return [...wanted, ...(network === 'private' ? ['--private-network'] : []), ...shared, '--boot']
}

// Without the unified hierarchy on the host, systemd inside must be told not to look for it.
async function cgroupVersion(): Promise<NodeJS.ProcessEnv> {
  return existsSync('/sys/fs/cgroup/cgroup.controllers') ? {} : { SYSTEMD_NSPAWN_UNIFIED_HIERARCHY: '0' }
}

// unshare > systemd-nspawn > systemd: the grandchild is the node's pid 1 once it has become systemd.
async function initOf(outerPid: number): Promise<number | undefined> {
  const childOf = async (pid: number) =>
    Number((await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8').catch(() => '')).trim().split(' ')[0])
  const nspawn = await childOf(outerPid)
  const init = nspawn ? await childOf(nspawn) : 0
  const name = init ? await readFile(`/proc/${init}/comm`, 'utf8').catch(() => '') : ''
  return name.trim() === 'systemd' ? init : undefined
}

/** The root folder all nodes are copied from; minutes the first time on a busy machine, then nothing. */
export async function buildDebian(): Promise<string> {
  const release = (await readFile('/etc/os-release', 'utf8')).match(/^VERSION_CODENAME=(\w+)/m)?.[1] ?? ''
  const folder = join(cacheFolder, `debian-${release}`)
  if (existsSync(folder)) return folder
  const fresh = `${folder}.${process.pid}`
  await mkdir(cacheFolder, { recursive: true })
  try {
    const mirror = await mirrorOf(release)
    await command('debootstrap', ['--variant=minbase', release, fresh, mirror], { timeoutMs: 600_000 })
    const policy = join(fresh, 'usr/sbin/policy-rc.d')
    await writeFile(policy, '#!/bin/sh\nexit 101\n', { mode: 0o755 })
    await command('chroot', [fresh, 'apt-get', '-q', '-y', 'install', '--no-install-recommends', ...packages], {
      timeoutMs: 600_000,
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive', PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
    })
    await command('chroot', [fresh, 'apt-get', 'clean'])
    await rm(policy)
    await rename(fresh, folder)
  } finally {
    await rm(fresh, { recursive: true, force: true })
  }
  return folder
}

/** The mirror this machine itself installs from. */
async function mirrorOf(release: string): Promise<string> {
  const lines = (await command('apt-get', ['indextargets', '--format', '$(REPO_URI) $(CODENAME) $(COMPONENT)'])).split(
    '\n',
  )
  const mirror = lines.find(line => line.split(' ')[1] === release && line.endsWith(' main'))?.split(' ')[0]
  if (!mirror) throw new Error(`apt's sources name no mirror for ${release}`)
  return mirror
}
