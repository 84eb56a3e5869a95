/**
 * The host of a real node: systemd for its name and its reboot, which polkit lets the agent's user ask for; the kernel for which
 * boot this is. In a container the kernel's boot time is the machine's, so the node began when its systemd did.
 */
import { execFile } from 'node:child_process'
import { access, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import * as v from 'valibot'
import type { NodeCheck } from '../../actors/contract/tasks/server.ts'
import { readIfThere, writeDurable } from '../durable-file.ts'
import { HypervisorError } from '../hypervisor.ts'
import type { HostControl } from './host-control.ts'

export interface LinuxOptions {
  /** Remembers when the present boot began. */
  stateDir: string
  /** Program and arguments that reboot the host; default `systemctl reboot`. */
  rebootCommand?: readonly string[]
  /** How long the host may take to end this process after an order of a reboot that was ended by a signal, ms. */
  goneWithinMs?: number
  /** How the host is asked and told; tests put their own here. */
  sources?: HostSources
}

export interface HostSources {
  run(program: string, args: readonly string[]): Promise<string>
  read(path: string): Promise<string>
  write(path: string, text: string): Promise<void>
  exists(path: string): Promise<boolean>
}

const defaultReboot = ['systemctl', 'reboot'] as const

const systemdManager = [
  'get-property',
  'org.freedesktop.systemd1',
  '/org/freedesktop/systemd1',
  'org.freedesktop.systemd1.Manager',
]
const Boot = v.object({ id: v.string(), time_s: v.number() })

export function linuxHost({
  stateDir,
  rebootCommand = defaultReboot,
  goneWithinMs = 30_000,
  sources = host,
}: LinuxOptions): HostControl {
  const hasSystemd = () => sources.exists('/run/systemd/system')
  const file = join(stateDir, 'boot.json')
  let boot: v.InferOutput<typeof Boot> | undefined
  let looking: Promise<v.InferOutput<typeof Boot>> | undefined

  const isContainer = () => sources.exists('/run/systemd/container')

  /** A time that systemd keeps, in microseconds; undefined where it cannot be asked. */
  async function ofSystemd(property: string): Promise<number | undefined> {
    const said = await sources.run('busctl', [...systemdManager, property]).catch(() => '')
    const us = /^t (\d+)$/m.exec(said)?.[1]
    return us === undefined ? undefined : Number(us)
  }

  /** In a container the kernel's boot is the machine's, so what systemd's monotonic clock said at its start tells boots apart. */
  async function bootId(): Promise<string> {
    const kernel = (await sources.read('/proc/sys/kernel/random/boot_id')).trim()
    return (await isContainer()) ? `${kernel}:${(await ofSystemd('UserspaceTimestampMonotonic')) ?? ''}` : kernel
  }

  /** Looked up once a boot and kept: a clock that is set later must not look like a reboot. One at a time: it is one file. */
  async function bootTimeS(): Promise<number> {
    const id = await bootId()
    if (boot?.id === id) return boot.time_s
    looking ??= lookUp(id).finally(() => {
      looking = undefined
    })
    return (await looking).time_s
  }

  async function lookUp(id: string): Promise<v.InferOutput<typeof Boot>> {
    const known = await kept(file)
    const now = known?.id === id ? known : { id, time_s: await readBootTimeS() }
    if (now !== known) await writeDurable(file, `${JSON.stringify(now)}\n`)
    boot = now
    return now
  }

  async function readBootTimeS(): Promise<number> {
    const kernel = Number(/^btime (\d+)$/m.exec(await sources.read('/proc/stat'))?.[1] ?? 0)
    if (!(await isContainer())) return kernel
    const us = await ofSystemd('UserspaceTimestamp')
    return us === undefined ? kernel : Math.floor(us / 1e6)
  }

  return {
    bootId,
    bootTimeS,
    setHostname: async hostname => {
      try {
        if (await hasSystemd()) {
          await sources.run('hostnamectl', ['set-hostname', '--static', '--', hostname])
        } else {
          await sources.write('/etc/hostname', `${hostname}\n`)
          await sources.run('hostname', ['--', hostname])
        }
      } catch (cause) {
        throw new HypervisorError('TaskFailed', `the host's name cannot be set: ${saidBy(cause)}`, { cause })
      }
    },
    reboot: async () => {
      const [program = '', ...args] = rebootCommand
      try {
        await sources.run(program, args)
      } catch (cause) {
        // The reboot may be quicker than its order's answer and end the order with everything else of the agent: then this ends here.
        if ((cause as { signal?: string | null }).signal)
          await new Promise(resolve => setTimeout(resolve, goneWithinMs))
        throw new HypervisorError('TaskFailed', `${rebootCommand.join(' ')}: ${saidBy(cause)}`, { cause })
      }
    },
    checks: async (): Promise<NodeCheck[]> => {
      const systemd = await hasSystemd()
      const own = rebootCommand !== defaultReboot
      return [
        {
          name: 'reboot',
          ok: systemd || own,
          message: systemd || own ? rebootCommand.join(' ') : 'systemd does not run here: set REBOOT_COMMAND',
        },
      ]
    },
  }
}

const run = promisify(execFile)
const host: HostSources = {
  run: async (program, args) => (await run(program, [...args], { timeout: 30_000 })).stdout,
  read: path => readFile(path, 'utf8'),
  write: (path, text) => writeFile(path, text),
  exists: path =>
    access(path).then(
      () => true,
      () => false,
    ),
}

/** What was kept of the boot before; a damaged file is looked up anew. */
async function kept(file: string): Promise<v.InferOutput<typeof Boot> | undefined> {
  try {
    return v.parse(Boot, JSON.parse((await readIfThere(file)) ?? 'null'))
  } catch {
    return undefined
  }
}

/** The last line a program printed before it failed. */
function saidBy(error: unknown): string {
  const { stderr, message } = error as { stderr?: string; message?: string }
  return stderr?.trim().split('\n').at(-1) || String(message)
}
