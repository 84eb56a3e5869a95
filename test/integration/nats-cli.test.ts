/**
 * docs/nats-cli.md says the truth: each of its commands is carried out over the client library as the CLI would, against running
 * processes, and what comes back is what the page shows. Every bucket and every subject of the tables has a command.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Kvm } from '@nats-io/kv'
import type { Msg } from 'nats'
import * as assert from 'uvu/assert'
import { hostKey, queueKey } from '../../gateway/ids.ts'
import { projectDir } from '../../scripts/config.ts'
import { actorHost, allocator, gateway, simulatedAgents } from '../../scripts/processes.ts'
import type { Program } from '../../scripts/supervise.ts'
import { BUCKETS, type Bucket, streamOf } from '../../services/nats/buckets.ts'
import { createCaller } from '../../services/nats/caller.ts'
import { connectNats, type NatsConnection } from '../../services/nats/connect.ts'
import { isAnnounced } from '../../services/nats/micro.ts'
import { provision } from '../../services/nats/provision.ts'
import { AGENT_HEARS, ALLOCATOR_CALLS, KINDS, partitionOf, pattern, subject } from '../../services/nats/subjects.ts'
import { eventually } from '../eventually.ts'
import { freePorts, startNats, type TestNats } from '../nats.ts'
import { suite } from '../suite.ts'

const test = suite('nats-cli.md')
const page = readFileSync(join(projectDir, 'docs/nats-cli.md'), 'utf8')
const stateDir = mkdtempSync(join(tmpdir(), 'muster-nats-cli-'))
const children: ChildProcess[] = []
const variables: Record<string, string> = {}
let nats: TestNats
let nc: NatsConnection
let kvm: Kvm

/** A command of the page as words, with the answer shown below it. */
interface Command {
  line: string
  shown?: unknown
}
const { commands, definitions, others } = read(page)

test.before(async () => {
  nats = await startNats()
  nc = await connectNats({ servers: nats.urls, name: 'nats-cli test', inboxOwner: 'admin' })
  kvm = new Kvm(nc)
  await provision(nc)
  const [port = 0] = await freePorts(1)
  const context = { nats: { url: nats.url, seedFile: () => undefined }, env: { ...process.env, LOG_LEVEL: 'error' } }
  run(actorHost(context))
  run(allocator(context))
  run(gateway(context, { port, address: '127.0.0.1' }))
  run(simulatedAgents(context, { serverUuids: ['00000000-0000-4000-8000-000000000001'], stateDir }))
  for (const name of ['actor-host', 'allocator', 'gateway']) {
    await eventually(() => isAnnounced(nc, name), { withinMs: 30_000, what: `${name} to answer` })
  }
  await fleet()
})
test.after(async () => {
  await Promise.all(children.map(ended))
  await nc?.close()
  await nats?.stop()
  rmSync(stateDir, { recursive: true, force: true })
})

test('every line of the page is a command, a definition or something shown', () => {
  assert.equal(others, [])
  assert.ok(commands.length > 60, `${commands.length} commands`)
  for (const { line } of commands) assert.ok(handlerOf(words(line)), line)
})

test('the keys that the page computes are the ones that the gateway uses', () => {
  const { SERVER = '', VM = '', HOST, QUEUE } = variables
  assert.is(HOST, hostKey(hostname))
  assert.is(QUEUE, queueKey({ server_uuid: SERVER, scope: 'vm', id: VM }))
})

test('every bucket has commands and a row', () => {
  for (const bucket of Object.keys(BUCKETS)) {
    for (const what of ['get', 'watch']) {
      const found = commands.some(({ line }) => line.startsWith(`nats kv ${what} ${bucket}`))
      assert.ok(found, `nats kv ${what} ${bucket}`)
    }
    assert.match(page, `| \`${bucket}\` |`)
  }
})

test('every subject that is published or asked has a command, and so has every pattern', () => {
  const { SERVER = '', VM = '', HOST = '', QUEUE = '', PARTITION = '' } = variables
  const idOf = { cn: SERVER, vm: VM, host: HOST, waitlist: QUEUE }
  const sent: Record<keyof typeof subject, string[]> = {
    command: KINDS.map(kind => subject.command(kind, idOf[kind], 'get')),
    agentCall: [subject.agentCall(SERVER, 'sync')],
    heartbeat: [subject.heartbeat(SERVER)],
    agent: AGENT_HEARS.map(what => subject.agent(SERVER, what)),
    event: [subject.event('vm', VM)],
    machines: [subject.machines('vm')],
    metrics: [subject.metrics()],
    allocator: ALLOCATOR_CALLS.map(subject.allocator),
  }
  const heard: Record<keyof typeof pattern, string[]> = {
    partition: [pattern.partition(Number(PARTITION))],
    heartbeats: [pattern.heartbeats()],
    commands: KINDS.map(pattern.commands),
    agentCalls: [pattern.agentCalls(SERVER)],
    agentHeartbeat: [pattern.agentHeartbeat(SERVER)],
    agent: [pattern.agent(SERVER)],
    agents: [pattern.agents()],
    events: [pattern.events()],
    machines: [pattern.machines()],
    inbox: [pattern.inbox('host')],
    partitions: [pattern.partitions()],
  }
  assert.equal(Object.keys(sent).sort(), Object.keys(subject).sort())
  assert.equal(Object.keys(heard).sort(), Object.keys(pattern).sort())
  const named = new Set(commands.map(({ line }) => words(line)).map(([, verb = '', text = '']) => `${verb} ${text}`))
  for (const text of Object.values(sent).flat()) {
    assert.ok(
      ['req', 'pub', 'sub'].some(verb => named.has(`${verb} ${text}`)),
      `a command for ${text}`,
    )
  }
  for (const text of Object.values(heard).flat()) assert.ok(named.has(`sub ${text}`), `nats sub '${text}'`)
})

test(
  'every command does what the page says, and everything heard is JSON',
  async () => {
    const listening = commands.filter(({ line }) => line.startsWith('nats sub '))
    const heard = new Map<string, unknown[]>()
    for (const { line } of listening) {
      const [, , text = ''] = words(line)
      heard.set(line, [])
      nc.subscribe(text, {
        callback: (_error, message: Msg) => {
          heard.get(line)?.push(message.data.length > 0 ? message.json() : undefined)
        },
      })
    }
    await nc.flush()
    for (const command of commands.filter(command => !listening.includes(command))) {
      const came = await attempted(command)
      if (command.shown !== undefined) resembles(came, command.shown, command.line)
    }
    for (const { line, shown } of listening) {
      const any = () => (heard.get(line) ?? []).length > 0
      await eventually(any, { withinMs: 10_000, what: `a message for ${line}` })
      if (shown !== undefined) resembles(heard.get(line)?.[0], shown, line)
    }
  },
  { limitMs: 120_000 },
)

test.run()

/** What the CLI does for a command; the result is what it prints, parsed. */
type Handler = (words: string[]) => Promise<unknown>

const HANDLERS: Record<string, Handler> = {
  'kv ls': async ([, , , bucket]) => {
    if (bucket) {
      const keys: string[] = []
      for await (const key of await (await kvm.open(bucket)).keys()) keys.push(key)
      assert.ok(keys.length > 0, `keys in ${bucket}`)
      return keys
    }
    const names: string[] = []
    for await (const status of kvm.list()) names.push(status.bucket)
    assert.equal(names.sort(), Object.keys(BUCKETS).sort())
    return names
  },
  'kv get': async ([, , , bucket = '', key = '']) => {
    const entry = await (await kvm.open(bucket)).get(key)
    assert.ok(entry, `${bucket}/${key} is there`)
    assert.is(entry.operation, 'PUT')
    return entry.json()
  },
  'kv watch': async ([, , , bucket = '', key]) => {
    const watch = await (await kvm.open(bucket)).watch(key ? { key } : {})
    for await (const entry of watch) {
      if (entry.operation !== 'PUT') continue
      watch.stop()
      return entry.json()
    }
    throw new Error(`watching ${bucket} told nothing`)
  },
  'stream info': async ([, , , stream = '']) => {
    const info = (await nc.request(`$JS.API.STREAM.INFO.${stream}`)).json<{ config?: unknown }>()
    assert.ok(info.config, `stream ${stream}`)
    assert.ok(Object.keys(BUCKETS).some(bucket => streamOf(bucket as Bucket) === stream))
    return info
  },
  req: async ([, , text = '', payload = '']) => (await nc.request(text, payload, { timeout: 5_000 })).json(),
  pub: async ([, , text = '', payload = '']) => nc.publish(text, payload),
  sub: () => Promise.reject(new Error('subscriptions are made before everything else')),
  'micro ls': () => services('PING'),
  'micro ping': () => services('PING'),
  'micro info': ([, , , name]) => services(`INFO.${name}`),
  'micro stats': ([, , , name]) => services(`STATS.${name}`),
}

function handlerOf([, first = '', second = '']: string[]): Handler | undefined {
  return HANDLERS[first] ?? HANDLERS[`${first} ${second}`]
}

/** A record that is about to be written is waited for: the page's reader looks again too. */
function attempted({ line }: Command): Promise<unknown> {
  const split = words(line)
  const handler = handlerOf(split) as Handler
  const once = line.startsWith('nats req') || line.startsWith('nats pub')
  if (once) return handler(split)
  return eventually(async () => ({ came: await handler(split) }), { withinMs: 10_000, what: line }).then(
    ({ came }) => came,
  )
}

async function services(what: string): Promise<unknown> {
  const [, name] = what.split('.')
  const answer = (await nc.request(`$SRV.${what}`, '', { timeout: 2_000 })).json<{ type: string; name: string }>()
  assert.match(answer.type, 'io.nats.micro.v1.')
  if (name) assert.is(answer.name, name)
  return answer
}

/** What is shown is there: same words, same kinds of values; `...` stands for any text. */
function resembles(came: unknown, shown: unknown, where: string): void {
  if (shown === '...') assert.type(came, 'string', `${where}: ${JSON.stringify(came)}`)
  else if (Array.isArray(shown)) {
    assert.ok(Array.isArray(came), `${where}: a list instead of ${JSON.stringify(came)}`)
    if (shown.length > 0) resembles((came as unknown[])[0], shown[0], `${where}[0]`)
  } else if (typeof shown === 'object' && shown !== null) {
    assert.ok(typeof came === 'object' && came !== null, `${where}: an object instead of ${JSON.stringify(came)}`)
    for (const [name, value] of Object.entries(shown)) {
      assert.ok(Object.hasOwn(came, name), `${where}: no ${name} in ${JSON.stringify(came)}`)
      resembles((came as Record<string, unknown>)[name], value, `${where}.${name}`)
    }
  } else if (typeof shown === 'number') assert.type(came, 'number', where)
  else assert.is(came, shown, where)
}

// What the page needs to have something to show.

const hostname = 'web1.example.com'

async function fleet(): Promise<void> {
  const caller = createCaller(nc, 'nats-cli-test')
  const first = async (bucket: Bucket) => {
    const found = async () => {
      for await (const key of await (await kvm.open(bucket)).keys()) return key
      return undefined
    }
    return eventually(found, { withinMs: 30_000, what: `a key in ${bucket}` })
  }
  const succeeded = (reply: object) => assert.ok('value' in reply, JSON.stringify(reply))

  variables['SERVER'] = await first('cn')
  variables['ACTOR_HOST'] = await first('lease')
  variables['VM'] = '4a000000-0000-4000-8000-000000000001'
  variables['TASK'] = '7a5c0000-0000-4000-8000-000000000001'
  variables['JOB'] = '10b00000-0000-4000-8000-000000000001'
  variables['TICKET'] = '71c00000-0000-8000-8000-000000000001'
  variables['PARTITION'] = String(partitionOf(variables['VM']))
  // Digests and fresh ids are made as the page tells the reader to.
  for (const name of ['NEW', 'HOST', 'QUEUE']) variables[name] = shell(`${definitions[name]}; printf %s "$${name}"`)

  const { SERVER = '', VM = '', TASK = '', JOB = '', TICKET = '', HOST = '', QUEUE = '' } = variables
  const spec = { uuid: VM, name: hostname, memory_mib: 128, vcpus: 1, disks: [{ size_mib: 64 }], nics: [] }
  succeeded(await caller.call('host', HOST, 'create', { hostname, server_uuid: SERVER, task_id: TASK, spec }))
  const job = { job_uuid: JOB, name: 'server-update-nics' as const, params: { action: 'update' as const, nics: [] } }
  succeeded(await caller.call('cn', SERVER, 'job_start', job))
  const ticket = { ticket_uuid: TICKET, server_uuid: SERVER, scope: 'vm', id: VM, expires_at: '3000-01-01' }
  succeeded(await caller.call('waitlist', QUEUE, 'create', ticket))
  const state = async () => {
    const reply = await caller.call('vm', VM, 'get', {})
    return 'value' in reply && (reply.value as { state: string }).state === 'running'
  }
  await eventually(state, { withinMs: 30_000, what: 'a running VM' })
  const asked = JSON.stringify({ vm: { owner_uuid: VM, ram: 128 } })
  const chosen = (await nc.request(subject.allocator('choose'), asked)).json<{ value: { id: string } }>()
  variables['DECISION'] = chosen.value.id
}

function run({ command, args, env }: Program): void {
  children.push(spawn(command, args, { cwd: projectDir, env, stdio: ['ignore', 'inherit', 'inherit'] }))
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const gone = new Promise<void>(resolve => child.once('exit', () => resolve()))
  const late = setTimeout(() => child.kill('SIGKILL'), 10_000)
  child.kill('SIGTERM')
  await gone
  clearTimeout(late)
}

// The page.

/** Commands, with what is shown below each; definitions of variables; and any line that is neither. */
function read(text: string): { commands: Command[]; definitions: Record<string, string>; others: string[] } {
  const found: Command[] = []
  const defined: Record<string, string> = {}
  const rest: string[] = []
  for (const [, block = ''] of text.matchAll(/```sh\n([\s\S]*?)```/g)) {
    for (const line of block.split('\n').filter(Boolean)) {
      const definition = /^(?:export )?([A-Z_]+)=/.exec(line)
      const last = found.at(-1)
      if (line.startsWith('nats ')) found.push({ line })
      else if (line.startsWith('# {') && last) last.shown = JSON.parse(line.slice(2))
      else if (definition?.[1]) defined[definition[1]] = line
      else rest.push(line)
    }
  }
  return { commands: found, definitions: defined, others: rest }
}

/** The words of a command as the shell would make them of it. */
function words(line: string): string[] {
  return shell(`printf '%s\\0' ${line}`).split('\0').slice(0, -1)
}

function shell(script: string): string {
  return execFileSync('/bin/sh', ['-euc', script], {
    env: { ...variables, PATH: process.env['PATH'] },
    encoding: 'utf8',
  })
}
