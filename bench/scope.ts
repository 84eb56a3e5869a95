/**
 * What one measure has started: every process by its pid, every connection, every folder. Ended in reverse order, also when the
 * measure fails or the run is interrupted.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { projectDir } from '../scripts/config.ts'
import type { Program } from '../scripts/supervise.ts'
import { connectNats, type NatsConnection } from '../services/nats/connect.ts'
import { type NatsOptions, startNats, type TestNats } from '../test/nats.ts'

export interface Running {
  pid: number
  /** Fails with what it printed when the process has ended. */
  check(): void
  /** The end of what it printed. */
  said(): string
  stop(): Promise<void>
}

export interface Scope {
  /** Tells whoever waits what is going on. */
  say: (text: string) => void
  /** A twentieth of every load and time: shows that the measure runs, not how fast. */
  short: boolean
  nats(options?: NatsOptions): Promise<TestNats>
  connect(nats: TestNats): Promise<NatsConnection>
  spawn(program: Program): Running
  /** Runs when the measure has ended, before what was deferred earlier. */
  defer(step: () => unknown): void
  close(): Promise<void>
}

const graceMs = 10_000

export function openScope(options: { say: (text: string) => void; short: boolean }): Scope {
  const steps: (() => unknown)[] = []
  let closed = false
  /** Also what is still starting when the scope closes is ended. */
  const held = async <T>(starting: Promise<T>, end: (started: T) => unknown): Promise<T> => {
    if (closed) throw new Error('the run is being stopped')
    steps.push(() => starting.then(end, () => {}))
    return starting
  }
  return {
    ...options,
    defer: step => void steps.push(step),
    nats: natsOptions => held(startNats(natsOptions), nats => nats.stop()),
    connect: nats =>
      held(connectNats({ servers: nats.urls, name: 'bench', inboxOwner: 'admin' }), connection => connection.close()),
    spawn: program => {
      if (closed) throw new Error('the run is being stopped')
      const running = start(program)
      steps.push(() => running.stop())
      return running
    },
    close: async () => {
      closed = true
      for (let step = steps.pop(); step; step = steps.pop()) await step()
    },
  }
}

function start({ name, command, args, env }: Program): Running {
  const child = spawn(command, args, { cwd: projectDir, env, stdio: ['ignore', 'pipe', 'pipe'] })
  let said = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', chunk => {
      said = (said + chunk).slice(-4_000)
    })
  }
  if (child.pid === undefined) throw new Error(`${name} did not start`)
  return {
    pid: child.pid,
    check: () => {
      if (over(child)) throw new Error(`${name} ended:\n${said}`)
    },
    said: () => said,
    stop: async () => {
      if (over(child)) return
      const gone = new Promise<void>(resolve => child.once('exit', () => resolve()))
      const late = setTimeout(() => child.kill('SIGKILL'), graceMs)
      child.kill('SIGTERM')
      await gone
      clearTimeout(late)
    },
  }
}

const over = (child: ChildProcess) => child.exitCode !== null || child.signalCode !== null

/** Processor time a process has used so far, ms (user and system, all threads). */
export function cpuMs(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
  return (Number(fields[11]) + Number(fields[12])) * msPerTick
}

/** Resident memory now and at its highest so far, bytes. */
export function memory(pid: number): { now: number; peak: number } {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  const kib = (name: string) => Number(new RegExp(`${name}:\\s+(\\d+) kB`).exec(status)?.[1] ?? 0)
  return { now: kib('VmRSS') * 1024, peak: kib('VmHWM') * 1024 }
}

/** Unit of the times in /proc: USER_HZ is 100 on every Linux that Node runs on. */
export const msPerTick = 10

/** Cores used on average, by what the processes are. */
export type Cores = Record<string, number>

/** Cores that groups of processes used on average while `during` ran. */
export async function coresOf<T>(
  groups: Record<string, (number | undefined)[]>,
  during: () => Promise<T>,
): Promise<{ value: T; cores: Cores }> {
  const used = () =>
    Object.entries(groups).map(([name, pids]) => {
      const all = pids.flatMap(pid => (pid === undefined ? [] : [cpuMs(pid)]))
      return [name, all.reduce((sum, ms) => sum + ms, 0)] as const
    })
  const before = used()
  const began = performance.now()
  const value = await during()
  const tookMs = performance.now() - began
  const cores = used().map(([name, ms], at) => [name, (ms - (before[at]?.[1] ?? 0)) / tookMs] as const)
  return { value, cores: Object.fromEntries(cores) }
}
