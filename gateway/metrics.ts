/**
 * What a gateway counts, and the address where Prometheus finds it: `/metrics` shows every actor host and allocator too, so that one port
 * shows the documented names whatever runs where; `/metrics/self` is this gateway alone.
 */
import { once } from 'node:events'
import { createServer } from 'node:http'
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import { type Metric, metricsText } from '../services/nats/metrics.ts'

/** One request, when it was answered. */
export interface Observed {
  /** Name of its row; undefined: no route fits. */
  route: string | undefined
  method: string
  userAgent: string | undefined
  status: number
  ms: number
}

export interface GatewayMetrics {
  observe(request: Observed): void
  reconnected(): void
  /** Its own metrics. */
  own(): Promise<Metric[]>
}

export interface Gauges {
  /** Tasks of all servers that have not ended. */
  openTasks(): number
  /** Servers by status. */
  servers(): Record<string, number>
  /** Readers of server-sent events. */
  readers(): number
}

/** Different agents that are told apart: anybody may send any text. */
const AGENTS_MAX = 50
const AGENT_MAX_LENGTH = 64
const labelNames = ['route', 'method', 'user_agent', 'status_code', 'buckets_version'] as const

export function createGatewayMetrics(
  labels: { datacenter: string; instance: string; server: string },
  gauges: Gauges,
): GatewayMetrics {
  const registry = new Registry()
  const registers = [registry]
  registry.setDefaultLabels({ ...labels, service: 'gateway' })
  collectDefaultMetrics({ register: registry })
  const completed = new Counter({
    name: 'http_requests_completed',
    help: 'Requests answered',
    labelNames,
    registers,
  })
  const duration = new Histogram({
    name: 'http_request_duration_seconds',
    help: 'Time to the answer of a request',
    labelNames,
    buckets: [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60],
    registers,
  })
  const reconnects = new Counter({
    name: 'muster_nats_reconnects_total',
    help: 'Times the connection to NATS was lost and found again',
    registers,
  })
  const gauge = (name: string, help: string, read: () => number) =>
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(read())
      },
    })
  gauge('muster_open_tasks', 'Tasks of all servers that have not ended', gauges.openTasks)
  gauge('muster_event_readers', 'Readers of GET /events here', gauges.readers)
  new Gauge({
    name: 'muster_servers',
    help: 'Servers by status',
    labelNames: ['status'],
    registers,
    collect() {
      this.reset()
      for (const [status, count] of Object.entries({ running: 0, unknown: 0, ...gauges.servers() })) {
        this.set({ status }, count)
      }
    },
  })

  const agents = new Set<string>()
  const agentOf = (text = '') => {
    const agent = (text.split(' ')[0] ?? '').slice(0, AGENT_MAX_LENGTH) || 'none'
    if (agents.has(agent)) return agent
    if (agents.size >= AGENTS_MAX) return 'other'
    agents.add(agent)
    return agent
  }

  return {
    observe: ({ route, method, userAgent, status, ms }) => {
      const of = {
        route: route?.toLowerCase() ?? 'unknown',
        method,
        user_agent: agentOf(userAgent),
        status_code: String(status),
        buckets_version: '1',
      }
      completed.inc(of)
      duration.observe(of, ms / 1000)
    },
    reconnected: () => reconnects.inc(),
    own: async () => (await registry.getMetricsAsJSON()) as unknown as Metric[],
  }
}

export interface MetricsServer {
  port: number
  close(): void
}

/** Listens; rejects when it cannot. `others`: metrics of the other processes. */
export async function serveMetrics(
  { port, host }: { port: number; host: string },
  own: () => Promise<Metric[]>,
  others: () => Promise<Metric[]>,
): Promise<MetricsServer> {
  const pages: Record<string, () => Promise<Metric[]>> = {
    '/metrics': async () => (await Promise.all([own(), others()])).flat(),
    '/metrics/self': own,
  }
  const server = createServer((request, response) => {
    const page = pages[(request.url ?? '').split('?')[0] ?? '']
    if (!page || request.method !== 'GET') {
      response.writeHead(page ? 405 : 404).end()
      return
    }
    page().then(
      metrics =>
        response
          .writeHead(200, { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' })
          .end(metricsText(metrics)),
      error => response.writeHead(500).end(String(error)),
    )
  })
  server.listen(port, host)
  await once(server, 'listening')
  const address = server.address()
  return {
    port: typeof address === 'object' && address ? address.port : port,
    close: () => {
      server.close()
      server.closeAllConnections()
    },
  }
}
