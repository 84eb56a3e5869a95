/** Starts Open vSwitch, virtlogd and libvirtd where they do not run yet, and stops again exactly those it started. */
import { spawn } from 'node:child_process'
import { mkdir, open, readFile, readlink } from 'node:fs/promises'
import { join } from 'node:path'
import { eventually } from '../../eventually.ts'
import { attempt, command } from './command.ts'

/** What this lab started; written to its state file, so that a later lab can stop what an aborted one left running. */
export interface Started {
  openvswitch: boolean
  virtlogdPid: number | null
  reaperPid: number | null
}

export const uri = 'qemu:///system'
const reaper = new URL('reaper.pl', import.meta.url).pathname
const ovsCtl = '/usr/share/openvswitch/scripts/ovs-ctl'

/** `logFolder` takes libvirtd's output. `note` is called after each start, so that nothing started is ever unrecorded. */
export async function startDaemons(started: Started, logFolder: string, note: () => Promise<void>): Promise<void> {
  if (!(await openvswitchAnswers())) {
    await command(ovsCtl, ['start', '--system-id=random'])
    started.openvswitch = true
    await note()
  }
  if ((await runningPid('/run/virtlogd.pid', 'virtlogd')) === undefined) {
    await command('virtlogd', ['-d'])
    started.virtlogdPid = await eventually(() => runningPid('/run/virtlogd.pid', 'virtlogd'), { what: 'virtlogd runs' })
    await note()
  }
  if (!(await libvirtAnswers())) {
    await mkdir(logFolder, { recursive: true })
    const log = await open(join(logFolder, 'libvirtd.log'), 'w')
    const child = spawn(reaper, ['libvirtd'], {
      detached: true,
      stdio: ['ignore', log.fd, log.fd],
      env: daemonEnvironment(),
    })
    child.unref()
    await log.close()
    started.reaperPid = child.pid ?? null
    await note()
    await libvirtReady()
  }
}

/** Stops what `started` names; what runs for other reasons stays. */
export async function stopDaemons(started: Started): Promise<void> {
  await end(started.reaperPid, 'reaper.pl')
  await end(started.virtlogdPid, 'virtlogd')
  if (started.openvswitch) await command(ovsCtl, ['stop'])
}

/** The first answer takes 3 to 5 s: libvirtd probes QEMU once. */
export async function libvirtReady(withinMs = 60_000): Promise<void> {
  await eventually(libvirtAnswers, { withinMs, everyMs: 100, what: 'libvirtd answers' })
}

/** The pid in a pid file if it is that of a running `program`. */
export async function runningPid(pidFile: string, program: string): Promise<number | undefined> {
  const pid = Number(await readFile(pidFile, 'utf8').catch(() => ''))
  return pid > 0 && (await isProgram(pid, program)) ? pid : undefined
}

async function openvswitchAnswers(): Promise<boolean> {
  return (await attempt('ovs-vsctl', ['--timeout=5', 'show'])) !== undefined
}

async function libvirtAnswers(): Promise<boolean> {
  return (await attempt('virsh', ['-q', '-c', uri, 'version'], { timeoutMs: 30_000 })) !== undefined
}

// A pid alone could be somebody else's by now.
async function isProgram(pid: number, program: string): Promise<boolean> {
  const executable = await readlink(`/proc/${pid}/exe`).catch(() => '')
  const line = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
  return executable.endsWith(`/${program}`) || line.split('\0').some(word => word.endsWith(`/${program}`))
}

async function end(pid: number | null, program: string): Promise<void> {
  if (pid === null || !(await isProgram(pid, program))) return
  process.kill(pid, 'SIGTERM')
  await eventually(async () => !(await isProgram(pid, program)), { withinMs: 20_000, what: `${program} (${pid}) ends` })
}

function daemonEnvironment(): NodeJS.ProcessEnv {
  return { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' }
}
