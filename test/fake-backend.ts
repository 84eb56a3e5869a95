/**
 * A Backend in memory for tests of the route table: servers, VMs, hosts and tasks are plain maps, commands are written down and
 * answered by a table that a test may change. Tasks end when the test says so.
 */
import type { AllocationQuestion } from '../actors/contract/allocation.ts'
import type { Rejection } from '../actors/contract/errors.ts'
import type { JobRecord } from '../actors/contract/job.ts'
import type { StatusEvent, Sysinfo } from '../actors/contract/server.ts'
import type { TaskRecord } from '../actors/contract/task.ts'
import { createApp } from '../gateway/app.ts'
import type { Backend, BootDefaults, CallOptions, Capacities, Host, Outcome, Server, Vm } from '../gateway/backend.ts'
import { EVENT_STREAM_TYPE } from '../gateway/event-stream.ts'
import { platformsIn } from '../gateway/platforms.ts'
import type { Self } from '../gateway/routes/service-admin.ts'
import { routes } from '../gateway/routes.ts'
import { defaultServer } from '../gateway/shown-server.ts'
import { type FakeWaitlist, fakeWaitlist } from './fake-waitlist.ts'

export interface Call {
  kind: string
  id: string
  verb: string
  params: Record<string, unknown>
  options: CallOptions
}

type Answering = (call: Call) => Outcome<unknown>

export interface FakeBackend extends Backend {
  calls: Call[]
  /** Answers by `<kind>.<verb>`; what is not here answers with the ids of its params. */
  answers: Map<string, Answering>
  reads: Map<string, Outcome<unknown>>
  put: {
    server(server: Partial<Server>): void
    vm(vm: Partial<Vm>): void
    host(key: string, host: Partial<Host>): void
    task(task: Partial<TaskRecord>): void
    job(job: Partial<JobRecord>): void
    sysinfo(uuid: string, sysinfo: Sysinfo): void
    status(uuid: string, status: StatusEvent): void
    beat(uuid: string, at: number): void
  }
  /** Tasks that commands create end like this; undefined: they stay active. */
  outcome: { status: 'complete' } | { status: 'failure'; error: { code: string; message: string } } | undefined
  /** What tasks that end well answer with, by the name of the task. */
  results: Map<string, unknown>
  beats: string[]
  /** Boot parameters of servers to come, once somebody has set them. */
  defaults?: BootDefaults
  online: boolean
  allocation: Awaited<ReturnType<Backend['allocate']>>
  /** What was asked of the allocator. */
  questions: AllocationQuestion[]
  capacities: Outcome<Capacities>
  decisions: Map<string, Record<string, unknown>>
  /** Of the exported fleet, by offset. */
  pages: Record<number, { servers: unknown[]; next?: number }>
  machines: Map<string, Record<string, unknown>>
  waiters: ReturnType<Backend['waiting']>
  /** Waits that were given up by their callers. */
  abandoned: number
  /** The queues and tickets behind `waitlist` commands. */
  waitlist: FakeWaitlist
  /** Thrown by every barrier, when set. */
  broken?: Error
}

export const SERVER = '11111111-1111-4111-8111-111111111111'
export const OTHER_SERVER = '22222222-2222-4222-8222-222222222222'
export const VM = '33333333-3333-4333-8333-333333333333'
export const JOB = '55555555-5555-4555-8555-555555555555'
export const TASK = '44444444-4444-4444-8444-444444444444'

export function fakeBackend(): FakeBackend {
  const servers = new Map<string, Server>()
  const vms = new Map<string, Vm>()
  const hosts = new Map<string, Host>()
  const tasks = new Map<string, TaskRecord>()
  const jobs = new Map<string, JobRecord>()
  const sysinfos = new Map<string, Sysinfo>()
  const statuses = new Map<string, StatusEvent>()
  const heard = new Map<string, number>()
  const waiting = new Set<() => void>()

  const barrier = async () => {
    if (fake.broken) throw fake.broken
  }
  const shelf = <T>(items: Map<string, T>) => ({
    barrier,
    get: (id: string) => items.get(id),
    load: async (id: string) => items.get(id),
    all: () => items.values(),
    until: async (id: string, wanted: (value: T | undefined) => boolean, limitMs: number) => {
      const end = performance.now() + limitMs / 10
      while (!wanted(items.get(id)) && performance.now() < end) await new Promise(resolve => setTimeout(resolve, 2))
    },
  })
  const putTask = (task: Partial<TaskRecord>) => {
    const id = task.id ?? TASK
    const base: TaskRecord = {
      id,
      task: 'nop',
      server_uuid: SERVER,
      status: 'active',
      timestamp: '2026-01-01T00:00:00.000Z',
      params: { secret: 'inside' },
    }
    tasks.set(id, { ...base, ...task })
    for (const look of waiting) look()
  }

  const putJob = (job: Partial<JobRecord>) => {
    const uuid = job.uuid ?? JOB
    const at = '2026-01-01T00:00:00.000Z'
    const base: JobRecord = {
      ...{ uuid, name: 'server-reboot', server_uuid: SERVER, params: {}, execution: 'running' },
      ...{ created_at: at, started_at: at, chain: ['reboot', 'boot'], chain_results: [] },
    }
    jobs.set(uuid, { ...base, ...job })
    for (const look of waiting) look()
  }
  /** A test does not wait for minutes: deadlines of the routes pass a thousand times as fast. */
  const ended = <T>(
    find: () => T | undefined,
    isEnd: (found: T) => boolean,
    deadlineMs: number,
    signal: AbortSignal | undefined,
  ) =>
    new Promise<T | undefined>(resolve => {
      const finish = (found: T | undefined) => {
        waiting.delete(look)
        clearTimeout(timer)
        resolve(found)
      }
      const look = () => {
        const found = find()
        if (found !== undefined && isEnd(found)) finish(found)
      }
      const timer = setTimeout(() => finish(undefined), deadlineMs / 1000)
      signal?.addEventListener('abort', () => {
        fake.abandoned += 1
        finish(undefined)
      })
      waiting.add(look)
      look()
    })

  const waitlist = fakeWaitlist(() => {
    if (fake.broken) throw fake.broken
  })

  const fake: FakeBackend = {
    calls: [],
    waitlist,
    queues: waitlist.queues,
    tickets: waitlist.tickets,
    answers: new Map(),
    reads: new Map(),
    outcome: { status: 'complete' },
    results: new Map(),
    beats: [],
    online: true,
    allocation: { value: { id: SERVER, server_uuid: SERVER, score: 1, winners: 1, steps: [] } },
    questions: [],
    capacities: { value: { capacities: {}, ratios: {}, errors: {} } },
    decisions: new Map(),
    pages: {},
    machines: new Map(),
    waiters: { tasks: [], queues: [] },
    abandoned: 0,
    put: {
      server: server => {
        const uuid = server.uuid ?? SERVER
        servers.set(uuid, { ...defaultServer, uuid, hostname: 'node', status: 'running', setup: true, ...server })
      },
      vm: vm => {
        const uuid = vm.uuid ?? VM
        vms.set(uuid, { ...exampleVm, uuid, name: uuid, ...vm })
      },
      host: (key, host) =>
        hosts.set(key, { key, hostname: '', server_uuid: null, vm_uuid: null, networks: [], ...host } as Host),
      task: putTask,
      job: putJob,
      sysinfo: (uuid, sysinfo) => sysinfos.set(uuid, sysinfo),
      status: (uuid, status) => statuses.set(uuid, status),
      beat: (uuid, at) => heard.set(uuid, at),
    },
    call: async (kind, id, verb, params, options = {}) => {
      const call = { kind, id, verb, params: params as Record<string, unknown>, options }
      fake.calls.push(call)
      const answer = fake.answers.get(`${kind}.${verb}`)
      const outcome = answer ? answer(call) : byDefault(call, fake)
      const made = 'value' in outcome ? call.params['task_id'] : undefined
      if (typeof made === 'string' && !tasks.has(made)) {
        const event = fake.results.get(String(call.params['task']))
        const told =
          event === undefined ? {} : { history: [{ name: 'finish', timestamp: '2026-01-01T00:00:01Z', event }] }
        putTask({ id: made, ...told, ...(fake.outcome ?? { status: 'active' }) })
      }
      return outcome as never
    },
    servers: shelf(servers),
    vms: {
      ...shelf(vms),
      of: uuid => [...vms.values()].filter(vm => vm.server_uuid === uuid),
      // Never the same: a test changes its VMs in place.
      version: () => ({}),
      named: name => [...vms.values()].filter(vm => vm.name.toLowerCase() === name.toLowerCase()),
    },
    hosts: shelf(hosts),
    inventory: {
      barrier,
      sysinfo: uuid => sysinfos.get(uuid),
      sysinfoText: uuid => JSON.stringify(sysinfos.get(uuid)),
      status: uuid => statuses.get(uuid),
      platforms: uuid => platformsIn(sysinfos.get(uuid) ?? {}),
    },
    bootDefaults: async () => {
      await barrier()
      return fake.defaults
    },
    jobs: {
      barrier,
      all: () => jobs.values(),
      load: async uuid => jobs.get(uuid),
      ended: (uuid, { deadlineMs, signal }) =>
        ended(
          () => jobs.get(uuid),
          job => job.execution !== 'running',
          deadlineMs,
          signal,
        ),
    },
    tasks: {
      load: async id => tasks.get(id),
      ended: (id, { deadlineMs, signal }) =>
        ended(
          () => tasks.get(id),
          task => task.status !== 'active',
          deadlineMs,
          signal,
        ),
    },
    lastHeartbeat: uuid => heard.get(uuid),
    beat: uuid => {
      fake.beats.push(uuid)
    },
    machine: async kind => {
      const value = fake.machines.get(kind)
      return value ? { value } : { error: { code: 'ServiceUnavailableError', message: 'no host' } }
    },
    allocate: async question => {
      if (fake.broken) throw fake.broken
      fake.questions.push(question)
      return fake.allocation
    },
    capacity: async () => {
      if (fake.broken) throw fake.broken
      return fake.capacities
    },
    whole: async uuid => {
      await barrier()
      return fake.left([uuid])
    },
    left: async () => ('value' in fake.capacities ? fake.capacities.value : { capacities: {}, ratios: {}, errors: {} }),
    decision: async (id, server) => {
      if (fake.broken) throw fake.broken
      const value = fake.decisions.get(server ?? id)
      return value ? { value } : { error: { code: 'ResourceNotFound', message: 'no decision' } }
    },
    fleet: async offset => {
      if (fake.broken) throw fake.broken
      return { value: fake.pages[offset] ?? { servers: [] } }
    },
    waiting: () => fake.waiters,
    openTasks: () => 0,
    events: {
      read: async from => {
        if (fake.broken) throw fake.broken
        return { from: from ?? { cn: 0, vm: 0, host: 0, waitlist: 0, task: 0, job: 0 }, unknown: [], stop: () => {} }
      },
      readers: () => 0,
    },
    connected: () => fake.online,
  }
  return fake
}

function byDefault({ kind, id, verb, params, options }: Call, fake: FakeBackend): Outcome<unknown> {
  if (kind === 'waitlist') return fake.waitlist.command(id, verb, params, options.key)
  if (verb === 'read') {
    return fake.reads.get(String(params['read'])) ?? { error: { code: 'AgentNotConnected', message: 'no agent' } }
  }
  const spec = params['spec'] as { uuid: string } | undefined
  return {
    value: {
      id: params['task_id'] ?? id,
      ...(spec ? { vm_uuid: spec.uuid } : {}),
      ...(params['server_uuid'] ? { server_uuid: params['server_uuid'] } : {}),
      ...(params['job_uuid'] ? { job_uuid: params['job_uuid'] } : {}),
    },
  }
}

export const refusing =
  (code: Rejection['code']): Answering =>
  () => ({ error: { code, message: `refused: ${code}` } })

const exampleVm: Vm = {
  uuid: VM,
  server_uuid: SERVER,
  name: VM,
  alias: null,
  owner_uuid: null,
  brand: 'kvm',
  ram: 512,
  vcpus: 1,
  cpu_cap: null,
  quota: null,
  host_key: null,
  discovered: false,
  modified_at: Date.parse('2026-01-02T03:04:05Z'),
  state: 'running',
  present: true,
  nic_tags: [],
  task_id: null,
  domain_id: 7,
  domain_state: 'running',
}

export interface Answered {
  status: number
  headers: Headers
  text: string
  // biome-ignore lint/suspicious/noExplicitAny: what a test expects of a body says its type
  body: any
}

/** An app on a fake backend, and a way to ask it that sets the headers an HTTP server would. */
export function fakeGateway(backend = fakeBackend(), self?: Self) {
  const errors: unknown[] = []
  const silent = { info: () => {}, debug: () => {}, error: (fields: unknown) => errors.push(fields) }
  const rows = routes('1.2.3', self)
  const app = createApp({ rows, backend, log: silent as never, version: '1.2.3', serverName: 'here' })
  const touched = new Set<string>()
  const ask = async (
    method: string,
    path: string,
    { body, headers = {}, signal }: { body?: unknown; headers?: Record<string, string>; signal?: AbortSignal } = {},
  ): Promise<Answered> => {
    const text = body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body)
    const response = await app.request(path, {
      method,
      headers: {
        ...(text === undefined
          ? {}
          : { 'content-type': 'application/json', 'content-length': String(Buffer.byteLength(text)) }),
        ...headers,
      },
      ...(text === undefined ? {} : { body: text }),
      ...(signal ? { signal } : {}),
    })
    const received = await textOf(response)
    const row = rows.find(candidate => candidate.method === method && fits(candidate.path, path))
    if (row) touched.add(row.name)
    return { status: response.status, headers: response.headers, text: received, body: parsed(received) }
  }
  return { app, ask, backend, rows, touched, errors }
}

/** Of a stream that does not end, what comes first. */
async function textOf(response: Response): Promise<string> {
  if (response.headers.get('content-type') !== EVENT_STREAM_TYPE) return response.text()
  const reader = response.body!.getReader()
  const { value } = await reader.read()
  await reader.cancel()
  return Buffer.from(value ?? []).toString()
}

function fits(pattern: string, path: string): boolean {
  const form = pattern.replace(/:[a-z_]+/g, '[^/]+').replaceAll('.', '\\.')
  return new RegExp(`^${form}/?(\\?.*)?$`).test(path)
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
