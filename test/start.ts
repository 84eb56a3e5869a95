/** Runs `npm start`'s script for a test: on ports and in folders of its own, never meeting the machine's NATS or libvirt. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { projectDir } from '../scripts/config.ts'
import { eventually } from './eventually.ts'

export interface StartRun {
  /** All that was printed, both streams. */
  output(): string
  stderr(): string
  child: ChildProcess
  /** Waits for a text in the output; fails at once, with the output, when the process ends before. */
  says(text: string | RegExp, withinMs?: number): Promise<void>
  /** Exit code (or signal name), once it has ended by itself. */
  ended(withinMs?: number): Promise<number | string>
  /** Sends a signal and waits for the end. */
  stop(signal?: NodeJS.Signals): Promise<number | string>
}

export interface StartOptions {
  /** A user id to run as; needs root. */
  uid?: number
  command?: [string, ...string[]]
}

/** Starts with exactly this environment beside PATH and HOME. */
export function runStart(env: NodeJS.ProcessEnv, { uid, command }: StartOptions = {}): StartRun {
  const [program, ...args] = command ?? [process.execPath, '--import', 'tsx', join(projectDir, 'scripts/start.ts')]
  const { PATH, HOME, NATS_SERVER } = process.env
  const child = spawn(program, args, {
    cwd: projectDir,
    env: { PATH, HOME, ...(NATS_SERVER ? { NATS_SERVER } : {}), ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    ...(uid === undefined ? {} : { uid, gid: uid }),
  })
  const said = { stdout: '', stderr: '' }
  child.stdout.on('data', chunk => {
    said.stdout += chunk
  })
  child.stderr.on('data', chunk => {
    said.stderr += chunk
  })
  const closed = once(child, 'close')
  const over = () => child.exitCode ?? child.signalCode
  const output = () => said.stdout + said.stderr
  const has = (text: string | RegExp) => (typeof text === 'string' ? output().includes(text) : text.test(output()))
  const ended = async (withinMs = 20_000) => {
    await eventually(() => over() !== null, { withinMs, what: `the end of start (so far: ${output()})` })
    await closed
    return over() ?? 'unknown'
  }
  return {
    child,
    output,
    stderr: () => said.stderr,
    ended,
    says: async (text, withinMs = 60_000) => {
      const found = await eventually(() => (has(text) ? 'said' : over() === null ? '' : 'over'), {
        withinMs,
        what: `${text} in the output (so far: ${output()})`,
      }).catch((error: Error) => error)
      if (found !== 'said') throw new Error(`${text} was not said:\n${output()}`)
    },
    stop: async (signal = 'SIGTERM') => {
      if (over() === null) child.kill(signal)
      return ended(40_000)
    },
  }
}
