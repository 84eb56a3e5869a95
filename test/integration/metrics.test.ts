/** Prometheus scrapes one port of a gateway and sees every process: actor hosts, allocators and the gateway, as real processes. */
import { randomUUID } from 'node:crypto'
import * as assert from 'uvu/assert'
import { connectNats, type NatsConnection } from '../../services/nats/connect.ts'
import { provision } from '../../services/nats/provision.ts'
import { eventually } from '../eventually.ts'
import { freePorts, startNats, type TestNats } from '../nats.ts'
import { suite } from '../suite.ts'
import { actorHost, allocator, type Gateway, gateway, killAll, type Process } from '../waitlist/processes.ts'

const test = suite('metrics of a running Muster')
const processes: Process[] = []
let nats: TestNats
let nc: NatsConnection
let served: Gateway
let scrapePort = 0

test.before(async () => {
  nats = await startNats()
  nc = await connectNats({ servers: nats.urls, name: 'test', inboxOwner: 'admin' })
  await provision(nc)
  const [port = 0, metricsPort = 0] = await freePorts(2)
  scrapePort = metricsPort
  const site = { DATACENTER_NAME: 'east-1' }
  served = gateway(nats.url, 'gate', port, {
    ...site,
    METRICS_PORT: String(metricsPort),
    NAPI_URL: 'http://napi.example.com',
  })
  processes.push(actorHost(nats.url, 'one', site), allocator(nats.url, site), served)
  await Promise.all(processes.map(process => process.start()))
})
test.after(async () => {
  await killAll(processes)
  await nc?.close()
  await nats?.stop()
})

const scrape = async (path = '/metrics') => (await fetch(`http://127.0.0.1:${scrapePort}${path}`)).text()
const value = (text: string, name: string, label = '') =>
  text
    .split('\n')
    .filter(line => line.startsWith(`${name}{`) && line.includes(label))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' '))), 0)

test('counters of the whole control plane start at 0, each process under its own labels', async () => {
  const text = await scrape()
  for (const name of ['reconciler_new_heartbeaters_total', 'reconciler_status_failures_total']) {
    assert.match(
      text,
      new RegExp(
        `^${name}\\{datacenter="east-1",instance="one-[0-9a-f]+",server="[^"]+",service="actor-host"\\} 0$`,
        'm',
      ),
    )
  }
  for (const service of ['actor-host', 'allocator', 'gateway'])
    assert.match(text, new RegExp(`^process_start_time_seconds\\{.*service="${service}"\\}`, 'm'))
  assert.is(text.match(/^# TYPE process_start_time_seconds /gm)?.length, 1)
})

test('a server that registers, beats and is asked for is counted in every place', async () => {
  const uuid = randomUUID()
  const sysinfo = { UUID: uuid, Hostname: 'node', 'MiB of Memory': '1024', Setup: 'true' }
  assert.is((await served.ask('POST', `/servers/${uuid}/sysinfo`, { body: { sysinfo } })).status, 200)
  assert.is((await served.ask('POST', `/servers/${uuid}/events/heartbeat`, { body: {} })).status, 204)
  assert.is((await served.ask('GET', `/servers/${uuid}`)).body.datacenter, 'east-1')
  assert.is((await served.ask('GET', '/nowhere')).status, 404)
  const text = await eventually(
    async () => {
      const now = await scrape()
      return value(now, 'heartbeating_servers_count') === 1 ? now : undefined
    },
    { withinMs: 10_000, what: 'a beating server' },
  )
  assert.is(value(text, 'reconciler_new_heartbeaters_total'), 1)
  assert.ok(value(text, 'reconciler_server_put_total') >= 1)
  assert.is(value(text, 'muster_servers', 'status="running"'), 1)
  assert.is(value(text, 'http_requests_completed', 'route="serverget"'), 1)
  assert.is(value(text, 'http_requests_completed', 'route="unknown"'), 1)
  assert.is(value(text, 'http_request_duration_seconds_count', 'route="serversysinforegister"'), 1)
})

test('a gateway names what it was given in vain, and its log is turned up while it runs', async () => {
  const line = served
    .log()
    .split('\n')
    .filter(text => text.includes('these settings change nothing here'))
  assert.is(line.length, 1)
  assert.match(line[0] ?? '', 'napi.url')
  await served.ask('GET', '/ping')
  assert.not.match(served.log(), '"route":"Ping"')
  assert.is((await served.ask('POST', '/loglevel', { body: { level: 20 } })).status, 200)
  await served.ask('GET', '/ping')
  await eventually(() => served.log().includes('"route":"Ping"'), { withinMs: 5_000, what: 'a line of level debug' })
})

test('a gateway alone is had from /metrics/self, and nothing else is served there', async () => {
  const text = await scrape('/metrics/self')
  assert.match(text, 'service="gateway"')
  assert.not.match(text, 'service="actor-host"')
  assert.is((await fetch(`http://127.0.0.1:${scrapePort}/servers`)).status, 404)
  assert.is((await fetch(`http://127.0.0.1:${scrapePort}/metrics`, { method: 'POST' })).status, 405)
})

test('without an actor host the scrape still shows the rest', async () => {
  await processes[0]?.kill()
  const text = await scrape()
  assert.match(text, 'service="gateway"')
  assert.not.match(text, 'service="actor-host"')
})

test.run()
