/**
 * Which nodes are alive: the last beat of each, in memory at the owner. Only a change is a command (`heard`, `silent`), and a node
 * gets its full time again after a take-over, a lost connection or a pause of this process: our deafness is not its silence.
 */
import { HEARTBEAT_LIFETIME_MS } from '../../actors/contract/server.ts'
import type { Caller } from '../nats/caller.ts'
import type { Log } from '../runtime/log.ts'

export interface LivenessDeps {
  call: Caller['call']
  /** Registered nodes with the state of their record. */
  servers: () => Iterable<[uuid: string, state: string]>
  stateOf: (uuid: string) => string | undefined
  owns: (uuid: string) => boolean
  log: Log
  /** Counts what happens to heartbeaters: new to this host, gone stale, or another host's from now on. */
  count?: Record<'fresh' | 'stale' | 'usurped', () => void>
  /** Monotonic clock, ms. */
  now: () => number
}

export interface Liveness {
  /** A beat. One of a node that nobody registered is nothing. */
  beat(uuid: string): void
  /** A sysinfo is committed: counts as a beat, also of a node so new that the fleet does not know it yet. */
  registered(uuid: string): void
  /** Every node's time begins anew: those given, or all. */
  grace(which?: (uuid: string) => boolean): void
  /** Looks for nodes that were silent too long; called every second. */
  look(): void
  /** Nodes heard within the lifetime of a beat. */
  beating(): number
}

/** A change that did not reach its record is told again after this time. */
const againMs = 5_000

export function createLiveness({ call, servers, stateOf, owns, log, count, now }: LivenessDeps): Liveness {
  const heardAt = new Map<string, number>()
  const told = new Map<string, { verb: 'heard' | 'silent'; at: number }>()
  let graceFrom = now()

  /** When each node really beat last, whatever time it was given besides: for the counts alone. */
  const beats = new Map<string, number>()
  const noteBeat = (uuid: string) => {
    if (!beats.has(uuid)) count?.fresh()
    beats.set(uuid, now())
  }

  const tell = (uuid: string, verb: 'heard' | 'silent') => {
    const last = told.get(uuid)
    if (last?.verb === verb && now() - last.at < againMs) return
    told.set(uuid, { verb, at: now() })
    if (verb === 'silent') {
      count?.stale()
      beats.delete(uuid)
    }
    log.info({ server_uuid: uuid, verb }, verb === 'heard' ? 'a node is heard again' : 'a node has fallen silent')
    call('cn', uuid, verb, {}).then(
      reply => {
        if ('error' in reply)
          log.warn({ server_uuid: uuid, verb, code: reply.error.code }, 'liveness could not be told')
      },
      error => log.error({ err: error, server_uuid: uuid }, 'liveness could not be told'),
    )
  }

  return {
    registered: uuid => {
      noteBeat(uuid)
      heardAt.set(uuid, now())
      if (stateOf(uuid) === 'unknown') tell(uuid, 'heard')
    },
    beat: uuid => {
      const state = stateOf(uuid)
      if (state === undefined) return
      noteBeat(uuid)
      heardAt.set(uuid, now())
      if (state === 'unknown') tell(uuid, 'heard')
    },
    grace: which => {
      if (!which) {
        graceFrom = now()
        heardAt.clear()
        return
      }
      for (const [uuid] of servers()) if (which(uuid)) heardAt.set(uuid, now())
    },
    look: () => {
      for (const uuid of beats.keys()) {
        if (owns(uuid)) continue
        count?.usurped()
        beats.delete(uuid)
      }
      const due = now() - HEARTBEAT_LIFETIME_MS
      for (const [uuid, state] of servers()) {
        if (state !== 'running' || !owns(uuid)) continue
        if (Math.max(heardAt.get(uuid) ?? graceFrom, graceFrom) < due) tell(uuid, 'silent')
      }
    },
    beating: () => {
      const due = now() - HEARTBEAT_LIFETIME_MS
      return [...beats.values()].filter(at => at >= due).length
    },
  }
}
