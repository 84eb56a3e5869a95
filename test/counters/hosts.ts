/** Starts, stops, kills and freezes hosts of counters; each is a process of its own. */
import { type ChildProcess, spawn } from 'node:child_process'
import { join } from 'node:path'
import { projectDir } from '../../scripts/config.ts'
import { eventually } from '../eventually.ts'

export interface Host {
  id: string
  child: ChildProcess
  output: () => string
  /** Resolves with its exit when it is gone. */
  gone: Promise<{ code: number | null; signal: NodeJS.Signals | null }>
}

let started = 0

/** Starts a host; resolves when it is live. With `crashAt` it may die before that. */
export async function startHost(natsUrl: string, { crashAt = '', batching = true, wait = true } = {}): Promise<Host> {
  started += 1
  const id = `h${started}-${process.pid}`
  const child = spawn(process.execPath, ['--import', 'tsx', join(projectDir, 'test/counters/host.ts')], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      ...process.env,
      NATS_URL: natsUrl,
      HOST_ID: id,
      CRASH_AT: crashAt,
      BATCHING: batching ? 'on' : 'off',
      LOG_LEVEL: process.env['LOG_LEVEL'] ?? 'error',
    },
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', chunk => {
      output += chunk
      if (process.env['LOG_LEVEL']) process.stderr.write(chunk)
    })
  }
  const gone = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>(resolve =>
    child.once('exit', (code, signal) => resolve({ code, signal })),
  )
  const host = { id, child, output: () => output, gone }
  if (wait) {
    await eventually(
      () => {
        if (child.exitCode !== null) throw new Error(`the host ended: ${output}`)
        return output.includes('"live":true')
      },
      { withinMs: 20_000, what: `host ${id} live: ${output}` },
    )
  }
  return host
}

/** Ends hosts for good, also frozen ones. */
export async function killHosts(hosts: Host[]): Promise<void> {
  for (const { child } of hosts) if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL')
  await Promise.all(hosts.map(({ gone }) => gone))
}
