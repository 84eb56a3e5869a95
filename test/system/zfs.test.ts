/**
 * The ZFS API on a real ZFS: zfs-fuse over a pool in a file, in a mount namespace of its own, so that a ZFS of this machine is neither seen nor
 * touched. Rollback brings bytes back.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { zfsCommands } from '../../hypervisor-agent/zfs/commands.ts'
import type { Zfs } from '../../hypervisor-agent/zfs/zfs.ts'
import { eventually } from '../eventually.ts'
import { zfsStories } from '../integration/zfs-stories.ts'
import { type GatewayProcess, type MusterFixture, startMuster } from '../muster-fixture.ts'
import { suite } from '../suite.ts'
import { command } from './lab/command.ts'
import { whyNoLab } from './lab/lab.ts'
import { skipping } from './lab/suite.ts'

const reason =
  process.env['SYSTEM_TESTS'] === 'required'
    ? undefined
    : ((await whyNoLab()) ?? (existsSync('/dev/fuse') ? undefined : 'no lab: needs /dev/fuse'))
const test = reason ? skipping(suite('real zfs'), reason) : suite('real zfs')
const pool = 'musterzfs'
const poolBytes = 96 * 2 ** 20
let folder = ''
let daemon: ChildProcess | undefined
let zfs: Zfs
let muster: MusterFixture
let gateway: GatewayProcess
let inside: (name: string, args: readonly string[]) => Promise<string>

test.before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'muster-zfs-'))
  const own = ['/run/zfs', '/var/run/zfs', '/etc/zfs', '/var/lock/zfs'].map(
    path => `mkdir -p ${path} && mount -t tmpfs none ${path}`,
  )
  const script = `${own.join(' && ')} && exec zfs-fuse --no-daemon --pidfile /run/zfs/pid`
  daemon = spawn('unshare', ['--mount', '--propagation', 'private', 'sh', '-c', script], { stdio: 'ignore' })
  const { pid } = daemon
  inside = (name, args) => command('nsenter', ['--target', String(pid), '--mount', name, ...args])
  const bin = join(folder, 'bin')
  mkdirSync(bin)
  for (const name of ['zfs', 'zpool']) {
    const path = join(bin, name)
    writeFileSync(
      path,
      `#!/bin/sh\nPATH=/usr/sbin:/usr/bin:/sbin:/bin exec nsenter --target ${pid} --mount ${name} "$@"\n`,
    )
    chmodSync(path, 0o755)
  }
  zfs = zfsCommands({ env: { PATH: `${bin}:/usr/sbin:/usr/bin:/sbin:/bin` } })
  const disk = join(folder, 'disk')
  writeFileSync(disk, '')
  truncateSync(disk, poolBytes)
  await eventually(() => inside('zpool', ['list']).then(() => true), { withinMs: 30_000, what: 'zfs-fuse to answer' })
  await inside('zpool', ['create', '-m', join(folder, 'mounted'), pool, disk])
  muster = await startMuster({ throughTools: tools => ({ ...tools, zfs }) })
  gateway = await muster.gateway()
})

test.after(async () => {
  await muster?.stop()
  await inside?.('zpool', ['destroy', '-f', pool]).catch(() => {})
  daemon?.kill('SIGTERM')
  if (daemon && daemon.exitCode === null) await new Promise(resolve => daemon?.once('exit', resolve))
  rmSync(folder, { recursive: true, force: true })
})

zfsStories(test, () => ({ gateway, server: muster.servers[0]!, pool }))

test('bytes written before a snapshot are back after rollback', async () => {
  const path = `/servers/${muster.servers[0]!}/datasets`
  const dataset = `${pool}/bytes`
  const ask = async (where: string, body: object) => {
    const answer = await gateway.ask('POST', where, { body })
    assert.is(answer.status, 204, JSON.stringify(answer.body))
  }
  await ask(path, { dataset })
  const { mountpoint } = (await zfs.datasets()).find(row => row.name === dataset)!
  const write = (text: string) => inside('sh', ['-c', 'printf %s "$2" > "$1"/file && sync', 'sh', mountpoint, text])
  await write('before')
  await ask(`${path}/${encodeURIComponent(dataset)}/snapshot`, { name: 'then' })
  await write('after')
  assert.is(await inside('cat', [join(mountpoint, 'file')]), 'after')
  await ask(`${path}/${encodeURIComponent(dataset)}/rollback`, { name: 'then' })
  assert.is(await inside('cat', [join(mountpoint, 'file')]), 'before')
})

test('of properties of which one cannot be set none is set, and what was inherited is inherited again', async () => {
  const dataset = `${pool}/whole`
  await zfs.create(dataset)
  await zfs.set(pool, { 'muster:below': 'of the pool', compression: 'on' })
  await zfs.set(dataset, { 'muster:own': 'own' })
  const properties = { 'muster:own': 'x', 'muster:below': 'x', compression: 'gzip', quota: '32M', used: '1' }
  const path = `/servers/${muster.servers[0]!}/datasets/${encodeURIComponent(dataset)}/properties`
  const { status, body } = await gateway.ask('POST', path, { body: { properties } })
  assert.is(status, 500, JSON.stringify(body))
  assert.match(body.message, /readonly/)
  assert.not.match(body.message, /taken back/)
  const names = Object.keys(properties).filter(name => name !== 'used')
  const now = (await zfs.properties(dataset, names))[dataset]
  assert.equal(now, { 'muster:own': 'own', 'muster:below': 'of the pool', compression: 'on', quota: '0' })
  const own = await zfs.ownProperties(dataset, names)
  assert.equal([own['muster:own'], own['muster:below'], own['compression']], ['own', undefined, undefined])
})

test('a property that is unset is as if it had never been set', async () => {
  await zfs.set(pool, { 'muster:brief': 'x' })
  await zfs.unset(pool, 'muster:brief')
  assert.equal(await zfs.properties(pool, ['muster:brief']), { [pool]: { 'muster:brief': '-' } })
})

test('a server whose ZFS does not run says so', async () => {
  // Outside of the namespace there is no daemon, or a ZFS that does not know this pool.
  const error = await zfsCommands()
    .snapshots(pool)
    .catch((error: { code?: string }) => error)
  assert.ok(['ZfsNotAvailable', 'DatasetNotFound'].includes(String((error as { code?: string }).code)), String(error))
  assert.ok(readFileSync('/proc/self/mounts', 'utf8').includes(folder) === false)
})

test.run()
