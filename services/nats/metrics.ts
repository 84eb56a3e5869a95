/**
 * Metrics of all processes in one place: a gateway asks, every actor host and allocator answers with its own, and each keeps its
 * labels, so nothing is summed and nothing is counted twice. Here because the question travels over NATS; what is counted is each process's.
 */
import { askAll } from './ask-all.ts'
import type { NatsConnection } from './connect.ts'
import { encode } from './json.ts'
import { subject } from './subjects.ts'

/** A metric as prom-client's registries tell it. */
export interface Metric {
  name: string
  help: string
  type: string
  values: { value: number; labels: Record<string, string | number>; metricName?: string }[]
}

/** Longest wait for all answers, and for one more after the last, ms. */
const ANSWERS_MAX_MS = 1_000
const LULL_MS = 150

/** Answers what gateways ask; returns how to stop. */
export function answerMetrics(nc: NatsConnection, collect: () => Promise<unknown>): () => void {
  const subscription = nc.subscribe(subject.metrics(), {
    callback: (error, message) => {
      if (error) return
      // Not to be had for a moment, or the connection is being closed: the scrape is without this process, and the next one has it again.
      collect()
        .then(metrics => void message.respond(encode({ value: metrics })))
        .catch(() => {})
    },
  })
  return () => subscription.unsubscribe()
}

/** Metrics of every process that answers now. */
export async function askMetrics(nc: NatsConnection): Promise<Metric[]> {
  const metrics: Metric[] = []
  for await (const reply of askAll(nc, subject.metrics(), {}, { maxMs: ANSWERS_MAX_MS, lullMs: LULL_MS })) {
    if ('value' in reply && Array.isArray(reply.value)) metrics.push(...reply.value)
  }
  return metrics
}

/** Prometheus' text format. Metrics of one name stand together, whoever told them. */
export function metricsText(metrics: readonly Metric[]): string {
  const byName = new Map<string, Metric[]>()
  for (const metric of metrics) byName.set(metric.name, [...(byName.get(metric.name) ?? []), metric])
  const blocks = [...byName].map(([name, same]) => {
    const { help = '', type = 'untyped' } = same[0] ?? {}
    const lines = same.flatMap(({ values }) =>
      values.map(({ metricName = name, labels, value }) => `${metricName}${labelsText(labels)} ${valueText(value)}`),
    )
    return [
      `# HELP ${name} ${help.replaceAll('\\', '\\\\').replaceAll('\n', '\\n')}`,
      `# TYPE ${name} ${type}`,
      ...lines,
    ]
  })
  return `${blocks.map(lines => lines.join('\n')).join('\n\n')}\n`
}

/** Calls back each time the connection is there again after it was lost. */
export function onReconnect(nc: NatsConnection, reconnected: () => void): void {
  const watch = async () => {
    for await (const { type } of nc.status()) if (type === 'reconnect') reconnected()
  }
  watch().catch(() => {})
}

function labelsText(labels: Record<string, string | number>): string {
  const texts = Object.entries(labels).map(([name, value]) => `${name}="${escaped(String(value))}"`)
  return texts.length === 0 ? '' : `{${texts.join(',')}}`
}

const escaped = (text: string) => text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')

/** What JSON has made null was no number. */
const valueText = (value: number | null): string => {
  if (value === null || Number.isNaN(value)) return 'NaN'
  if (Number.isFinite(value)) return String(value)
  return value > 0 ? '+Inf' : '-Inf'
}
