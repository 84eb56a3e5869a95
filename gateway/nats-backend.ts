/** The Backend over NATS: a caller for commands, a view for each bucket that is listed, one watch for all who wait for tasks. */
import { DEFAULTS_ID } from '../actors/contract/boot.ts'
import { rejection } from '../actors/contract/errors.ts'
import type { JobRecord } from '../actors/contract/job.ts'
import type { TaskRecord } from '../actors/contract/task.ts'
import { askAll } from '../services/nats/ask-all.ts'
import { loadBootDefaults } from '../services/nats/boot-defaults.ts'
import { type Bucket, key as keyOf, parseInventoryKey } from '../services/nats/buckets.ts'
import { createCaller } from '../services/nats/caller.ts'
import type { NatsConnection } from '../services/nats/connect.ts'
import { createFeed } from '../services/nats/feed.ts'
import { publishHeartbeat, subscribeHeartbeats } from '../services/nats/heartbeats.ts'
import { openRecords } from '../services/nats/records.ts'
import { type RequestOptions, request } from '../services/nats/request.ts'
import { isKind, subject } from '../services/nats/subjects.ts'
import { openView, type View } from '../services/nats/view.ts'
import { openWaits } from '../services/nats/waits.ts'
import type { Backend, CallOptions, Outcome, Shelf, Vm } from './backend.ts'
import { EVENT_BUCKETS } from './change-events.ts'
import { openWaitlist } from './nats-waitlist.ts'
import {
  type Inventory,
  openTasksOf,
  projectHost,
  projectInventory,
  projectServer,
  projectVm,
  statusOf,
  sysinfoOf,
} from './projections.ts'
import { rounds } from './rounds.ts'
import { gathered, inPages } from './unreserved.ts'

export interface NatsBackendOptions {
  nc: NatsConnection
  /** Names this run of the gateway as a sender of commands: never the same for two lives of a process. */
  sender: string
  warn: (problem: string, error: unknown) => void
}

export interface NatsBackend extends Backend {
  /** Ends the streams of events that are read, so that their readers go elsewhere. */
  endStreams(): void
  close(): void
}

/** Longest wait for the allocator that has made a decision, ms. */
const DECISION_MAX_MS = 1_500

/** Opens views and subscriptions; resolves when lists can be answered. */
export async function openNatsBackend({ nc, sender, warn }: NatsBackendOptions): Promise<NatsBackend> {
  const records = openRecords(nc)
  const caller = createCaller(nc, sender)
  const view = <T>(bucket: Bucket, project: (key: string, value: unknown) => T | undefined) =>
    openView({ nc, bucket, project, warn })
  const openTasks = new Map<string, number>()
  const [servers, vms, hosts, jobs, inventory, waitlist] = await Promise.all([
    view('cn', (uuid, value) => {
      openTasks.set(uuid, openTasksOf(value))
      // It is no server, whatever somebody has put there.
      return uuid === DEFAULTS_ID ? undefined : projectServer(value)
    }),
    view('vm', (_, value) => projectVm(value)),
    view('host', (_, value) => projectHost(value)),
    view('job', (_, value) => value as JobRecord),
    view<Inventory>('inventory', (name, value) => {
      const part = parseInventoryKey(name)?.part
      return part && projectInventory(part, value)
    }),
    openWaitlist(nc, records, warn),
  ])
  const waits = openWaits(nc, 'task')
  const jobWaits = openWaits(nc, 'job')
  const events = createFeed(nc, EVENT_BUCKETS, warn)
  servers.onChange(({ key, value }) => {
    if (!value) openTasks.delete(key)
  })
  const index = indexVms(vms)
  const beats = new Map<string, number>()
  let linked = true
  void (async () => {
    for await (const { type } of nc.status()) {
      if (type === 'disconnect') linked = false
      else if (type === 'reconnect') linked = true
    }
  })()
  const stopListening = subscribeHeartbeats(nc, serverUuid => {
    // Anybody may send beats of servers that there are not.
    if (servers.get(serverUuid)) beats.set(serverUuid, Date.now())
  })
  servers.onChange(({ key: uuid, value }) => {
    if (!value) beats.delete(uuid)
  })

  const shelf = <T>(bucket: Bucket, of: View<T>, project: (value: unknown) => T | undefined): Shelf<T> => ({
    barrier: () => of.barrier(),
    get: id => of.get(id),
    load: async id => {
      const entry = await records.get(bucket, id)
      return entry && project(entry.value)
    },
    all: () => values(of),
    until: async (id, wanted, limitMs) => {
      await of.barrier()
      if (!wanted(of.get(id))) await changed(of, id, wanted, limitMs)
    },
  })

  const capacity = (limits: Partial<RequestOptions> = {}) =>
    inPages(uuids => ask(subject.allocator('capacity'), { servers: uuids }, limits))
  const left = gathered(capacity({ deadlineMs: 2_000, absentMs: 0 }))
  return {
    call: (kind, id, verb, params, options: CallOptions = {}) => {
      const { key, reqId, deadlineMs } = options
      return caller.call(kind, id, verb, params, {
        ...(key ? { key } : {}),
        ...(reqId ? { reqId } : {}),
        ...(deadlineMs ? { deadlineMs } : {}),
      })
    },
    servers: shelf('cn', servers, projectServer),
    vms: { ...shelf('vm', vms, projectVm), ...index },
    hosts: shelf('host', hosts, projectHost),
    inventory: {
      barrier: () => inventory.barrier(),
      sysinfo: uuid => sysinfoOf(inventory.get(keyOf.sysinfo(uuid))),
      sysinfoText: uuid => {
        const kept = inventory.get(keyOf.sysinfo(uuid))
        return kept && 'sysinfo' in kept ? kept.sysinfo : undefined
      },
      status: uuid => statusOf(inventory.get(keyOf.status(uuid))),
      platforms: uuid => {
        const kept = inventory.get(keyOf.sysinfo(uuid))
        return kept && 'platforms' in kept ? kept.platforms : []
      },
    },
    bootDefaults: () => loadBootDefaults(records, warn),
    tasks: {
      load: async id => (await records.get('task', keyOf.task(id)))?.value as TaskRecord | undefined,
      ended: async (id, { deadlineMs, signal }) => {
        const ended = (value: unknown) => (value as TaskRecord).status !== 'active'
        const value = await waits.until(keyOf.task(id), ended, { deadlineMs, ...(signal ? { signal } : {}) })
        return value as TaskRecord | undefined
      },
    },
    jobs: {
      barrier: () => jobs.barrier(),
      all: () => values(jobs),
      load: async uuid => (await records.get('job', keyOf.job(uuid)))?.value as JobRecord | undefined,
      ended: async (uuid, { deadlineMs, signal }) => {
        const ended = (value: unknown) => (value as JobRecord).execution !== 'running'
        const value = await jobWaits.until(keyOf.job(uuid), ended, { deadlineMs, ...(signal ? { signal } : {}) })
        return value as JobRecord | undefined
      },
    },
    queues: waitlist.queues,
    tickets: waitlist.tickets,
    lastHeartbeat: serverUuid => beats.get(serverUuid),
    beat: serverUuid => publishHeartbeat(nc, serverUuid),
    machine: async kind => {
      if (!isKind(kind)) return { error: rejection('ResourceNotFound', `no machine ${kind}`) }
      return ask(subject.machines(kind), undefined)
    },
    // A claim that is asked for twice is taken twice, so whoever hears the question hears it once.
    allocate: question => ask(subject.allocator('choose'), question, { deadlineMs: 10_000, attemptMs: 10_000 }),
    capacity: async uuids => {
      if (!uuids) await servers.barrier()
      return capacity()(uuids ?? [...servers.entries()].map(([uuid]) => uuid))
    },
    left,
    whole: rounds(async uuids => {
      const [told] = await Promise.all([left(uuids), servers.barrier(), inventory.barrier(), vms.barrier()])
      return told
    }),
    decision: async (id, server_uuid) => {
      const question = { id, server_uuid, everybody: true }
      let heard = false
      for await (const reply of askAll(nc, subject.allocator('decision'), question, { maxMs: DECISION_MAX_MS })) {
        const told = reply as Outcome<Record<string, unknown>>
        if ('error' in told || told.value['made_here'] !== false) return told
        heard = true
      }
      if (!heard) return { error: rejection('ServiceUnavailableError', 'No allocator answers') }
      const gone = 'the allocator that made it is gone, or there never was such a decision'
      return { error: rejection('ResourceNotFound', `No decision ${id} is kept: ${gone}`) }
    },
    fleet: offset => ask(subject.allocator('fleet'), { offset }),
    events,
    openTasks: () => {
      let count = 0
      for (const tasks of openTasks.values()) count += tasks
      return count
    },
    waiting: () => ({
      tasks: waits.waiting().map(({ key, waiters }) => ({ id: key, waiters })),
      queues: waitlist.waiting(),
    }),
    connected: () => linked && !nc.isClosed(),
    endStreams: () => events.close(),
    close: () => {
      stopListening()
      events.close()
      waits.close()
      jobWaits.close()
      waitlist.close()
      for (const opened of [servers, vms, hosts, jobs, inventory]) opened.close()
    },
  }

  async function ask<T>(to: string, payload: unknown, limits: Partial<RequestOptions> = {}): Promise<Outcome<T>> {
    return (await request(nc, to, payload, { deadlineMs: 10_000, ...limits })) as Outcome<T>
  }
}

function* values<T>(view: View<T>): Iterable<T> {
  for (const [, value] of view.entries()) yield value
}

function changed<T>(view: View<T>, id: string, wanted: (value: T | undefined) => boolean, limitMs: number) {
  return new Promise<void>(resolve => {
    const finish = () => {
      clearTimeout(late)
      stop()
      resolve()
    }
    const stop = view.onChange(({ key, value }) => {
      if (key === id && wanted(value)) finish()
    })
    const late = setTimeout(finish, limitMs)
  })
}

/** VMs by server and by name: neither may cost a walk over all VMs of the fleet. */
function indexVms(view: View<Vm>) {
  const byServer = new Map<string, Set<string>>()
  const byName = new Map<string, Set<string>>()
  const placed = new Map<string, { server: string; name: string }>()
  const versions = new Map<string, number>()
  const touch = (server: string) => versions.set(server, (versions.get(server) ?? 0) + 1)
  const put = (uuid: string, vm: Vm | undefined) => {
    const before = placed.get(uuid)
    if (before) touch(before.server)
    if (vm && vm.server_uuid !== before?.server) touch(vm.server_uuid)
    if (before && vm && before.server === vm.server_uuid && before.name === vm.name) return
    if (before) {
      take(byServer, before.server, uuid)
      take(byName, before.name.toLowerCase(), uuid)
      placed.delete(uuid)
    }
    if (!vm) return
    add(byServer, vm.server_uuid, uuid)
    add(byName, vm.name.toLowerCase(), uuid)
    placed.set(uuid, { server: vm.server_uuid, name: vm.name })
  }
  for (const [uuid, vm] of view.entries()) put(uuid, vm)
  view.onChange(({ key, value }) => put(key, value))
  const found = (uuids: Set<string> | undefined) =>
    [...(uuids ?? [])].flatMap(uuid => {
      const vm = view.get(uuid)
      return vm ? [vm] : []
    })
  return {
    of: (serverUuid: string) => found(byServer.get(serverUuid)),
    version: (serverUuid: string) => versions.get(serverUuid),
    named: (name: string) => found(byName.get(name.toLowerCase())),
  }
}

function add(index: Map<string, Set<string>>, at: string, uuid: string): void {
  const uuids = index.get(at)
  if (uuids) uuids.add(uuid)
  else index.set(at, new Set([uuid]))
}

function take(index: Map<string, Set<string>>, at: string, uuid: string): void {
  const uuids = index.get(at)
  uuids?.delete(uuid)
  if (uuids?.size === 0) index.delete(at)
}
