/**
 * Child processes of one installation: started in order, watched, started again with growing pauses when they die, and ended
 * in reverse order. Each has a session of its own, so Ctrl-C reaches only the parent; what they print goes to a log file each.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, existsSync, openSync, readSync, renameSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { OperatorProblem } from './operator-problem.ts'

/** One process to run. `name` is what the operator reads, `file` the name of its log. */
export interface Program {
  name: string
  file: string
  command: string
  args: string[]
  env: NodeJS.ProcessEnv
}

export interface StartOptions {
  readyMs?: number
  /** What has to be done each time a program that died is ready again. */
  again?: () => Promise<void>
}

export interface SupervisorOptions {
  logDir: string
  say: (line: string) => void
  signal?: AbortSignal
  /** What a child may take to end before it is killed, ms. */
  graceMs?: number
}

export interface Supervisor {
  /** Starts a program and waits until `ready` is true; throws when it keeps dying or is not ready within `readyMs`. */
  start(program: Program, ready: () => Promise<boolean>, options?: StartOptions): Promise<void>
  /** Ends a running program, by name, and starts it again at once. */
  restart(name: string): void
  /** Pids now, by program name. */
  pids(): Record<string, number>
  /** Ends everything in reverse order of starting; what does not end within `graceMs` is killed. */
  stop(): Promise<void>
}

const limits = {
  readyMs: 60_000,
  /** A stop drains: a host hands over its partitions, the gateway finishes requests. */
  graceMs: 15_000,
  pauseMs: { first: 500, most: 10_000 },
  /** A program that ran this long begins again with the first pause. */
  steadyMs: 60_000,
  /** Deaths before it was ever ready, after which starting is given up. */
  earlyDeaths: 3,
  logBytes: 10 * 1024 * 1024,
}

/** `signal`: a start that is under way throws when it aborts; stop() is for the caller. */
export function supervisor({ logDir, say, signal, graceMs = limits.graceMs }: SupervisorOptions): Supervisor {
  const watched: Watched[] = []
  let stopping = false

  const launch = (one: Watched) => {
    const { program, log } = one
    if (existsSync(log) && statSync(log).size > limits.logBytes) renameSync(log, `${log}.1`)
    const out = openSync(log, 'a')
    one.logFrom = statSync(log).size
    one.launchedAt = performance.now()
    const [command = '', ...args] = [...endsWithParent(), program.command, ...program.args]
    const child = spawn(command, args, { stdio: ['ignore', out, out], env: program.env, detached: true })
    closeSync(out)
    one.child = child
    const died = (how: string) => {
      if (one.child !== child) return
      one.child = undefined
      if (stopping) return
      if (one.restarting) {
        one.restarting = false
        void relaunch(one)
        return
      }
      one.deaths += 1
      if (performance.now() - one.launchedAt > limits.steadyMs) one.pauseMs = limits.pauseMs.first
      one.lastWords = `${program.name} ended (${how})${complaint(one)}`
      if (!one.ready && one.deaths >= limits.earlyDeaths) return
      say(`${one.lastWords}; starting it again in ${one.pauseMs / 1000} s (log: ${log})`)
      one.timer = setTimeout(() => relaunch(one), one.pauseMs)
      one.pauseMs = Math.min(one.pauseMs * 2, limits.pauseMs.most)
    }
    child.once('error', error => died(error.message))
    child.once('exit', (code, signal) => died(signal ?? `exit code ${code}`))
  }

  /** A program that has served once is made ready again as often as it takes; its death meanwhile begins anew. */
  const relaunch = async (one: Watched) => {
    launch(one)
    const child = one.child
    if (!one.ready || !one.again) return
    while (one.child === child && !stopping) {
      const done = await one
        .isReady()
        .then(
          isReady => isReady && one.again?.().then(() => true),
          () => false,
        )
        .catch(() => false)
      if (done) return
      await new Promise(resolve => setTimeout(resolve, 100))
    }
  }

  return {
    async start(program, ready, { readyMs = limits.readyMs, again } = {}) {
      const one: Watched = {
        program,
        log: join(logDir, `${program.file}.log`),
        logFrom: 0,
        child: undefined,
        launchedAt: 0,
        ready: false,
        restarting: false,
        isReady: ready,
        again,
        deaths: 0,
        pauseMs: limits.pauseMs.first,
        lastWords: '',
        timer: undefined,
      }
      watched.push(one)
      launch(one)
      const began = performance.now()
      let told = 0
      while (!(one.child && (await ready().catch(() => false)))) {
        const waitedMs = performance.now() - began
        if (stopping || signal?.aborted) throw new OperatorProblem(`${program.name} was not waited for`)
        if (one.deaths >= limits.earlyDeaths && !one.child)
          throw new OperatorProblem(`${one.lastWords} (log: ${one.log})`)
        if (waitedMs > readyMs) {
          throw new OperatorProblem(
            `${program.name} is not ready after ${readyMs / 1000} s${complaint(one)} (log: ${one.log})`,
          )
        }
        if (waitedMs > 1_000 * 2 ** told) {
          say(`waiting for ${program.name} (${Math.round(waitedMs / 1000)} s)`)
          told += 1
        }
        await new Promise(resolve => setTimeout(resolve, 50))
      }
      one.ready = true
    },
    restart(name) {
      const one = watched.find(({ program }) => program.name === name)
      if (!one?.child) return
      one.restarting = true
      one.child.kill('SIGTERM')
    },
    pids() {
      const alive = watched.flatMap(one => (one.child?.pid ? [[one.program.name, one.child.pid] as const] : []))
      return Object.fromEntries(alive)
    },
    async stop() {
      stopping = true
      for (const one of watched) clearTimeout(one.timer)
      for (const one of [...watched].reverse()) {
        const child = one.child
        if (!child || child.exitCode !== null || child.signalCode !== null) continue
        const gone = new Promise<void>(resolve => child.once('exit', () => resolve()))
        child.kill('SIGTERM')
        const slow = setTimeout(() => say(`waiting for ${one.program.name} to end`), 1_000)
        const late = setTimeout(() => {
          say(`${one.program.name} did not end within ${graceMs / 1000} s; killing it`)
          child.kill('SIGKILL')
        }, graceMs)
        await gone
        clearTimeout(slow)
        clearTimeout(late)
      }
    },
  }
}

interface Watched {
  program: Program
  log: string
  /** Where in the log the present run begins. */
  logFrom: number
  child: ChildProcess | undefined
  launchedAt: number
  ready: boolean
  restarting: boolean
  isReady: () => Promise<boolean>
  again: (() => Promise<void>) | undefined
  deaths: number
  pauseMs: number
  lastWords: string
  timer: NodeJS.Timeout | undefined
}

/** On Linux a child is told when its parent dies, however it dies: no nats-server of a killed start is left over. */
function endsWithParent(): string[] {
  return existsSync('/usr/bin/setpriv') ? ['/usr/bin/setpriv', '--pdeathsig', 'TERM', '--'] : []
}

/** The last line of the present run that says what is wrong: pino's fatal and error messages, nats-server's, or Node's. */
function complaint(one: Watched): string {
  const size = existsSync(one.log) ? statSync(one.log).size : 0
  const from = Math.max(one.logFrom, size - 64 * 1024)
  const bytes = Buffer.alloc(Math.max(0, size - from))
  const file = openSync(one.log, 'r')
  readSync(file, bytes, 0, bytes.length, from)
  closeSync(file)
  const lines = bytes.toString('utf8').split('\n').reverse()
  for (const line of lines) {
    const said = errorIn(line)
    if (said) return `: ${said.slice(0, 300)}`
  }
  return ''
}

function errorIn(line: string): string | undefined {
  if (line.startsWith('{')) {
    try {
      const entry = JSON.parse(line) as { level?: number; msg?: string; err?: { message?: string } }
      if ((entry.level ?? 0) < 50) return undefined
      return [entry.msg, entry.err?.message].filter((text, at, all) => text && all.indexOf(text) === at).join(': ')
    } catch {
      return undefined
    }
  }
  const told = /^(?:\w*Error(?: \[\w+\])?: |[a-z][a-z -]{1,30}: |\[\d+\] \S+ \S+ \[(?:ERR|FTL)\] )(.+)$/.exec(
    line.trim(),
  )
  return told?.[1]
}
