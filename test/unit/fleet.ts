/**
 * A fleet in memory for tests of decisions: records, task bodies, a manual clock and an agent played by the test. Every commit may be
 * "lost after" or delivered twice, so that properties can be tried under all interleavings without a server.
 */
import type { JobRecord } from '../../actors/contract/job.ts'
import type { Command } from '../../actors/contract/messages.ts'
import type { ActorRecord, Reply } from '../../actors/contract/record.ts'
import type { TaskRecord } from '../../actors/contract/task.ts'
import type { TicketBody } from '../../actors/contract/ticket.ts'
import { decide, type Input, type SidePut } from '../../services/runtime/decide.ts'

export interface Fleet {
  now: number
  records: Map<string, ActorRecord>
  tasks: Map<string, TaskRecord>
  tickets: Map<string, TicketBody>
  /** Offers that reached an agent, by task id, in order. */
  offers: string[]
  /** Tasks that an agent was told to stop, in order. */
  cancels: string[]
  jobs: Map<string, JobRecord>
  /** What nodes have told, `<uuid>.sysinfo` and `<uuid>.status`. */
  inventory: Map<string, unknown>
  command(kind: string, id: string, verb: string, params?: Record<string, unknown>, more?: Partial<Command>): Reply
  agent(server: string, report: Record<string, unknown>): Reply
  /** Sends what is in outboxes until nothing moves; `agentListens` says whether offers are accepted by the agent. */
  settle(options?: { agentListens?: boolean }): void
  /** Moves the clock and fires every timer that is due, in order. */
  advance(ms: number, options?: { agentListens?: boolean }): void
  input(kind: string, id: string, input: Input): Reply | undefined
  record(kind: string, id: string): ActorRecord
}

export function makeFleet(): Fleet {
  const records = new Map<string, ActorRecord>()
  const tasks = new Map<string, TaskRecord>()
  const inventory = new Map<string, unknown>()
  const tickets = new Map<string, TicketBody>()
  const jobs = new Map<string, JobRecord>()
  const bodies = { task: tasks, inventory, ticket: tickets, job: jobs } as unknown as Record<
    string,
    Map<string, unknown>
  >
  const fleet: Fleet = {
    now: 1_700_000_000_000,
    records,
    tasks,
    tickets,
    jobs,
    inventory,
    offers: [],
    cancels: [],
    input(kind, id, input) {
      const name = `${kind}.${id}`
      const before = records.get(name)
      const frozen = JSON.stringify(before)
      const decision = decide(kind, id, before, input, fleet.now)
      if (decision.fault) throw decision.fault
      if (JSON.stringify(before) !== frozen) throw new Error(`deciding changed the stored record of ${name}`)
      for (const put of decision.puts) apply(put)
      if (decision.record !== before) {
        if (decision.record) records.set(name, JSON.parse(JSON.stringify(decision.record)))
        else records.delete(name)
      }
      return decision.reply
    },
    command(kind, id, verb, params = {}, more = {}) {
      return fleet.input(kind, id, { type: 'command', channel: 'cmd', verb, command: { params, ...more } }) as Reply
    },
    agent(server, report) {
      const command = { params: { at: fleet.now, ...report } }
      return fleet.input('cn', server, { type: 'command', channel: 'agent', verb: 'report', command }) as Reply
    },
    settle({ agentListens = true } = {}) {
      for (let moved = true; moved; ) {
        moved = false
        for (const record of [...records.values()]) {
          for (const { sequence, effect } of record.outbox) {
            if (effect.type === 'offer') {
              if (!agentListens) continue
              fleet.offers.push(effect.task_id)
              fleet.input(record.kind, record.id, { type: 'sent', sequences: [sequence] })
            } else if (effect.type === 'cancel') {
              fleet.cancels.push(effect.task_id)
              fleet.input(record.kind, record.id, { type: 'sent', sequences: [sequence] })
            } else {
              const sender = `${record.kind}:${record.id}`
              const floor = Math.min(...record.outbox.map(entry => entry.sequence))
              const reply = fleet.command(effect.kind, effect.id, effect.verb, effect.params, {
                sender,
                sequence,
                floor,
              })
              const refused = 'error' in reply ? { refused: [{ sequence, rejection: reply.error }] } : {}
              fleet.input(record.kind, record.id, { type: 'sent', sequences: [sequence], ...refused })
            }
            moved = true
          }
        }
      }
    },
    advance(ms, options) {
      const end = fleet.now + ms
      for (;;) {
        const due = [...records.values()]
          .flatMap(record => Object.entries(record.timers).map(([name, { at }]) => ({ record, name, at })))
          .filter(({ at }) => at <= end)
          .sort((a, b) => a.at - b.at)[0]
        if (!due) break
        fleet.now = Math.max(fleet.now, due.at)
        fleet.input(due.record.kind, due.record.id, { type: 'timer', name: due.name, at: due.at })
        fleet.settle(options)
      }
      fleet.now = end
    },
    record(kind, id) {
      const record = records.get(`${kind}.${id}`)
      if (!record) throw new Error(`no record ${kind}.${id}`)
      return record
    },
  }
  return fleet

  function apply(put: SidePut) {
    const bucket = bodies[put.bucket] as Map<string, unknown>
    if (put.type === 'create' && !bucket.has(put.key)) bucket.set(put.key, JSON.parse(JSON.stringify(put.value)))
    if (put.type === 'delete') bucket.delete(put.key)
    if (put.type === 'put') bucket.set(put.key, JSON.parse(JSON.stringify(put.value)))
    if (put.type === 'patch') {
      const stored = bucket.get(put.key) as Record<string, unknown> | undefined
      if (stored && Object.entries(put.while).every(([field, value]) => stored[field] === value)) {
        bucket.set(put.key, { ...stored, ...JSON.parse(JSON.stringify(put.patch)) })
      }
    }
  }
}

export const SERVER = '00000000-0000-4000-8000-000000000001'
export const VM = '00000000-0000-4000-8000-0000000000aa'
export const taskId = (n: number) => `00000000-0000-4000-9000-${String(n).padStart(12, '0')}`

export const specOf = (uuid: string, name = uuid) => ({
  uuid,
  name,
  memory_mib: 128,
  vcpus: 1,
  disks: [{ size_mib: 1024 }],
  nics: [],
})

/** A registered, running server. */
export function registered(fleet: Fleet, server = SERVER): void {
  fleet.command('cn', server, 'register', {
    sysinfo: { UUID: server, Hostname: 'node1', 'MiB of Memory': '4096', Setup: true },
  })
}

/** A VM made, started and at rest. */
export function withRunningVm(fleet: Fleet, id = VM): void {
  fleet.command('vm', id, 'create', { server_uuid: SERVER, task_id: taskId(1), spec: specOf(id) })
  fleet.settle()
  complete(fleet, taskId(1), { vm: { uuid: id, state: 'running' } })
}

/** The agent accepts a task and ends it well. */
export function complete(fleet: Fleet, id: string, result: unknown = {}): void {
  fleet.agent(SERVER, { id, status: 'accepted' })
  fleet.agent(SERVER, { id, status: 'complete', result })
  fleet.settle()
}

export function fail(
  fleet: Fleet,
  id: string,
  error = { code: 'TaskFailed', message: 'it broke' },
  result?: unknown,
): void {
  fleet.agent(SERVER, { id, status: 'accepted' })
  fleet.agent(SERVER, { id, status: 'failure', error, result })
  fleet.settle()
}
