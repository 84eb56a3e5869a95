/** What an allocator counts: its process, and the fleet it keeps in memory. */
import { Counter, Gauge } from 'prom-client'
import { type MetricLabels, processRegistry } from '../actor-host/metrics.ts'
import type { NatsConnection } from '../nats/connect.ts'
import { answerMetrics, onReconnect } from '../nats/metrics.ts'
import type { Fleet } from './fleet.ts'

/** Answers what gateways ask; returns how to stop. */
export function serveAllocatorMetrics(nc: NatsConnection, labels: MetricLabels, fleet: Fleet): () => void {
  const registry = processRegistry(labels)
  const registers = [registry]
  const reconnects = new Counter({
    name: 'muster_nats_reconnects_total',
    help: 'Times the connection to NATS was lost and found again',
    registers,
  })
  onReconnect(nc, () => reconnects.inc())
  new Gauge({
    name: 'muster_allocator_servers',
    help: 'Servers that placement chooses from',
    registers,
    collect() {
      this.set([...fleet.servers()].length)
    },
  })
  return answerMetrics(nc, () => registry.getMetricsAsJSON())
}
