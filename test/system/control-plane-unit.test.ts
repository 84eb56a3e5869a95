// The control plane as deploy/README.md installs it, under a real systemd: muster@actor-host, muster@allocator and muster@gateway
// from the bundles, each as a user of its own with a seed that only root can read, on a NATS server with TLS.
import { type ChildProcess, spawn } from 'node:child_process'
import { chmod, copyFile, cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { equal, match, not, ok } from 'uvu/assert'
import { buildBundles } from '../../scripts/build.ts'
import { projectDir } from '../../scripts/config.ts'
import { ensureIdentities, type Identities } from '../../scripts/keyring.ts'
import { ensureNatsServer } from '../../scripts/nats-server.ts'
import { eventually } from '../eventually.ts'
import { freePorts } from '../nats.ts'
import { suite } from '../suite.ts'
import { command } from './lab/command.ts'
import { whyNoLab } from './lab/lab.ts'
import { type SystemdNode, startSystemdNode } from './lab/nspawn.ts'
import { skipping } from './lab/suite.ts'

const reason = process.env['SYSTEM_TESTS'] === 'required' ? undefined : await whyNoLab()
const inner = suite("the control plane's unit")
const test = reason ? skipping(inner, reason) : inner
const processes = ['actor-host', 'allocator', 'gateway'] as const
const identityOf = { 'actor-host': 'host', allocator: 'allocator', gateway: 'gateway' } as const

let folder: string
let node: SystemdNode
let nats: ChildProcess | undefined
let identities: Identities
let natsPort = 0
let port = 0

test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'muster-control-'))
  ;[natsPort = 0, port = 0] = await freePorts(2)
  identities = await ensureIdentities(folder)
  const tls = join(folder, 'tls')
  await command(join(projectDir, 'deploy/certificates.sh'), [tls, 'localhost'])
  await copyFile(join(projectDir, 'deploy/nats-tls.conf'), join(folder, 'nats/nats-tls.conf'))
  const { path } = await ensureNatsServer()
  nats = spawn(path, [`--config=${join(folder, 'nats/nats-tls.conf')}`, '--addr=127.0.0.1', `--port=${natsPort}`], {
    env: {
      NATS_NAME: 'n1',
      NATS_STORE: join(folder, 'store'),
      NATS_CERT: join(tls, 'localhost.pem'),
      NATS_KEY: join(tls, 'localhost.key'),
      NATS_CA: join(tls, 'ca.pem'),
    },
    stdio: 'ignore',
  })
  node = await startSystemdNode({ network: 'host' })
  await install(join(tls, 'ca.pem'))
})
test.after(async () => {
  await node?.stop()
  nats?.kill('SIGKILL')
  await rm(folder, { recursive: true, force: true })
})

const property = async (unit: string, name: string) =>
  (await node.run('systemctl', ['show', '-P', name, `muster@${unit}`])).trim()

test(
  'after provisioning each process runs, and the gateway answers through the host',
  async () => {
    const env = { ...process.env, NATS_URL: natsUrl(), NODE_EXTRA_CA_CERTS: join(folder, 'tls/ca.pem') }
    const seed = { NATS_SEED_FILE: identities.seedFile('admin') }
    match(
      await command(process.execPath, [join(folder, 'dist/provision.mjs')], { env: { ...env, ...seed } }),
      'buckets are ready',
    )
    for (const unit of processes) {
      await node.run('systemctl', ['enable', '--now', `muster@${unit}`])
      await eventually(async () => (await property(unit, 'ActiveState')) === 'active', {
        withinMs: 20_000,
        everyMs: 200,
      })
    }
    await eventually(async () => (await fetch(`http://127.0.0.1:${port}/machines/vm`)).ok, {
      withinMs: 40_000,
      everyMs: 200,
      what: 'a statechart, which only a host can tell',
    })
    for (const unit of processes) equal(await property(unit, 'NRestarts'), '0', unit)
  },
  { limitMs: 150_000 },
)

test('each runs as a user of its own, without capabilities, and reads a copy of its seed', async () => {
  const users = new Set<string>()
  for (const unit of processes) {
    const pid = await property(unit, 'MainPID')
    const status = await node.run('cat', [`/proc/${pid}/status`])
    match(status, /^CapEff:\s+0+$/m)
    match(status, /^NoNewPrivs:\s+1$/m)
    match(status, /^Seccomp:\s+2$/m)
    const [, uid = '0'] = /^Uid:\s+(\d+)/m.exec(status) ?? []
    not.equal(uid, '0')
    users.add(uid)
    const environment = await node.run('sh', ['-c', `tr '\\0' '\\n' < /proc/${pid}/environ`])
    match(environment, /^NATS_SEED_FILE=\/run\/credentials\/muster@.*\/seed$/m)
  }
  equal(users.size, processes.length)
})

test(
  'one that is killed comes back, and a stop is orderly',
  async () => {
    const pid = await property('actor-host', 'MainPID')
    await node.run('kill', ['-KILL', pid])
    await eventually(async () => (await property('actor-host', 'NRestarts')) === '1', {
      withinMs: 20_000,
      everyMs: 200,
    })
    await eventually(async () => (await fetch(`http://127.0.0.1:${port}/machines/vm`)).ok, {
      withinMs: 40_000,
      everyMs: 200,
    })
    for (const unit of [...processes].reverse()) {
      await node.run('systemctl', ['stop', `muster@${unit}`])
      equal(await property(unit, 'Result'), 'success', unit)
    }
    ok((await node.run('systemd-analyze', ['verify', 'muster@gateway.service'])).trim() === '')
  },
  { limitMs: 120_000 },
)

test.run()

const natsUrl = () => `tls://localhost:${natsPort}`

/** Puts the files where deploy/README.md says. */
async function install(ca: string): Promise<void> {
  const dist = join(folder, 'dist')
  await buildBundles(dist, [...processes, 'provision'])
  const inside = (path: string) => join(node.root, path)
  await mkdir(inside('usr/lib/muster'), { recursive: true })
  await cp(dist, inside('usr/lib/muster/dist'), { recursive: true })
  await copyFile(join(projectDir, 'package.json'), inside('usr/lib/muster/package.json'))
  await copyFile(join(projectDir, 'deploy/muster@.service'), inside('etc/systemd/system/muster@.service'))
  await mkdir(inside('etc/muster'), { recursive: true })
  await copyFile(ca, inside('etc/muster/ca.pem'))
  await chmod(inside('etc/muster/ca.pem'), 0o644)
  for (const unit of processes) {
    const settings = [`NATS_URL=${natsUrl()}`, 'NODE_EXTRA_CA_CERTS=/etc/muster/ca.pem']
    if (unit === 'gateway') settings.push(`PORT=${port}`)
    await writeFile(inside(`etc/muster/${unit}.env`), `${settings.join('\n')}\n`)
    await writeFile(inside(`etc/muster/${unit}.nk`), await readFile(identities.seedFile(identityOf[unit])), {
      mode: 0o600,
    })
  }
  await node.run('systemctl', ['daemon-reload'])
}
