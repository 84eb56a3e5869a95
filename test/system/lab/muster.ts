/**
 * Muster as an operator starts it: `npm start` as a child process with a data folder of its own.
 * Tests speak to it through REST only, and may kill its agent.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdir, readdir, readFile, rm } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { eventually } from '../../eventually.ts'

export interface Answer {
  status: number
  headers: Headers
  // biome-ignore lint/suspicious/noExplicitAny: tests look into bodies of every shape
  body: any
}

export interface Muster {
  url: string
  serverUuid: string
  dataDir: string
  /** What `npm start` was given, for other commands on the same installation. */
  env: NodeJS.ProcessEnv
  natsUrl: string
  request(method: string, path: string, body?: object, options?: { timeoutMs?: number }): Promise<Answer>
  /** Waits for the task of an answer `{id}` and answers its record; throws with its error where it did not complete. */
  completed(answer: Answer): Promise<Task>
  /** The task as it ended, also when it failed. */
  ended(answer: Answer): Promise<Task>
  agentPid(): Promise<number>
  /** kill -9; resolves when it is gone. The supervisor starts another one half a second later. */
  killAgent(): Promise<void>
  /** kill -9 once the task of this answer is at that step; throws where it had ended before. */
  killAgentAt(answer: Answer, step: string): Promise<void>
  /** No agent runs while `body` does: it is killed, and the supervisor held from starting another. */
  withoutAgent(body: () => Promise<void>): Promise<void>
  /** Everything is stopped in order, and started again on the same data. */
  restart(): Promise<void>
  stop(): Promise<void>
}

export interface Task {
  id: string
  status: 'active' | 'complete' | 'failure'
  step?: string
  error?: { code: string; message: string }
}

const agentMain = 'hypervisor-agent/main.ts'
const start = new URL('../../../scripts/start.ts', import.meta.url).pathname

/** Where its data goes (emptied before), and settings of `npm start` besides. */
export interface MusterOptions {
  dataDir: string
  env: NodeJS.ProcessEnv
}

export async function startMuster({ dataDir, env: settings }: MusterOptions): Promise<Muster> {
  await rm(dataDir, { recursive: true, force: true })
  await mkdir(dataDir, { recursive: true, mode: 0o755 })
  const port = await freePort()
  const url = `http://127.0.0.1:${port}`
  const env = { ...process.env, PORT: String(port), DATA_DIR: dataDir, ...settings }
  let running = await launch(env, dataDir)
  const request: Muster['request'] = async (method, path, body, { timeoutMs = 150_000 } = {}) => {
    const response = await fetch(url + path, {
      method,
      signal: AbortSignal.timeout(timeoutMs),
      ...(body ? { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } } : {}),
    })
    const text = await response.text()
    return { status: response.status, headers: response.headers, body: parsed(text) }
  }
  const endedTask: Muster['ended'] = async answer => {
    const id = answer.body?.id
    if (typeof id !== 'string') throw new Error(`no task in ${answer.status} ${JSON.stringify(answer.body)}`)
    return (await request('GET', `/tasks/${id}/wait?timeout=140`)).body as Task
  }
  const agentPid = () => eventually(() => childRunning(running.child.pid ?? 0, agentMain), { what: 'the agent runs' })
  const servers = (await request('GET', '/servers')).body as { uuid: string }[]
  const killAgent = async () => {
    const pid = await agentPid()
    process.kill(pid, 'SIGKILL')
    // A held supervisor does not reap it: what is left then has no command line any more.
    await eventually(async () => (await childRunning(running.child.pid ?? 0, agentMain)) !== pid, {
      what: 'the agent is gone',
    })
  }
  return {
    url,
    serverUuid: servers[0]?.uuid ?? '',
    dataDir,
    env,
    natsUrl: running.natsUrl,
    request,
    ended: endedTask,
    async completed(answer) {
      const task = await endedTask(answer)
      if (task.status !== 'complete') throw new Error(`the task is ${JSON.stringify(task)}`)
      return task
    },
    agentPid,
    killAgent,
    async killAgentAt(answer, step) {
      const path = `/tasks/${answer.body.id}`
      const task = () => request('GET', path).then(({ body }) => body as Task)
      const seen = await eventually(() => task().then(now => (now.status !== 'active' || now.step === step) && now), {
        everyMs: 5,
        withinMs: 60_000,
        what: `the step ${step}`,
      })
      if (seen && seen.status !== 'active') throw new Error(`it ended before it was killed: ${JSON.stringify(seen)}`)
      await killAgent()
      const { status } = await task()
      if (status !== 'active') throw new Error(`it was ${status} when its agent was killed`)
    },
    async withoutAgent(body) {
      running.child.kill('SIGSTOP')
      try {
        await killAgent()
        await body()
      } finally {
        running.child.kill('SIGCONT')
      }
    },
    async restart() {
      await end(running.child)
      running = await launch(env, dataDir)
    },
    stop: () => end(running.child),
  }
}

async function launch(env: NodeJS.ProcessEnv, dataDir: string): Promise<{ child: ChildProcess; natsUrl: string }> {
  const child = spawn(process.execPath, ['--import', 'tsx', start], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  let said = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', chunk => {
      said += chunk
    })
  }
  try {
    await eventually(() => said.includes('Muster runs') || !isRunning(child), { withinMs: 90_000, everyMs: 100 })
    if (!isRunning(child)) throw new Error('it ended')
    return { child, natsUrl: said.match(/nats-server \S+ at (\S+)/)?.[1] ?? '' }
  } catch (error) {
    await end(child)
    throw new Error(`npm start did not get there: ${said}\n${await logs(dataDir)}`, { cause: error })
  }
}

async function end(child: ChildProcess): Promise<void> {
  if (!isRunning(child)) return
  const ended = new Promise<void>(resolve => child.once('exit', () => resolve()))
  child.kill('SIGTERM')
  const late = setTimeout(() => child.kill('SIGKILL'), 30_000)
  await ended
  clearTimeout(late)
}

function isRunning(child: ChildProcess): boolean {
  return child.exitCode === null && child.signalCode === null
}

/** What the processes logged last, for the message of a failed test. */
export async function logs(dataDir: string): Promise<string> {
  const folder = join(dataDir, 'logs')
  const names = await readdir(folder).catch(() => [])
  const parts = await Promise.all(
    names.map(async name => `== ${name}\n${(await readFile(join(folder, name), 'utf8')).slice(-3_000)}`),
  )
  return parts.join('\n')
}

function parsed(text: string): unknown {
  try {
    return text ? JSON.parse(text) : undefined
  } catch {
    return text
  }
}

async function childRunning(parent: number, file: string): Promise<number | undefined> {
  const children = await readFile(`/proc/${parent}/task/${parent}/children`, 'utf8').catch(() => '')
  for (const pid of children.trim().split(' ').map(Number)) {
    const line = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
    if (line.includes(file)) return pid
  }
  return undefined
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise(resolve => server.close(resolve))
  return port
}
