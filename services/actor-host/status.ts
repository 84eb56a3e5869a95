/**
 * Status events of nodes. The owner writes the inventory when something changed (counters that move all the time at most once a
 * minute) and tells VM actors only what differs from what it told them before; after a take-over, everything.
 */
import { createHash } from 'node:crypto'
import { type Rejection, rejection } from '../../actors/contract/errors.ts'
import type { ActorRecord, Reply } from '../../actors/contract/record.ts'
import { NO_SERVER, type StatusEvent } from '../../actors/contract/server.ts'
import { key } from '../nats/buckets.ts'
import type { Caller } from '../nats/caller.ts'
import { ConflictError, JetStreamRefusal, type Records } from '../nats/records.ts'
import type { Log } from '../runtime/log.ts'
import type { Fleet } from './fleet.ts'

export interface StatusDeps {
  records: Records
  call: Caller['call']
  fleet: Fleet
  log: Log
  /** Wall clock, ms. */
  now: () => number
}

export interface StatusReports {
  /** Answered when the inventory is durable; VM actors are told after that. */
  take(serverUuid: string, status: StatusEvent): Promise<Reply>
  /** Nothing told so far counts: all, or of the given nodes. */
  forget(which?: (serverUuid: string) => boolean): void
  /** The same of one node. */
  forgetOne(serverUuid: string): void
  /** Resolves when nobody is being told anything. */
  idle(): Promise<void>
}

const movingEveryMs = 60_000
const tellAtOnce = 16
/** Writes of an inventory that meet another's in between. */
const attemptsMax = 5
/** Clocks and deliveries differ: a record stored this shortly before a sample may be newer than it. */
const sampleSlackMs = 2_000
/** A node reports each minute: what it tells so long after a record was stored is newer, whatever its clock says. */
const sampleLateMs = 2 * 60_000
/** Words of a VM's record that a report may contradict: not in flight, not gone already. */
const present = new Set(['running', 'stopped', 'failed'])

interface Known {
  /** Digest of what does not move by itself, and when the inventory was written. */
  written?: { digest: string; at: number }
  /** Of the inventory as it was written or found last. */
  revision?: number
  /** What each VM actor was told last. */
  told: Map<string, { digest: string; at: number }>
  /** The report to tell next; a newer one replaces it. */
  next?: StatusEvent
  telling: boolean
}

export function createStatusReports({ records, call, fleet, log, now }: StatusDeps): StatusReports {
  const servers = new Map<string, Known>()
  let working = new Set<Promise<void>>()

  const tellAll = async (serverUuid: string, known: Known) => {
    for (let status = known.next; status; status = known.next) {
      delete known.next
      await tellOne(serverUuid, known, status)
    }
  }

  const tellOne = async (serverUuid: string, known: Known, status: StatusEvent) => {
    const sampledAt = sampleTime(status, now())
    const reported = new Map(Object.entries(status.vms ?? {}).map(([uuid, vm]) => [uuid.toLowerCase(), vm]))
    const jobs: (() => Promise<void>)[] = []
    for (const [uuid, vm] of reported) {
      const digest = digestOf({ ...vm, last_modified: undefined })
      if (isTold(known, uuid, digest)) continue
      jobs.push(async () => {
        const params = { server_uuid: serverUuid, seen_at: sampledAt, vm: { ...vm, uuid } }
        noteTold(known, uuid, digest, await call('vm', uuid, 'reported', params))
      })
    }
    for (const [uuid, { state, changedAt }] of fleet.vmsOf(serverUuid)) {
      if (reported.has(uuid) || !present.has(state) || isTold(known, uuid, 'vanished')) continue
      // Changed after the node looked: the next report will tell.
      if (changedAt > Math.min(sampledAt, now()) - sampleSlackMs && now() - changedAt < sampleLateMs) continue
      jobs.push(async () => {
        const params = { server_uuid: serverUuid, seen_at: sampledAt }
        noteTold(known, uuid, 'vanished', await call('vm', uuid, 'vanished', params))
      })
    }
    for (const uuid of known.told.keys()) {
      if (!reported.has(uuid) && !fleet.vm(uuid)) known.told.delete(uuid)
    }
    const next = async () => {
      for (let job = jobs.pop(); job; job = jobs.pop()) {
        // The server was deleted meanwhile, or is another host's now: a VM that is forgotten with it must not hear of this.
        if (servers.get(serverUuid) !== known) return
        // One id that cannot be a VM's must not keep the others from being told.
        await job().catch(error => log.warn({ err: error, server_uuid: serverUuid }, 'a VM could not be told'))
      }
    }
    await Promise.all(Array.from({ length: tellAtOnce }, next))
  }

  /** Told already, and the record was not changed by somebody else since. */
  const isTold = (known: Known, uuid: string, digest: string) => {
    const last = known.told.get(uuid)
    if (last?.digest !== digest) return false
    const vm = fleet.vm(uuid)
    // A record that is gone was forgotten meanwhile: the VM is discovered again.
    if (!vm) return now() - last.at < sampleSlackMs
    return vm.changedAt <= last.at + sampleSlackMs
  }

  const noteTold = (known: Known, uuid: string, digest: string, reply: { value: unknown } | { error: Rejection }) => {
    if ('error' in reply && reply.error.code === 'ServiceUnavailableError') return
    known.told.set(uuid, { digest, at: now() })
  }

  const writeInventory = async (serverUuid: string, known: Known, status: StatusEvent): Promise<Reply> => {
    const { timestamp: _timestamp, meminfo: _meminfo, diskinfo: _diskinfo, zpoolStatus: _pools, ...still } = status
    const healths = Object.entries(status.health ?? {}).map(([name, { ok, message }]) => [name, ok, message])
    const digest = digestOf({ ...still, health: healths })
    const written = known.written
    if (written?.digest === digest && now() - written.at < movingEveryMs) return { value: {} }
    try {
      if (!(await store(serverUuid, known, status))) {
        servers.delete(serverUuid)
        return unknownServer(serverUuid)
      }
    } catch (error) {
      log.warn({ err: error, server_uuid: serverUuid }, 'a status event could not be stored')
      const why = error instanceof JetStreamRefusal ? error.message : undefined
      return { error: rejection('ServiceUnavailableError', why) }
    }
    known.written = { digest, at: now() }
    return { value: {} }
  }

  /**
   * Writes over what it knows to be there, and over nothing else. A deletion drops the inventory after its commit: a write that was begun
   * before meets another revision then, and looks again. False when there is no such server; the revision is looked at before that is
   * asked, so that a deletion in between is met by the write.
   */
  const store = async (serverUuid: string, known: Known, status: StatusEvent): Promise<boolean> => {
    const name = key.status(serverUuid)
    for (let attempt = 1; ; attempt++) {
      try {
        if (known.revision === undefined) {
          const { revision } = await records.look('inventory', name)
          if (!(await isServer(serverUuid))) return false
          known.revision = revision
        }
        const value = await completed(serverUuid, status)
        known.revision = await records.update('inventory', name, value, known.revision)
        return true
      } catch (error) {
        delete known.revision
        if (!(error instanceof ConflictError) || attempt === attemptsMax) throw error
      }
    }
  }

  /** What a report leaves out keeps its last value: an agent may have nothing to tell but that its hypervisor is silent. */
  const completed = async (serverUuid: string, status: StatusEvent): Promise<StatusEvent> => {
    if (status.vms && status.meminfo && status.diskinfo) return status
    const last = (await records.get('inventory', key.status(serverUuid)))?.value as StatusEvent | undefined
    const health = { ...last?.health, ...status.health }
    return { ...last, ...status, ...(Object.keys(health).length > 0 ? { health } : {}) }
  }

  const isServer = async (serverUuid: string) => {
    const entry = await records.get('cn', key.actor('cn', serverUuid))
    return entry !== undefined && !NO_SERVER.includes((entry.value as ActorRecord).state)
  }

  return {
    take: async (serverUuid, status) => {
      if (fleet.stateOf(serverUuid) === undefined && !(await isServer(serverUuid))) {
        return unknownServer(serverUuid)
      }
      const known: Known = servers.get(serverUuid) ?? { told: new Map(), telling: false }
      servers.set(serverUuid, known)
      const reply = await writeInventory(serverUuid, known, status)
      if ('error' in reply || !status.vms) return reply
      known.next = status
      if (!known.telling) {
        known.telling = true
        const work: Promise<void> = tellAll(serverUuid, known)
          .catch(error => log.error({ err: error, server_uuid: serverUuid }, 'VMs could not be told'))
          .finally(() => {
            known.telling = false
            working.delete(work)
          })
        working.add(work)
      }
      return reply
    },
    forget: which => {
      for (const serverUuid of servers.keys()) if (!which || which(serverUuid)) servers.delete(serverUuid)
    },
    forgetOne: serverUuid => {
      servers.delete(serverUuid)
    },
    idle: async () => {
      while (working.size > 0) await Promise.all(working)
      working = new Set()
    },
  }
}

const unknownServer = (serverUuid: string): Reply => ({
  error: rejection('ResourceNotFound', `server ${serverUuid} not found`),
})

/** When the node looked, by its clock; ours when it does not say. */
function sampleTime({ timestamp }: StatusEvent, fallback: number): number {
  const at = Date.parse(timestamp ?? '')
  return Number.isNaN(at) ? fallback : at
}

const digestOf = (value: unknown) => createHash('sha1').update(JSON.stringify(value)).digest('base64').slice(0, 12)
