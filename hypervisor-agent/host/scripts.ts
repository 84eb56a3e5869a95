/**
 * Runs scripts that callers send, where the agent's configuration allows it at all: as one named user, for a limited time, keeping a
 * limited output. A script is a file that bash reads; nothing of it or of its arguments is ever part of a command line of ours.
 */
import { execFile, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { chmod, mkdir, rm, writeFile } from 'node:fs/promises'
import { userInfo } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { HypervisorError } from '../hypervisor.ts'

export interface Scripts {
  /** ExecuteNotAllowed where the configuration does not allow it. Rejects with the signal's reason, the script killed. */
  run(script: string, options: ScriptOptions): Promise<ScriptEnd>
}

export interface ScriptOptions {
  args?: readonly string[]
  /** The whole environment. */
  env?: Readonly<Record<string, string>>
  /** After this it is killed, ms. */
  timeoutMs: number
  signal: AbortSignal
}

export interface ScriptEnd {
  exitCode: number | null
  signal: string | null
  /** It was killed at its timeout. */
  isLate: boolean
  /** The first 64 KiB of each; what was cut off is said in a last line. */
  stdout: string
  stderr: string
}

export interface ScriptsOptions {
  /** For the scripts' files while they run. */
  stateDir: string
  /** Absent: nothing is run. */
  allowed?: { user?: string }
}

/** Most of each output that is kept, bytes. */
export const outputMaxBytes = 64 * 1024
/** Between asking a script to end and killing it, and for output still on its way after its end, ms. */
const graceMs = 2_000

/** Throws where the configured user does not exist. Removes what an agent that died has left. */
export async function openScripts({ stateDir, allowed }: ScriptsOptions): Promise<Scripts> {
  const folder = join(stateDir, 'scripts')
  await rm(folder, { recursive: true, force: true })
  if (!allowed) {
    return {
      run: async () => {
        throw new HypervisorError('ExecuteNotAllowed', 'this agent does not run scripts: EXECUTE=on allows it')
      },
    }
  }
  const way = await wayTo(allowed.user)
  // The named user may read a file whose name it was told, and cannot list the others.
  await mkdir(folder, { recursive: true })
  await chmod(folder, 0o711)

  return {
    run: async (script, { args = [], env = {}, timeoutMs, signal }) => {
      signal.throwIfAborted()
      const name = randomUUID()
      const file = join(folder, name)
      await writeFile(file, script)
      await chmod(file, 0o644)
      try {
        // Ended meanwhile it does not begin: nobody would hear of that end any more.
        signal.throwIfAborted()
        return await way.run({ name, bash: ['/bin/bash', file, ...args], env, timeoutMs, signal })
      } finally {
        await rm(file, { force: true })
      }
    },
  }
}

interface Work {
  name: string
  bash: readonly string[]
  env: Readonly<Record<string, string>>
  timeoutMs: number
  signal: AbortSignal
}

interface Way {
  run(work: Work): Promise<ScriptEnd>
}

const run = promisify(execFile)

/** How this process becomes that user: it is it; it is root; or systemd does it, if polkit lets the agent ask. */
async function wayTo(user: string | undefined): Promise<Way> {
  const self = userInfo()
  if (user === undefined || user === self.username) return { run: work => follow(work, work.bash, {}) }
  const [uid, gid] = await Promise.all(
    ['-u', '-g'].map(async what =>
      Number(
        (
          await run('id', [what, '--', user]).catch(cause => {
            throw new Error(`EXECUTE_USER=${user}: there is no such user on this machine`, { cause })
          })
        ).stdout,
      ),
    ),
  )
  if (self.uid === 0) return { run: work => follow(work, work.bash, { uid: uid as number, gid: gid as number }) }
  return { run: work => asService(work, user) }
}

/** As a transient unit: the way of an agent without rights. The unit is stopped where a process would be killed. */
function asService(work: Work, user: string): Promise<ScriptEnd> {
  const unit = `muster-script-${work.name}.service`
  const { env, ...rest } = work
  const variables = Object.entries(env).map(([name, value]) => `${name}=${value}`)
  const asked = ['--quiet', '--pipe', '--wait', '--collect', `--unit=${unit}`, `--uid=${user}`]
  // systemd would give a script that does not listen 90 s to end, and hold a reboot of the host up for as long.
  const limits = [`--property=RuntimeMaxSec=${Math.ceil(work.timeoutMs / 1000) + 5}`, '--property=TimeoutStopSec=5']
  const command = ['systemd-run', ...asked, ...limits, '--', '/usr/bin/env', '-i', ...variables, ...work.bash]
  const stop = () => void run('systemctl', ['stop', '--no-block', unit]).catch(() => {})
  return follow({ ...rest, env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' } }, command, { stop })
}

/** Starts it in a process group of its own and sees it to its end. */
function follow(
  { env, timeoutMs, signal }: Work,
  [program, ...args]: readonly string[],
  { stop, ...identity }: { uid?: number; gid?: number; stop?: () => void },
): Promise<ScriptEnd> {
  return new Promise((resolve, reject) => {
    const child = spawn(program ?? '', args, {
      ...identity,
      env: { ...env },
      cwd: '/',
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const outputs = { stdout: kept(child.stdout), stderr: kept(child.stderr) }
    const timers: NodeJS.Timeout[] = []
    let isLate = false
    const kill = () => {
      stop?.()
      signalGroup(child.pid, 'SIGTERM')
      timers.push(setTimeout(() => signalGroup(child.pid, 'SIGKILL'), graceMs))
    }
    timers.push(
      setTimeout(() => {
        isLate = true
        kill()
      }, timeoutMs),
    )
    signal.addEventListener('abort', kill, { once: true })
    const end = (settle: () => void) => {
      for (const timer of timers) clearTimeout(timer)
      signal.removeEventListener('abort', kill)
      settle()
    }
    child.once('error', cause =>
      end(() => reject(new HypervisorError('TaskFailed', `${program} cannot be started: ${cause.message}`, { cause }))),
    )
    const over = (exitCode: number | null, killedBy: string | null) =>
      end(() => {
        if (signal.aborted) reject(signal.reason)
        else resolve({ exitCode, signal: killedBy, isLate, stdout: outputs.stdout(), stderr: outputs.stderr() })
      })
    // What the script left running may hold its output open for good.
    child.once('exit', (code, killedBy) => timers.push(setTimeout(() => over(code, killedBy), graceMs)))
    child.once('close', over)
  })
}

function signalGroup(pid: number | undefined, name: NodeJS.Signals): void {
  try {
    if (pid !== undefined) process.kill(-pid, name)
  } catch {
    // It has ended, or runs as a user whom this one may not signal: systemd stops that one.
  }
}

/** Keeps the first bytes of a stream and reads on, so that the writer never waits. */
function kept(stream: NodeJS.ReadableStream): () => string {
  const parts: Buffer[] = []
  let size = 0
  let isCut = false
  stream.on('data', (chunk: Buffer) => {
    const room = outputMaxBytes - size
    if (chunk.length > room) isCut = true
    if (room <= 0) return
    const part = chunk.subarray(0, room)
    parts.push(part)
    size += part.length
  })
  return () => Buffer.concat(parts).toString('utf8') + (isCut ? `\n[cut off after ${outputMaxBytes} bytes]\n` : '')
}
