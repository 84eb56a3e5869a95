/** Finding a nats-server: what is too old is passed over by name, what is fetched is checked, what fails says what was tried. */
import { chmodSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { natsServerSettings } from '../../scripts/config.ts'
import { aptDownload, ensureNatsServer, fetchers, newEnough, unpack } from '../../scripts/nats-server.ts'
import { freePorts, startNats } from '../nats.ts'
import { suite } from '../suite.ts'

const test = suite('finding a nats-server')
const folder = mkdtempSync(join(tmpdir(), 'muster-finder-'))
test.after(() => rmSync(folder, { recursive: true }))

/** A folder holding a program that calls itself nats-server of some version. */
function pretend(version: string): string {
  const path = mkdtempSync(join(folder, 'bin-'))
  writeFileSync(join(path, 'nats-server'), `#!/bin/sh\necho "nats-server: v${version}"\n`)
  chmodSync(join(path, 'nats-server'), 0o755)
  return path
}

const settings = (searchPath: string, natsServer?: string) =>
  ({ searchPath, natsServer, fetch: 'never', cacheDir: join(folder, 'empty') }) as const

test('versions are compared by number, not by letter', () => {
  assert.ok(newEnough('2.12.0'))
  assert.ok(newEnough('2.100.0-beta.1'))
  assert.ok(newEnough('3.0.0'))
  assert.not(newEnough('2.11.9'))
  assert.not(newEnough('2.9.10'))
  assert.not(newEnough('1.99.99'))
})

test('an older server on PATH is passed over by name, a newer one behind it is taken', async () => {
  const [old, fresh] = [pretend('2.10.27'), pretend('2.12.1')]
  const said: string[] = []
  const found = await ensureNatsServer(settings(`${old}:${fresh}`), line => said.push(line))
  assert.equal(found, { path: join(fresh, 'nats-server'), version: '2.12.1' })
  assert.match(said.join(), `${old}/nats-server: version 2.10.27 is older than 2.12.0`)
})

test('NATS_SERVER is used or refused, never silently replaced', async () => {
  const old = join(pretend('2.9.10'), 'nats-server')
  await rejects(
    ensureNatsServer(settings(pretend('2.15.1'), old)),
    /NATS_SERVER=.* version 2\.9\.10 is older than 2\.12/,
  )
})

test('with fetching off and nothing usable, one message names what was tried and what to do', async () => {
  const old = pretend('2.10.27')
  const told = await rejects(ensureNatsServer(settings(old)), /^no nats-server 2\.12\.0 or newer found/)
  for (const part of [`${old}/nats-server`, 'NATS_FETCH=never', 'NATS_SERVER', 'compose.yaml']) assert.match(told, part)
  assert.not.match(told, '\n')
})

test('an unknown NATS_FETCH is refused with its name', () => {
  assert.throws(() => natsServerSettings({ NATS_FETCH: 'sometimes' }), /NATS_FETCH/)
})

const claim = "a package of apt's is fetched and unpacked without root, and an old release in it is refused"
const fetched = await aptDownload({ suite: 'trixie' }).catch(
  (error: Error) => error.message.split('\n')[0] ?? 'no mirror',
)
if (typeof fetched === 'string') test.skip(claim, `no Debian mirror here: ${fetched}`)
else
  test(claim, async () => {
    const program = join(await unpack(fetched, folder), 'usr/sbin/nats-server')
    await rejects(ensureNatsServer(settings('', program)), /version 2\.10\.\d+ is older than 2\.12\.0/)
  })

for (const [way, fetchServer] of Object.entries(fetchers)) {
  const works = `${way}: a server that runs and is new enough ends up in the cache, and nothing else`
  if (typeof fetched === 'string') test.skip(works, `no Debian mirror here: ${fetched}`)
  else
    test(
      works,
      async () => {
        const cacheDir = mkdtempSync(join(folder, 'cache-'))
        const found = await fetchServer(cacheDir)
        assert.is(found.path, join(cacheDir, 'nats-server'))
        assert.ok(newEnough(found.version), found.version)
        assert.equal(readdirSync(cacheDir), ['nats-server'])
        const again = await ensureNatsServer({ ...settings(cacheDir), cacheDir })
        assert.equal(again, found, 'the next look finds it without fetching')
      },
      { limitMs: 120_000 },
    )
}

test('servers for tests listen on ports of their own and on this machine only', async () => {
  const [a, b] = await Promise.all([startNats(), startNats()])
  try {
    assert.is.not(a.url, b.url)
    assert.match(a.url, /^nats:\/\/127\.0\.0\.1:\d+$/)
    assert.not.match(a.url, ':4222')
    assert.is(new Set(await freePorts(5)).size, 5)
  } finally {
    await Promise.all([a.stop(), b.stop()])
  }
})

test.run()

async function rejects(promise: Promise<unknown>, expected: RegExp): Promise<string> {
  const error = await promise.then(
    () => undefined,
    (reason: Error) => reason,
  )
  assert.ok(error, 'it should have been refused')
  assert.match(error.message, expected)
  return error.message
}
