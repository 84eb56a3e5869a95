/**
 * Runs compose.yaml without a container engine: the same commands with the same environment as local processes, container names
 * and listening addresses mapped to ports of 127.0.0.1, mount points to folders. What the file says is what is started.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, mkdirSync, openSync, readFileSync, rmSync } from 'node:fs'
import { delimiter, dirname, join } from 'node:path'
import { parse } from 'yaml'
import { projectDir } from '../scripts/config.ts'
import { freePorts } from './nats.ts'

export interface ComposeService {
  command: string[]
  environment?: Record<string, string>
  volumes?: string[]
  depends_on?: string[] | Record<string, { condition: string }>
  ports?: string[]
  restart: string
}
export interface ComposeFile {
  services: Record<string, ComposeService>
  volumes: Record<string, unknown>
}

export const readCompose = (): ComposeFile =>
  parse(readFileSync(join(projectDir, 'compose.yaml'), 'utf8'), { merge: true }) as ComposeFile

export interface ComposeRun {
  /** 127.0.0.1:port that stands for a container's port. */
  address(service: string, port: number): string
  running(): string[]
  log(service: string): string
  /** Sends a signal and waits for the end; the service is not started again. */
  end(service: string, signal: NodeJS.Signals): Promise<void>
  stop(): Promise<void>
}

/** Starts services in the order of their dependencies; those that others wait to be completed must end with 0. */
export async function startCompose(
  file: ComposeFile,
  { folder, natsServer }: { folder: string; natsServer: string },
): Promise<ComposeRun> {
  const local = await localNames(file, folder)
  const children = new Map<string, ChildProcess>()
  const logOf = (name: string) => join(folder, `${name}.log`)
  const started = new Map<string, Promise<void>>()
  const log = (name: string) => readFileSync(logOf(name), 'utf8')

  const start = async (name: string): Promise<void> => {
    const service = file.services[name]
    if (!service) throw new Error(`compose.yaml names no service ${name}`)
    for (const other of dependencies(service)) await (started.get(other) ?? begin(other))
    const { PATH = '', HOME } = process.env
    const environment = Object.entries(service.environment ?? {}).map(([key, value]) => [key, local(name, value, key)])
    const [program = '', ...args] = service.command.map(word => local(name, word))
    const out = openSync(logOf(name), 'a')
    const child = spawn(program, args, {
      cwd: projectDir,
      env: { HOME, PATH: `${dirname(natsServer)}${delimiter}${PATH}`, ...Object.fromEntries(environment) },
      stdio: ['ignore', out, out],
    })
    closeSync(out)
    children.set(name, child)
    const ended = new Promise<number>(resolve =>
      child.once('exit', (code, signal) => resolve(signal ? 1 : (code ?? 1))),
    )
    const failed = new Promise<number>(resolve => child.once('error', () => resolve(127)))
    if (!isOneShot(file, name)) return
    const code = await Promise.race([ended, failed])
    if (code !== 0) throw new Error(`${name} ended with ${code}:\n${log(name)}`)
  }
  const begin = (name: string) => {
    const starting = start(name)
    started.set(name, starting)
    return starting
  }
  const end = async (name: string, signal: NodeJS.Signals) => {
    const child = children.get(name)
    if (!child || child.exitCode !== null || child.signalCode !== null) return
    const gone = new Promise(resolve => child.once('exit', resolve))
    child.kill(signal)
    await gone
  }
  const stop = async () => {
    await Promise.all(Object.keys(file.services).map(name => end(name, 'SIGKILL')))
    rmSync(folder, { recursive: true, force: true })
  }
  try {
    for (const name of Object.keys(file.services)) await (started.get(name) ?? begin(name))
  } catch (error) {
    await stop()
    throw error
  }
  return {
    address: (service, port) => local(service, `0.0.0.0:${port}`),
    running: () =>
      [...children].filter(([, child]) => child.exitCode === null && child.signalCode === null).map(([name]) => name),
    log,
    end,
    stop,
  }
}

export const dependencies = ({ depends_on: on = [] }: ComposeService): string[] =>
  Array.isArray(on) ? on : Object.keys(on)

/** A service that another waits for until it has completed. */
function isOneShot(file: ComposeFile, name: string): boolean {
  return Object.values(file.services).some(
    ({ depends_on: on }) => on && !Array.isArray(on) && on[name]?.condition === 'service_completed_successfully',
  )
}

/** Translates a word of a service's command or environment from inside its container to this machine. */
async function localNames(
  file: ComposeFile,
  folder: string,
): Promise<(service: string, word: string, key?: string) => string> {
  const names = Object.keys(file.services)
  const text = JSON.stringify(file.services)
  const inside = [...new Set([...text.matchAll(/\b(4222|6222|8080)\b/g)].map(([port]) => port))]
  const free = await freePorts(names.length * inside.length)
  const ports = new Map(
    names.flatMap((name, i) => inside.map((port, j) => [`${name}:${port}`, free[i * inside.length + j]])),
  )
  const port = (service: string, number: string) => String(ports.get(`${service}:${number}`))
  for (const volume of Object.keys(file.volumes)) mkdirSync(join(folder, volume), { recursive: true, mode: 0o711 })
  return (service, word, key) => {
    const mounts = (file.services[service]?.volumes ?? []).map(mount => mount.split(':'))
    let here = word
    for (const [volume = '', path = ''] of mounts)
      here = here.replace(new RegExp(`(^|=)${path}(?=/|$)`), `$1${join(folder, volume)}`)
    here = here.replaceAll(/\b([a-z]+\d*):(\d{4})\b/g, (all, name, number) =>
      names.includes(name) ? `127.0.0.1:${port(name, number)}` : all,
    )
    here = here.replace(/\b0\.0\.0\.0:(\d{4})\b/, (_, number) => `127.0.0.1:${port(service, number)}`)
    here = here.replace(/(--port=)(\d{4})$/, (_, option, number) => `${option}${port(service, number)}`)
    if (key === 'PORT') here = port(service, here)
    return here.replace(/\b0\.0\.0\.0\b/, '127.0.0.1')
  }
}
