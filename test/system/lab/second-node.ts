/**
 * A second compute node on the lab's machine: another libvirtd with its own state, configuration and host uuid in a mount namespace of its
 * own, and an agent that drives it. Network namespace and Open vSwitch are the lab's, so its guests are on the same bridge.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { appendFile, copyFile, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { eventually } from '../../eventually.ts'
import { attempt, command } from './command.ts'
import { GuestConsole } from './console.ts'
import type { Muster } from './muster.ts'

export interface SecondNode {
  uuid: string
  virsh(...args: string[]): Promise<string>
  console(domain: string): Promise<GuestConsole>
  /** kill -9, and another life over the same state. */
  restartAgent(): Promise<void>
  stop(): Promise<void>
}

const root = '/var/lib/muster-lab-second'
const own = ['run/libvirt', 'var/lib/libvirt', 'var/cache/libvirt', 'var/log/libvirt', 'etc/libvirt']
const reaper = new URL('reaper.pl', import.meta.url).pathname
const projectDir = new URL('../../..', import.meta.url).pathname

/** In the namespace: its folders stand where libvirt looks for its own. */
const script = `set -e
for folder in ${own.join(' ')}; do mount --bind "${root}/$folder" "/$folder"; done
virtlogd -d -p "${root}/virtlogd.pid"
exec "${reaper}" libvirtd -p "${root}/libvirtd.pid"
`

export async function startSecondNode(muster: Muster): Promise<SecondNode> {
  await rm(root, { recursive: true, force: true })
  for (const folder of [...own, 'pool', 'consoles', 'state']) {
    await mkdir(join(root, folder), { recursive: true, mode: 0o755 })
  }
  // Settings only: what is defined there is the first node's.
  for (const file of (await readdir('/etc/libvirt')).filter(name => name.endsWith('.conf'))) {
    await copyFile(join('/etc/libvirt', file), join(root, 'etc/libvirt', file))
  }
  await appendFile(join(root, 'etc/libvirt/libvirtd.conf'), `host_uuid = "${randomUUID()}"\n`)
  await writeFile(join(root, 'start.sh'), script)
  const environment = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' }
  const libvirtd = spawn('unshare', ['--mount', '--propagation', 'private', 'sh', join(root, 'start.sh')], {
    env: environment,
    stdio: 'ignore',
  })
  const socket = `${root}/run/libvirt/libvirt-sock`
  const uri = `qemu+unix:///system?socket=${socket}`
  const virsh = (...args: string[]) => command('virsh', ['-q', '-c', uri, ...args])
  await eventually(() => attempt('virsh', ['-q', '-c', uri, 'version'], { timeoutMs: 20_000 }), {
    withinMs: 60_000,
    everyMs: 200,
    what: 'the second libvirtd answers',
  })
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
  }
  let agent: ChildProcess | undefined
  const startAgent = () => {
    agent = spawn(process.execPath, ['--import', 'tsx', join(projectDir, 'hypervisor-agent/main.ts')], {
      cwd: projectDir,
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
  await eventually(async () => (await muster.request('GET', `/servers/${uuid}`)).status === 200, {
    withinMs: 60_000,
    what: 'the second node to register',
  })
  const consoles: GuestConsole[] = []
  return {
    uuid,
    virsh,
    console: async domain => {
      const made = await GuestConsole.from(() => virsh('dumpxml', domain))
      consoles.push(made)
      return made
    },
    restartAgent: async () => {
      await killAgent()
      startAgent()
    },
    stop: async () => {
      for (const each of consoles) each.close()
      await killAgent()
      for (const domain of (await virsh('list', '--all', '--name')).split('\n').filter(Boolean)) {
        await attempt('virsh', ['-q', '-c', uri, 'destroy', domain])
        await attempt('virsh', ['-q', '-c', uri, 'undefine', domain])
      }
      const gone = once(libvirtd, 'exit')
      libvirtd.kill('SIGTERM')
      await gone
      process.kill(Number(await readFile(join(root, 'virtlogd.pid'), 'utf8')))
      await rm(root, { recursive: true, force: true })
    },
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
