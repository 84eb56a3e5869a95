/** Actor hosts and gateways as processes that a test starts, kills, freezes and starts again; a gateway keeps its port. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { projectDir } from '../../scripts/config.ts'
import { eventually } from '../eventually.ts'

export interface Process {
  name: string
  /** Resolves when it is live. */
  start(): Promise<void>
  /** Resolves when it is gone; also a frozen one dies of SIGKILL. */
  kill(signal?: NodeJS.Signals): Promise<void>
  freeze(): void
  thaw(): void
  running(): boolean
  log(): string
}

export interface Gateway extends Process {
  url: string
  ask(method: string, path: string, options?: Ask): Promise<Answered>
}

export interface Ask {
  body?: unknown
  headers?: Record<string, string>
  signal?: AbortSignal
}

export interface Answered {
  status: number
  // biome-ignore lint/suspicious/noExplicitAny: what a test expects of a body says its type
  body: any
}

type Settings = Record<string, string>

export const actorHost = (natsUrl: string, name: string, more: Settings = {}): Process =>
  program(name, 'services/actor-host/main.ts', { NATS_URL: natsUrl, HOST_ID: name, ...more }, '"msg":"live"')

export const allocator = (natsUrl: string, more: Settings = {}): Process =>
  program('allocator', 'services/allocator/main.ts', { NATS_URL: natsUrl, ...more }, '"msg":"ready"')

export function gateway(natsUrl: string, name: string, port: number, more: Settings = {}): Gateway {
  const url = `http://127.0.0.1:${port}`
  const settings = { NATS_URL: natsUrl, PORT: String(port), GATEWAY_ID: name, METRICS_PORT: 'off', ...more }
  return {
    ...program(name, 'gateway/main.ts', settings, '"msg":"listening"'),
    url,
    ask: async (method, path, { body, headers = {}, signal } = {}) => {
      const response = await fetch(`${url}${path}`, {
        method,
        headers: { ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        ...(signal ? { signal } : {}),
      })
      const text = await response.text()
      return { status: response.status, body: text === '' ? undefined : JSON.parse(text) }
    },
  }
}

/** Ends all of them, also frozen ones. */
export async function killAll(processes: Process[]): Promise<void> {
  await Promise.all(processes.map(process => process.kill()))
}

function program(name: string, main: string, settings: Record<string, string>, live: string): Process {
  let child: ChildProcess | undefined
  let output = ''
  const running = () => child !== undefined && child.exitCode === null && child.signalCode === null
  return {
    name,
    running,
    log: () => output,
    start: async () => {
      output = ''
      child = spawn(process.execPath, ['--import', 'tsx', join(projectDir, main)], {
        cwd: projectDir,
        env: { PATH: process.env['PATH'], LOG_LEVEL: 'info', ...settings },
        stdio: ['ignore', 'pipe', 'pipe'],
      })
      for (const stream of [child.stdout, child.stderr]) {
        stream?.on('data', chunk => {
          output = (output + chunk).slice(-100_000)
        })
      }
      await eventually(() => output.includes(live) || !running(), { withinMs: 40_000, what: `${name} to be live` })
      if (!running()) throw new Error(`${name} ended: ${output}`)
    },
    kill: async (signal = 'SIGKILL') => {
      if (!child || !running()) return
      const gone = once(child, 'exit')
      child.kill(signal)
      await gone
    },
    freeze: () => void (running() && child?.kill('SIGSTOP')),
    thaw: () => void (running() && child?.kill('SIGCONT')),
  }
}
