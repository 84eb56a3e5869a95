/** The TLS sample of deploy/ starts, alone and as a cluster of three, and lets in only what it should. */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect, nkeyAuthenticator } from 'nats'
import * as assert from 'uvu/assert'
import { projectDir } from '../../scripts/config.ts'
import { ensureIdentities, type Identities } from '../../scripts/keyring.ts'
import { ensureNatsServer } from '../../scripts/nats-server.ts'
import { inboxOf } from '../../services/nats/permissions.ts'
import { eventually } from '../eventually.ts'
import { freePorts } from '../nats.ts'
import { suite } from '../suite.ts'

const test = suite('TLS in deploy/')
const dataDir = mkdtempSync(join(tmpdir(), 'muster-tls-'))
const tls = join(dataDir, 'tls')
const script = join(projectDir, 'deploy/certificates.sh')
const servers: ChildProcess[] = []
let identities: Identities

test.before(async () => {
  identities = await ensureIdentities(dataDir)
  execFileSync(script, [tls, 'localhost', 'nats.example.com'], { stdio: 'pipe' })
  for (const sample of ['nats-tls.conf', 'nats-tls-cluster.conf']) {
    copyFileSync(join(projectDir, 'deploy', sample), join(dataDir, 'nats', sample))
  }
})
test.after(() => {
  for (const server of servers) server.kill('SIGKILL')
  rmSync(dataDir, { recursive: true })
})

test('the certificates are for the names given, keys are readable by their owner only, a second run changes nothing', () => {
  const told = execFileSync('openssl', ['x509', '-in', join(tls, 'nats.example.com.pem'), '-noout', '-text'], {
    encoding: 'utf8',
  })
  assert.match(told, 'DNS:nats.example.com')
  assert.match(told, 'CA:FALSE')
  for (const key of ['ca.key', 'localhost.key']) assert.is(statSync(join(tls, key)).mode & 0o777, 0o600, key)
  const before = readFileSync(join(tls, 'ca.pem'), 'utf8')
  assert.is(execFileSync(script, [tls, 'localhost'], { encoding: 'utf8' }), '')
  assert.is(readFileSync(join(tls, 'ca.pem'), 'utf8'), before)
  assert.is(spawnSync(script, [tls]).status, 1, 'a name is needed')
})

test('one server lets in who trusts its authority and presents a seed, and nobody in plain text', async () => {
  const [port = 0] = await freePorts(1)
  await run('nats-tls.conf', 1, [`--port=${port}`], port)
  const nc = await client(port, readFileSync(join(tls, 'ca.pem'), 'utf8'))
  assert.is(nc.info?.tls_required, true)
  assert.is(nc.info?.jetstream, true)
  await nc.close()
  await refused(client(port), 'an unknown authority')
  await refused(
    connect({ servers: `tls://localhost:${port}`, tls: { ca: readFileSync(join(tls, 'ca.pem'), 'utf8') } }),
    'no seed',
  )
})

test('NODE_EXTRA_CA_CERTS is all a process of Muster needs', async () => {
  const [port = 0] = await freePorts(1)
  await run('nats-tls.conf', 2, [`--port=${port}`], port)
  const env = { ...process.env, NATS_URL: `tls://localhost:${port}`, NATS_SEED_FILE: identities.seedFile('admin') }
  const provision = (more: NodeJS.ProcessEnv) =>
    spawnSync(process.execPath, ['--import', 'tsx', join(projectDir, 'scripts/provision.ts')], {
      env: { ...env, ...more },
      encoding: 'utf8',
      timeout: 20_000,
    })
  const trusting = provision({ NODE_EXTRA_CA_CERTS: join(tls, 'ca.pem') })
  assert.match(trusting.stdout, 'buckets are ready', trusting.stderr)
})

test('three servers form a cluster over encrypted routes', async () => {
  const ports = await freePorts(6)
  const [clients, routes] = [ports.slice(0, 3), ports.slice(3)]
  const all = routes.map(port => `nats-route://localhost:${port}`).join(',')
  const args = (n: number) => [`--port=${clients[n]}`, `--cluster=nats://127.0.0.1:${routes[n]}`, `--routes=${all}`]
  const outputs = await Promise.all([0, 1, 2].map(n => run('nats-tls-cluster.conf', n + 3, args(n), clients[n] ?? 0)))
  await eventually(() => outputs.some(output => /new metadata leader/.test(output())), { withinMs: 20_000 })
  const nc = await client(clients[0] ?? 0, readFileSync(join(tls, 'ca.pem'), 'utf8'))
  const made = await eventually(
    async () => {
      const body = JSON.stringify({ name: 'three', subjects: ['three'], num_replicas: 3, storage: 'memory' })
      const answer = await nc.request('$JS.API.STREAM.CREATE.three', body, { timeout: 2_000 })
      return answer.json<{ config?: { num_replicas: number } }>().config
    },
    { withinMs: 20_000 },
  )
  assert.is(made.num_replicas, 3)
  await nc.close()
})

test.run()

/** Starts a sample on 127.0.0.1; resolves when it listens, with its output. */
async function run(sample: string, n: number, args: string[], port: number): Promise<() => string> {
  const { path } = await ensureNatsServer()
  const child = spawn(path, [`--config=${join(dataDir, 'nats', sample)}`, '--addr=127.0.0.1', ...args], {
    env: {
      NATS_NAME: `nats${n}`,
      NATS_STORE: join(dataDir, `store${n}`),
      NATS_CERT: join(tls, 'localhost.pem'),
      NATS_KEY: join(tls, 'localhost.key'),
      NATS_CA: join(tls, 'ca.pem'),
    },
  })
  servers.push(child)
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', chunk => {
      output += chunk
    })
  }
  await eventually(() => output.includes('Server is ready'), {
    withinMs: 10_000,
    what: `${sample} on ${port}: ${output}`,
  })
  assert.ok(existsSync(join(dataDir, `store${n}`)))
  return () => output
}

function client(port: number, ca?: string) {
  const authenticator = nkeyAuthenticator(
    new TextEncoder().encode(readFileSync(identities.seedFile('admin'), 'utf8').trim()),
  )
  const tlsOptions = ca ? { ca } : {}
  return connect({
    servers: `tls://localhost:${port}`,
    tls: tlsOptions,
    authenticator,
    inboxPrefix: inboxOf('admin'),
    reconnect: false,
  })
}

async function refused(attempt: Promise<{ close(): Promise<void> }>, what: string): Promise<void> {
  const opened = await attempt.catch(() => undefined)
  await opened?.close()
  assert.is(opened, undefined, `${what} is refused`)
}
