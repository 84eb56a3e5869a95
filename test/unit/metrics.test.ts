/** Metrics without processes: which exist from the start, how writes are counted, and the text that Prometheus reads. */
import * as assert from 'uvu/assert'
import { createGatewayMetrics } from '../../gateway/metrics.ts'
import { createHostMetrics } from '../../services/actor-host/metrics.ts'
import type { Msg, NatsConnection } from '../../services/nats/connect.ts'
import { answerMetrics, type Metric, metricsText } from '../../services/nats/metrics.ts'
import { eventually } from '../eventually.ts'
import { suite } from '../suite.ts'

const test = suite('metrics')
const labels = { datacenter: 'east-1', instance: 'one', server: 'box' }
const stats = () => ({
  partitions: 64,
  hosts: [],
  actors: 3,
  items: 2,
  deadlines: 1,
  unsent: 4,
  commits: 0,
  misdirected: 0,
})
const host = () => createHostMetrics({ ...labels, service: 'actor-host' }, { stats, beating: () => 7 })
const textOf = async ({ registry }: ReturnType<typeof host>) =>
  metricsText((await registry.getMetricsAsJSON()) as unknown as Metric[])

/** Value of a metric without labels beside the static ones. */
const valueIn = (text: string, name: string) =>
  Number(new RegExp(`^${name}\\{datacenter[^}]*\\} (.*)$`, 'm').exec(text)?.[1])

const counters = [
  'reconciler_new_heartbeaters_total',
  'reconciler_stale_heartbeaters_total',
  'reconciler_usurped_heartbeaters_total',
  'reconciler_server_put_total',
  'reconciler_server_put_etag_failures_total',
  'reconciler_server_put_failures_total',
  'reconciler_status_put_total',
  'reconciler_status_put_etag_failures_total',
  'reconciler_status_put_failures_total',
  'reconciler_status_failures_total',
]

test('every documented counter is there at 0 before anything has happened, with its help, type and labels', async () => {
  const text = await textOf(host())
  for (const name of counters) {
    assert.is(valueIn(text, name), 0, name)
    assert.match(text, `# TYPE ${name} counter`)
  }
  assert.is(valueIn(text, 'heartbeating_servers_count'), 7)
  assert.match(text, '{datacenter="east-1",instance="one",server="box",service="actor-host"} 7')
  for (const name of ['nodejs_eventloop_lag_seconds', 'process_cpu_seconds_total', 'nodejs_active_handles_total'])
    assert.match(text, `# TYPE ${name} `)
})

test('writes of servers are counted, and those of liveness in both places, failures by either spelling', async () => {
  const metrics = host()
  const put = (events: string[], outcome: 'stored' | 'conflict' | 'failed', kind: 'cn' | 'vm' = 'cn') =>
    metrics.put({ kind, events, outcome, ms: 3 })
  put(['register'], 'stored')
  put(['heard'], 'stored')
  put(['silent'], 'conflict')
  put(['silent'], 'failed')
  put(['start'], 'stored', 'vm')
  const text = await textOf(metrics)
  const values = counters.slice(3).map(name => valueIn(text, name))
  assert.equal(values, [4, 1, 2, 3, 1, 2, 2])
  assert.match(
    text,
    /muster_commits_total\{.*kind="vm",outcome="stored".*\} 1|muster_commits_total\{kind="vm",outcome="stored".*\} 1/,
  )
  assert.match(text, /muster_commit_duration_seconds_count\{.*\} 3/)
})

test('requests are counted by route, method, agent and status, and agents that anybody invents do not add up', async () => {
  const metrics = createGatewayMetrics(labels, {
    openTasks: () => 5,
    servers: () => ({ running: 2 }),
    readers: () => 0,
  })
  const request = { route: 'ServerGet', method: 'GET', userAgent: 'curl/8.0 (x)', status: 200, ms: 4 }
  metrics.observe(request)
  metrics.observe(request)
  for (let n = 0; n < 500; n++) metrics.observe({ ...request, route: undefined, userAgent: `robot/${n}`, status: 404 })
  const own = await metrics.own()
  const text = metricsText(own)
  const line = 'route="serverget",method="GET",user_agent="curl/8.0",status_code="200",buckets_version="1"'
  assert.ok(
    text.split('\n').some(at => at.startsWith('http_requests_completed{') && at.includes(line) && at.endsWith(' 2')),
  )
  assert.ok(text.includes(`http_request_duration_seconds_count{`))
  assert.match(text, 'route="unknown"')
  const completed = own.find(({ name }) => name === 'http_requests_completed')
  assert.ok((completed?.values.length ?? 0) < 60, String(completed?.values.length))
  assert.match(text, /muster_open_tasks\{.*\} 5/)
})

test('metrics of one name from several processes stand together, and labels are escaped', () => {
  const metric = (instance: string): Metric => ({
    name: 'm',
    help: 'two\nlines',
    type: 'counter',
    values: [{ value: 1, labels: { instance } }],
  })
  const other: Metric = {
    name: 'n',
    help: '',
    type: 'gauge',
    values: [{ value: Number.POSITIVE_INFINITY, labels: {} }],
  }
  const text = metricsText([metric('a'), other, metric('b"\\\n')])
  assert.is(
    text,
    '# HELP m two\\nlines\n# TYPE m counter\nm{instance="a"} 1\nm{instance="b\\"\\\\\\n"} 1\n\n# HELP n \n# TYPE n gauge\nn +Inf\n',
  )
})

test('a scrape that meets a process on its way out does not end it with an error', async () => {
  let asked = (_: null, __: Msg) => {}
  const subscribe = (_: string, { callback }: { callback: typeof asked }) => {
    asked = callback
    return { unsubscribe: () => {} }
  }
  let tried = false
  const respond = () => {
    tried = true
    throw new Error('the connection is draining')
  }
  const unhandled: unknown[] = []
  const note = (error: unknown) => void unhandled.push(error)
  process.on('unhandledRejection', note)
  answerMetrics({ subscribe } as unknown as NatsConnection, async () => [])
  asked(null, { respond } as unknown as Msg)
  await eventually(() => tried, { what: 'an answer' })
  await new Promise(resolve => setTimeout(resolve, 10))
  process.off('unhandledRejection', note)
  assert.equal(unhandled, [])
})

test.run()
