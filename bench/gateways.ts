/** Starts a gateway as a process of its own, and the bare HTTP server it is compared with. */
import { join } from 'node:path'
import { projectDir } from '../scripts/config.ts'
import { gateway } from '../scripts/processes.ts'
import type { Program } from '../scripts/supervise.ts'
import { eventually } from '../test/eventually.ts'
import { freePorts, type TestNats } from '../test/nats.ts'
import { type HttpClient, httpClient } from './http.ts'
import type { Running, Scope } from './scope.ts'

export interface Served {
  running: Running
  client: HttpClient
}

/** The real gateway, answering. */
export function startGateway(scope: Scope, nats: TestNats, connections: number): Promise<Served> {
  const env = { ...process.env, LOG_LEVEL: 'warn' }
  const context = { nats: { url: nats.url, seedFile: () => undefined }, env }
  return served(scope, connections, port => gateway(context, { port, address: '127.0.0.1' }))
}

/** Hono with one route that answers a fixed body (bare.ts). */
export function startBare(scope: Scope, bodyBytes: number, connections: number): Promise<Served> {
  return served(scope, connections, port => ({
    name: 'bare Hono',
    file: 'bare',
    command: process.execPath,
    args: ['--import', 'tsx', join(projectDir, 'bench/bare.ts'), String(port), String(bodyBytes)],
    env: process.env,
  }))
}

async function served(scope: Scope, connections: number, program: (port: number) => Program): Promise<Served> {
  const [port = 0] = await freePorts(1)
  const running = scope.spawn(program(port))
  const client = httpClient(scope, `http://127.0.0.1:${port}`, connections)
  const answers = async () => {
    running.check()
    return (await client.get('/ping')).status === 200
  }
  await eventually(answers, { withinMs: 60_000, what: 'an answer to GET /ping' })
  return { running, client }
}
