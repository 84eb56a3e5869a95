// CNAPI's docker endpoints on a real guest with the real QEMU guest agent: programs, files, statistics; and a build with the real buildah.
import { createHash } from 'node:crypto'
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { equal, match, ok } from 'uvu/assert'
import { eventually } from '../eventually.ts'
import { openStream, type StreamAddress, type StreamClient } from '../stream-client.ts'
import { attempt, command } from './lab/command.ts'
import type { GuestConsole } from './lab/console.ts'
import { agentImage, startAgent } from './lab/guest-agent.ts'
import { guestKernel } from './lab/guest-kernel.ts'
import { act, destroy, shutOff } from './lab/stories.ts'
import { systemSuite } from './lab/suite.ts'

const { test, lab, muster } = await systemSuite('docker endpoints', { muster: true, env: { DOCKER_BUILD: 'on' } })

const path = (uuid: string) => `/servers/${muster().serverUuid}/vms/${uuid}`
const post = (what: string, body: object) => muster().request('POST', `${path(uuid)}/docker-${what}`, body)
let uuid = ''
let console: GuestConsole

async function stream(what: string, body: object): Promise<StreamClient> {
  const answer = await post(what, body)
  equal(answer.status, 200, JSON.stringify(answer.body))
  return openStream(answer.body as StreamAddress)
}
const exec = (...Cmd: string[]) => stream('exec', { command: { Cmd } })
const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')

test('a guest without agent has statistics, and says of programs and files what is missing', async () => {
  const agent = await agentImage(lab())
  const answer = await muster().request('POST', `/servers/${muster().serverUuid}/vms`, {
    alias: 'docked',
    ram: 128,
    vcpus: 1,
    disks: [
      { size: 1024, image_uuid: lab().image },
      { size: 32, image_uuid: agent },
    ],
    nics: [{ bridge: lab().bridge }],
  })
  await muster().completed(answer)
  uuid = answer.body.vm_uuid
  console = await lab().console(uuid)
  await console.sees(/MUSTER-GUEST ready/)
  for (const [what, body] of [
    ['exec', { command: { Cmd: ['true'] } }],
    ['copy', { path: '/' }],
  ] as const) {
    const refused = await post(what, body)
    equal([refused.status, refused.body.code], [409, 'GuestAgentNotConnected'])
    match(refused.body.message, /qemu-guest-agent/)
  }
  const stats = await stream('stats', {})
  await eventually(() => stats.others().length >= 2, { withinMs: 20_000, what: 'two lines of statistics' })
  const [first, second] = stats.others()
  stats.socket.destroy()
  ok(second.cpu_stats.cpu_usage.total_usage > 0 && second.preread === first.read)
  ok(second.cpu_stats.system_cpu_usage > second.precpu_stats.system_cpu_usage)
  equal(second.memory_stats.limit, 128 * 1024 ** 2)
  ok(second.memory_stats.usage > 0)
  ok(second.blkio_stats.io_service_bytes_recursive[0].value > 1024 ** 2, 'it has read its kernel')
  ok(second.networks.eth0.tx_packets >= 0)
  await startAgent(console, 'sdb')
  await eventually(async () => (await lab().virsh('dumpxml', uuid)).includes("state='connected'"), {
    withinMs: 60_000,
    what: 'the guest agent being connected',
  })
})

test('a program runs in the guest with its input, outputs, folder, variables and code', async () => {
  const words = await exec('echo', 'a  b', '$HOME', "it's;reboot")
  equal(await words.ended(60_000), { type: 'end', code: 0 })
  equal(words.text('stdout').toString(), "a  b $HOME it's;reboot\n")

  const command = { Cmd: ['sh', '-c', 'pwd; echo $WHO; cat; echo bad >&2; exit 7'] }
  const client = await stream('exec', {
    command: { ...command, AttachStdin: true, Env: ['WHO=me'], WorkingDir: '/proc' },
  })
  client.send({ type: 'stdin', data: 'first\n' })
  // It is read while the program runs, not at its end.
  await eventually(() => client.text('stdout').toString() === '/proc\nme\nfirst\n', {
    withinMs: 30_000,
    what: 'the first line coming back',
  })
  const more = Buffer.alloc(100_000, 'more ')
  client.send({ type: 'stdin', data: more })
  client.send({ type: 'end' })
  equal(await client.ended(60_000), { type: 'end', code: 7 })
  equal(client.text('stdout').length, 15 + more.length)
  equal(client.text('stderr').toString(), 'bad\n')
  equal((await (await exec('no-such-program')).ended(60_000))?.code, 127)
  await console.ask('sh echo left=$(ls -a /tmp | grep -c muster).', /SH left=0\./)
})

test('a program whose caller leaves is killed with what it has started', async () => {
  const client = await exec('sh', '-c', 'sleep 987 & echo begun; sleep 987')
  await eventually(() => client.text('stdout').length > 0, { withinMs: 30_000, what: 'the program being begun' })
  await console.ask('sh echo sleepers=$(ps -o args | grep -c "^sleep 987").', /SH sleepers=2\./)
  client.socket.destroy()
  await eventually(
    () => console.ask('sh echo sleepers=$(ps -o args | grep -c "^sleep 987").', /SH sleepers=0\./, 5_000),
    {
      withinMs: 60_000,
      what: 'both being killed',
    },
  )
})

test('a detached program goes on by itself', async () => {
  const answer = await post('exec', { command: { Cmd: ['sh', '-c', 'sleep 1; echo done > /detached'], Detach: true } })
  equal([answer.status, answer.body], [200, {}])
  await eventually(() => console.ask('sh cat /detached', /SH done/, 5_000), { withinMs: 60_000, what: 'its file' })
})

test('an agent that is killed cuts its streams, and begins a detached program once', async () => {
  const followed = await exec('sh', '-c', 'echo begun; sleep 876')
  await eventually(() => followed.text('stdout').length > 0, { withinMs: 30_000, what: 'the program being begun' })
  const asked = post('exec', {
    command: { Cmd: ['sh', '-c', 'echo begun >> /once; sleep 1; echo done >> /once'], Detach: true },
  })
  // It has begun with it, by its journal.
  const journal = join(muster().dataDir, 'agents/libvirt/journal')
  const begun = async () =>
    (await attempt('grep', ['-l', '-z', '-r', 'docker_exec.*"began_at": [0-9]', journal, '--exclude=history.json'])) ??
    ''
  await eventually(async () => (await begun()) !== '', { withinMs: 30_000, everyMs: 5, what: 'the task being begun' })
  await muster().killAgent()
  equal(await followed.ended(), undefined, 'a cut is no end')
  const { status, body } = await asked
  equal([status, body], [200, {}])
  await eventually(() => console.ask('sh echo $(cat /once)', /SH begun done/, 5_000), { withinMs: 60_000 })
  await console.ask('sh echo detached=$(grep -c begun /once).', /SH detached=1\./)
  // The next agent serves streams again.
  const again = await exec('true')
  equal((await again.ended(60_000))?.code, 0)
})

test('files go into the guest and come out of it with the same bytes', async () => {
  const folder = join(lab().folder, 'copied')
  await mkdir(join(folder, 'deep'), { recursive: true })
  const bytes = Buffer.from(Array.from({ length: 200_000 }, (_, n) => (n * 31) % 251))
  await writeFile(join(folder, 'deep/bytes'), bytes)
  await command('ln', ['-s', '/init', join(folder, 'deep/link')])
  await command('tar', ['-C', folder, '-cf', `${folder}.tar`, 'deep'])
  const archive = Buffer.from(await command('base64', ['-w', '0', `${folder}.tar`]), 'base64')
  const writing = await stream('copy', { path: '/', mode: 'write' })
  for (let at = 0; at < archive.length; at += 200_000)
    writing.send({ type: 'data', data: archive.subarray(at, at + 200_000) })
  writing.send({ type: 'end' })
  equal(await writing.ended(60_000), { type: 'end', code: 0 })
  await console.ask('sh sha256sum /deep/bytes', new RegExp(`SH ${sha256(bytes)}`))

  const stat = (await post('copy', { path: '/deep/link', mode: 'stat' })).body.containerPathStat
  equal([stat.name, stat.mode, stat.linkTarget], ['link', 2 ** 27 + 0o777, '/init'])
  const missing = await post('copy', { path: '/no/such' })
  equal([missing.status, missing.body.code], [404, 'FileNotFound'])
  const notFolder = await post('copy', { path: '/deep/bytes', mode: 'write' })
  equal([notFolder.status, notFolder.body.code], [400, 'PathNotDirectory'])

  for (const what of ['/deep/bytes', '/deep']) {
    const reading = await stream('copy', { payload: { path: what, mode: 'read' } })
    ok(!(await reading.ended(60_000))?.error)
    const out = join(lab().folder, 'out')
    await mkdir(out, { recursive: true })
    await writeFile(`${out}.tar`, reading.text('data'))
    await command('tar', ['-C', out, '-xf', `${out}.tar`])
    const found = await command('find', [out, '-name', 'bytes', '-exec', 'sha256sum', '{}', ';'])
    match(found, sha256(bytes))
    await rm(out, { recursive: true, force: true })
  }
})

test('a build with buildah runs what its Dockerfile says, and tells its image', async () => {
  const folder = join(lab().folder, 'context')
  await mkdir(folder)
  await command('cp', [(await guestKernel()).busybox, join(folder, 'busybox')])
  await writeFile(
    join(folder, 'Dockerfile'),
    'FROM scratch\nCOPY busybox /bin/busybox\nARG WORD\nRUN ["/bin/busybox", "sh", "-c", "echo built with $WORD"]\n',
  )
  const archive = Buffer.from(await command('sh', ['-c', 'tar -C "$0" -cf - . | base64 -w 0', folder]), 'base64')
  const client = await stream('build', { payload: { t: 'lab/made:1', buildargs: { WORD: 'care' } } })
  for (let at = 0; at < archive.length; at += 500_000)
    client.send({ type: 'data', data: archive.subarray(at, at + 500_000) })
  client.send({ type: 'end' })
  const end = await client.ended(120_000)
  const said = `${client.text('stdout')}${client.text('stderr')}`
  equal([end?.error, end?.code], [undefined, 0], said)
  match(said, /built with care/)
  match(end?.image ?? '', /^sha256:[0-9a-f]{64}$/)
})

test('a stream ends with its VM, and a stopped VM says what it cannot do', async () => {
  const client = await exec('sleep', '600')
  const stats = await stream('stats', {})
  await eventually(() => stats.others().length > 0, { withinMs: 20_000, what: 'statistics' })
  console.close()
  await muster().completed(await act(muster(), uuid, 'stop', { force: true }))
  await shutOff(lab(), uuid)
  equal((await client.ended(30_000))?.error?.code, 'VmNotRunning')
  equal((await stats.ended(30_000))?.error?.code, 'VmNotRunning')
  const stopped = await post('copy', { path: '/' })
  equal([stopped.status, stopped.body.code], [409, 'DockerCopyStoppedContainerNoPlatformSupport'])
  equal((await post('exec', { command: { Cmd: ['true'] } })).body.code, 'VmNotRunning')
  await muster().completed(await destroy(muster(), uuid))
  equal((await post('stats', {})).status, 404)
  await lab().virsh('vol-delete', 'lab-guest-agent', '--pool', lab().pool)
  equal(await lab().leftovers(), [])
})

test.run()
