/**
 * What an actor host counts: CNAPI's names for heartbeats and writes of server records (cnapi-behaviour §3.6), then ours. CNAPI writes a
 * status record beside the server's; here one write does both, so a write that changes liveness counts in both places.
 */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import type { Put } from '../runtime/mailbox.ts'
import type { Runtime } from '../runtime/runtime.ts'

export interface MetricLabels {
  datacenter: string
  /** Id of the process. */
  instance: string
  /** Machine it runs on. */
  server: string
  service: 'actor-host' | 'allocator' | 'gateway'
}

export interface HostMetrics {
  registry: Registry
  /** Heartbeaters, as liveness tells of them. */
  count: Record<'fresh' | 'stale' | 'usurped', () => void>
  put(put: Put): void
  reconnected(): void
}

/** A registry with the process's own metrics. */
export function processRegistry(labels: MetricLabels): Registry {
  const registry = new Registry()
  registry.setDefaultLabels(labels)
  collectDefaultMetrics({ register: registry })
  return registry
}

/** All counters exist from the start, at 0. `stats` and `beating` are asked at each scrape. */
export function createHostMetrics(
  labels: MetricLabels,
  { stats, beating }: { stats: Runtime['stats']; beating: () => number },
): HostMetrics {
  const registry = processRegistry(labels)
  const registers = [registry]
  const counter = (name: string, help: string) => new Counter({ name, help, registers })
  const gauge = (name: string, help: string, read: () => number) =>
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(read())
      },
    })

  gauge('heartbeating_servers_count', 'Servers heard within the lifetime of a heartbeat', beating)
  const heartbeaters = {
    fresh: counter('reconciler_new_heartbeaters_total', 'Servers heard that were new here, or forgotten'),
    stale: counter('reconciler_stale_heartbeaters_total', 'Servers that were silent for too long'),
    usurped: counter('reconciler_usurped_heartbeaters_total', 'Servers that another actor host has taken over'),
  }
  const [server, status] = (['server', 'status'] as const).map(what => ({
    puts: counter(`reconciler_${what}_put_total`, `Attempts to store ${words[what]}`),
    conflicts: counter(`reconciler_${what}_put_etag_failures_total`, `Those that met another write of the record`),
    failures: [
      counter(`reconciler_${what}_put_failures_total`, `Those that failed`),
      // The document's spelling of one of them.
      ...(what === 'status' ? [counter('reconciler_status_failures_total', 'Those that failed')] : []),
    ],
  }))

  const commits = new Counter({
    name: 'muster_commits_total',
    help: 'Attempts to store a record of an actor',
    labelNames: ['kind', 'outcome'],
    registers,
  })
  for (const kind of ['cn', 'vm', 'host', 'waitlist']) {
    for (const outcome of ['stored', 'conflict', 'failed']) commits.inc({ kind, outcome }, 0)
  }
  const latency = new Histogram({
    name: 'muster_commit_duration_seconds',
    help: 'Time from a decision to the acknowledgement of its record',
    buckets: [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2],
    registers,
  })
  latency.zero({})
  const reconnects = counter('muster_nats_reconnects_total', 'Times the connection to NATS was lost and found again')
  gauge('muster_partitions', 'Partitions owned, of 64', () => stats().partitions)
  gauge('muster_actors_in_memory', 'Actors whose record is in memory', () => stats().actors)
  gauge('muster_mailbox_depth', 'Inputs that wait for their actor', () => stats().items)
  gauge('muster_outbox_pending', 'Actors owned with effects that are not acknowledged', () => stats().unsent)
  gauge('muster_deadlines', 'Stored deadlines ahead, of actors owned', () => stats().deadlines)

  return {
    registry,
    count: {
      fresh: () => heartbeaters.fresh.inc(),
      stale: () => heartbeaters.stale.inc(),
      usurped: () => heartbeaters.usurped.inc(),
    },
    put: ({ kind, events, outcome, ms }) => {
      commits.inc({ kind, outcome })
      if (outcome === 'stored') latency.observe(ms / 1000)
      if (kind !== 'cn') return
      const isLiveness = events.includes('heard') || events.includes('silent')
      for (const of of isLiveness ? [server, status] : [server]) {
        of?.puts.inc()
        if (outcome === 'conflict') of?.conflicts.inc()
        if (outcome !== 'stored') for (const failed of of?.failures ?? []) failed.inc()
      }
    },
    reconnected: () => reconnects.inc(),
  }
}

const words = { server: 'the record of a server', status: 'a change of whether a server is alive' }
