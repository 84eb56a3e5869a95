/** An actor host put together: the runtime with the real machines, and what its owner keeps in memory beside them. */
import * as v from 'valibot'
import { ACTORS, actorsWith, type FreshServer } from '../../actors/actors.ts'
import { rejection } from '../../actors/contract/errors.ts'
import { SysinfoReport } from '../../actors/contract/messages.ts'
import type { Reply } from '../../actors/contract/record.ts'
import { NO_SERVER, StatusEvent } from '../../actors/contract/server.ts'
import { TICKET_KEPT_MS } from '../../actors/contract/ticket.ts'
import { loadBootDefaults } from '../nats/boot-defaults.ts'
import { createCaller } from '../nats/caller.ts'
import type { NatsConnection } from '../nats/connect.ts'
import { answerMetrics } from '../nats/metrics.ts'
import { isKind, partitionOf } from '../nats/subjects.ts'
import { createDecide } from '../runtime/decide.ts'
import { fieldErrors } from '../runtime/field-errors.ts'
import type { Log } from '../runtime/log.ts'
import { createRuntime, type Runtime } from '../runtime/runtime.ts'
import { createDeletedServers } from './deleted-servers.ts'
import { createFleet } from './fleet.ts'
import { createLiveness } from './liveness.ts'
import { createLostServers } from './lost-servers.ts'
import { serveMachines } from './machines.ts'
import { createHostMetrics, type HostMetrics, type MetricLabels } from './metrics.ts'
import { createRead, createSync } from './reads.ts'
import { createStatusReports } from './status.ts'

export interface ActorHost {
  /** Resolves when this host is live. */
  start(): Promise<void>
  /** Hands over without a failed request. */
  stop(): Promise<void>
  stats: Runtime['stats']
}

export interface ActorHostOptions {
  nc: NatsConnection
  /** Never the same for two lives of a process. */
  hostId: string
  log: Log
  /** How long tickets that have ended stay readable; default 30 days. */
  ticketKeptMs?: number
  /** What new servers begin with. */
  fresh?: FreshServer
  /** What its metrics are labelled with; absent: it answers no question for metrics. */
  labels?: MetricLabels
}

const lookEveryMs = 1_000

export function createActorHost({
  nc,
  hostId,
  log,
  ticketKeptMs = TICKET_KEPT_MS,
  fresh = {},
  labels,
}: ActorHostOptions): ActorHost {
  const { call } = createCaller(nc, `host-${hostId}`)
  const fleet = createFleet()
  const recordOf = (serverUuid: string) => call('cn', serverUuid, 'get', {})

  const statusOf = (id: string, payload: unknown): Promise<Reply> => {
    const status = v.safeParse(StatusEvent, payload)
    if (status.success) return reports.take(id, status.output)
    return Promise.resolve({ error: rejection('InvalidParameters', undefined, fieldErrors(status.issues)) })
  }

  const runtime = createRuntime({
    nc,
    hostId,
    kinds: Object.keys(ACTORS).filter(isKind),
    decide: createDecide(actorsWith({ ticketKeptMs, fresh })),
    log,
    calls: {
      'cn.cmd.read': createRead(nc),
      'cn.cmd.status': ({ id, command }) => statusOf(id, command.params['status']),
      'cn.agent.status': ({ id, command }) => statusOf(id, command.params),
      'cn.agent.sync': input => syncCall(input),
      'cn.agent.sysinfo': async ({ id, command }) => {
        const report = v.safeParse(SysinfoReport, command.params)
        if (!report.success) return { error: rejection('InvalidParameters', undefined, fieldErrors(report.issues)) }
        const defaults = await loadBootDefaults(records, (problem, error) => log.warn({ err: error }, problem))
        const { sysinfo } = report.output
        return call('cn', id, 'register', { sysinfo, ...(defaults ? { defaults } : {}) })
      },
    },
    onHeartbeat: serverUuid => liveness.beat(serverUuid),
    onCommitted: ({ kind, id, transitions }) => {
      if (kind !== 'cn') return
      if (transitions.some(({ event }) => event === 'register')) {
        liveness.registered(id)
        deletedServers.cameBack(id)
      }
      // What its VMs were told counts no more, and its inventory is gone.
      if (transitions.some(({ from, to }) => NO_SERVER.includes(from) || NO_SERVER.includes(to))) reports.forgetOne(id)
    },
    onPut: put => metrics?.put(put),
    onTook: partitions => {
      const ours = (serverUuid: string) => partitions.has(partitionOf(serverUuid))
      liveness.grace(ours)
      reports.forget(ours)
    },
    onLapse: () => {
      liveness.grace()
      reports.forget()
    },
  })
  const { records } = runtime
  const syncCall = createSync(recordOf, records)
  const reports = createStatusReports({ records, call, fleet, log, now: Date.now })
  const liveness = createLiveness({
    call,
    servers: fleet.servers,
    stateOf: fleet.stateOf,
    owns: runtime.owns,
    log,
    ...(labels ? { count: countOf(() => metrics) } : {}),
    now: () => performance.now(),
  })
  const deletedServers = createDeletedServers({ call, fleet, owns: runtime.owns, log })
  runtime.index.onTold(createLostServers({ call, fleet, owns: runtime.owns, log }))
  const metrics = labels && createHostMetrics(labels, { stats: runtime.stats, beating: liveness.beating })
  runtime.index.onTold(fleet.told)

  const listen = async () => {
    for await (const { type } of nc.status()) {
      if (type !== 'reconnect') continue
      liveness.grace()
      metrics?.reconnected()
    }
  }
  let looking: NodeJS.Timeout | undefined
  let stopped = false
  /** Beats of nodes that are not known yet are lost: silence counts from when all are, and nothing is missing before. */
  const watchNodes = async () => {
    await runtime.index.ready
    liveness.grace()
    const look = () => {
      liveness.look()
      deletedServers.look()
    }
    if (!stopped) looking = setInterval(look, lookEveryMs)
  }
  let stopMachines = () => {}
  let stopMetrics = () => {}

  return {
    stats: runtime.stats,
    start: async () => {
      await runtime.start()
      watchNodes().catch(error => log.error({ err: error }, 'nodes are not watched'))
      stopMachines = serveMachines(nc)
      if (metrics) stopMetrics = answerMetrics(nc, () => metrics.registry.getMetricsAsJSON())
      listen().catch(error => log.error({ err: error }, 'the connection is no longer watched'))
    },
    stop: async () => {
      stopped = true
      clearInterval(looking)
      stopMachines()
      stopMetrics()
      await runtime.stop()
    },
  }
}

/** Liveness is made before the metrics that ask it. */
const countOf = (metrics: () => HostMetrics | undefined): HostMetrics['count'] => ({
  fresh: () => metrics()?.count.fresh(),
  stale: () => metrics()?.count.stale(),
  usurped: () => metrics()?.count.usurped(),
})
