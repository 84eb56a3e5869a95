/** compose.yaml starts what it promises, and the fleet in it works through either gateway. */
import { existsSync, mkdtempSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { buildBundles, bundles } from '../../scripts/build.ts'
import { projectDir } from '../../scripts/config.ts'
import { ensureNatsServer } from '../../scripts/nats-server.ts'
import { type ComposeRun, dependencies, readCompose, startCompose } from '../compose.ts'
import { eventually } from '../eventually.ts'
import { suite } from '../suite.ts'

const test = suite('compose.yaml')
const file = readCompose()
const services = Object.entries(file.services)
const nodes = services.flatMap(([, { environment }]) => environment?.['SERVER_UUID'] ?? [])
let run: ComposeRun

test.before(async () => {
  await buildBundles(join(projectDir, 'dist'))
  const folder = mkdtempSync(join(tmpdir(), 'muster-compose-'))
  run = await startCompose(file, { folder, natsServer: (await ensureNatsServer()).path })
})
test.after(() => run?.stop())

test('it holds three NATS servers, two hosts, two gateways, an allocator and simulated nodes', () => {
  const count = (program: RegExp) => services.filter(([, { command }]) => program.test(command.join(' '))).length
  const programs = {
    nats: /^nats-server/,
    host: /actor-host/,
    gateway: /gateway/,
    allocator: /allocator/,
    node: /agent/,
  }
  const counts = Object.fromEntries(Object.entries(programs).map(([name, program]) => [name, count(program)]))
  assert.equal(counts, { nats: 3, host: 2, gateway: 2, allocator: 1, node: 2 })
  assert.is(new Set(nodes).size, 2)
})

test('every program is one that the build makes, every volume and dependency is declared, every port is local', () => {
  for (const [name, service] of services) {
    const bundle = /^dist\/(.+)\.mjs$/.exec(service.command[1] ?? '')?.[1]
    assert.ok(
      service.command[0] === 'nats-server' || (bundle && bundle in bundles),
      `${name} runs ${service.command.join(' ')}`,
    )
    for (const mount of service.volumes ?? [])
      assert.ok((mount.split(':')[0] ?? '') in file.volumes, `${name} mounts ${mount}`)
    for (const other of dependencies(service)) assert.ok(other in file.services, `${name} depends on ${other}`)
    for (const port of service.ports ?? []) assert.match(port, /^127\.0\.0\.1:/)
  }
  assert.ok(existsSync(join(projectDir, 'deploy/Dockerfile')))
})

test('the image holds what the commands need', () => {
  const lines = readFileSync(join(projectDir, 'deploy/Dockerfile'), 'utf8')
  for (const needed of [
    'COPY --from=build /muster/dist dist',
    'nats.conf',
    'package.json',
    'nats-server /usr/local/bin',
  ]) {
    assert.match(lines, needed)
  }
  const mountPoints = new Set(
    services.flatMap(([, { volumes = [] }]) => volumes.map(mount => mount.split(':')[1] ?? '')),
  )
  for (const path of mountPoints)
    assert.match(lines, new RegExp(`install -d .*${path}\\b`), `${path} belongs to the image's user`)
})

test(
  'each gateway shows every node running',
  async () => {
    for (const gateway of ['gateway1', 'gateway2']) {
      for (const uuid of nodes) {
        const server = () => get(gateway, `/servers/${uuid}`)
        await eventually(async () => (await server()).body.status === 'running', {
          withinMs: 30_000,
          what: `${uuid} running at ${gateway}; ${run.log(gateway).slice(-2000)}`,
        })
      }
    }
  },
  { limitMs: 60_000 },
)

test(
  'what one gateway acknowledged the other shows at once',
  async () => {
    const [server = ''] = nodes
    const uuid = '0b000000-0000-4000-8000-000000000001'
    const response = await fetch(`http://${run.address('gateway1', 8080)}/servers/${server}/vms`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({
        uuid,
        alias: 'first',
        ram: 256,
        vcpus: 1,
        brand: 'kvm',
        owner_uuid: uuid,
        disks: [{ size: 1024 }],
      }),
    })
    assert.is(response.status, 200, await response.clone().text())
    const { id } = (await response.json()) as { id: string }
    const task = await get('gateway2', `/tasks/${id}/wait?timeout=30`)
    assert.is(task.body.status, 'complete', JSON.stringify(task.body))
    const vms = await get('gateway2', `/servers/${server}/vms`)
    assert.ok(JSON.stringify(vms.body).includes(uuid), JSON.stringify(vms.body))
  },
  { limitMs: 60_000 },
)

test('no process lacked a right for its work', () => {
  for (const server of ['nats1', 'nats2', 'nats3']) {
    assert.match(run.log(server), 'Server is ready')
    assert.not.match(run.log(server), 'Violation')
  }
})

test(
  'with one of each killed the other gateway still answers',
  async () => {
    for (const service of ['host1', 'gateway1', 'nats1']) await run.end(service, 'SIGKILL')
    const [server = ''] = nodes
    await eventually(async () => (await get('gateway2', `/servers/${server}`)).status === 200, { withinMs: 30_000 })
    assert.not(run.running().includes('nats1'))
  },
  { limitMs: 60_000 },
)

test.run()

// biome-ignore lint/suspicious/noExplicitAny: bodies of every shape
async function get(gateway: string, path: string): Promise<{ status: number; body: any }> {
  const response = await fetch(`http://${run.address(gateway, 8080)}${path}`, { signal: AbortSignal.timeout(40_000) })
  return { status: response.status, body: await response.json() }
}
