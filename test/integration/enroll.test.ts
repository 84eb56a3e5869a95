/** `npm run enroll`: what it prints is all that a new agent needs, and what it admits is exactly that agent. */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fromSeed } from '@nats-io/nkeys'
import * as assert from 'uvu/assert'
import { projectDir } from '../../scripts/config.ts'
import { ensureIdentities } from '../../scripts/keyring.ts'
import { userEntry } from '../../services/nats/permissions.ts'
import { suite } from '../suite.ts'

const test = suite('npm run enroll')
const uuid = '0c000000-0000-4000-8000-000000000001'
const folder = mkdtempSync(join(tmpdir(), 'muster-enroll-'))
test.after(() => rmSync(folder, { recursive: true }))

function enroll(args: string[], env: NodeJS.ProcessEnv) {
  const { PATH, HOME } = process.env
  const command = ['--import', 'tsx', join(projectDir, 'scripts/enroll.ts'), ...args]
  return spawnSync(process.execPath, command, { env: { PATH, HOME, ...env }, encoding: 'utf8', timeout: 20_000 })
}

/** The seed in the printed instructions, and the public key that belongs to it. */
function keyIn(output: string): { seed: string; publicKey: string } {
  const seed = /^SU[A-Z2-7]{56}$/m.exec(output)?.[0] ?? ''
  return { seed, publicKey: fromSeed(new TextEncoder().encode(seed)).getPublicKey() }
}

test('it prints the seed, the environment file, and the entry for the NATS configuration', () => {
  const { stdout, status } = enroll([uuid.toUpperCase()], {
    DATA_DIR: join(folder, 'none'),
    NATS_URL: 'tls://a:4222,tls://b:4222',
  })
  assert.is(status, 0)
  const { publicKey } = keyIn(stdout)
  assert.match(stdout, userEntry({ agent: uuid }, publicKey))
  for (const line of [
    `SERVER_UUID=${uuid}`,
    'NATS_URL=tls://a:4222,tls://b:4222',
    'NATS_SEED_FILE=/etc/muster-agent/agent.nk',
  ]) {
    assert.ok(stdout.split('\n').includes(line), line)
  }
  assert.match(stdout, 'systemctl enable --now muster-agent')
})

test('what it prints for the node is a script that a shell understands', () => {
  const { stdout } = enroll([uuid], { DATA_DIR: join(folder, 'none'), NATS_URL: 'tls://a:4222' })
  const script = stdout.slice(
    stdout.indexOf('\n', stdout.indexOf('## On that machine')),
    stdout.indexOf('## In the NATS'),
  )
  const checked = spawnSync('sh', ['-n'], { input: script, encoding: 'utf8' })
  assert.is(checked.status, 0, checked.stderr)
})

test('without an installation it writes nothing', () => {
  const dataDir = join(folder, 'none')
  enroll([uuid], { DATA_DIR: dataDir })
  assert.not(existsSync(dataDir))
})

test('with one, the agent is admitted there by its public key only; a second time replaces the first key', async () => {
  const dataDir = join(folder, 'data')
  const { confFile } = await ensureIdentities(dataDir)
  const first = keyIn(enroll([uuid], { DATA_DIR: dataDir }).stdout)
  const file = join(dataDir, 'identities/agents', `${uuid}.pub`)
  assert.is(readFileSync(file, 'utf8').trim(), first.publicKey)
  assert.is(statSync(file).mode & 0o777, 0o600)
  assert.match(readFileSync(confFile, 'utf8'), userEntry({ agent: uuid }, first.publicKey))
  const second = keyIn(enroll([uuid], { DATA_DIR: dataDir }).stdout)
  assert.is.not(second.publicKey, first.publicKey)
  const conf = readFileSync(confFile, 'utf8')
  assert.match(conf, second.publicKey)
  assert.not.match(conf, first.publicKey)
  assert.not.match(conf, second.seed)
})

test('what is not a uuid is refused with how to call it', () => {
  for (const args of [[], ['node1'], [uuid, uuid]]) {
    const { status, stderr, stdout } = enroll(args, { DATA_DIR: folder })
    assert.is(status, 1)
    assert.match(stderr, /^usage: npm run enroll -- <server_uuid>/)
    assert.is(stdout, '')
  }
})

test.run()
