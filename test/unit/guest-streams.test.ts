/** Streams between callers and VMs: one connection for each token, what goes over it, and everything that ends it. */
import { randomBytes } from 'node:crypto'
import * as assert from 'uvu/assert'
import { copy, examine, pathStat } from '../../hypervisor-agent/guest-streams/copy.ts'
import { exec } from '../../hypervisor-agent/guest-streams/exec.ts'
import {
  type GuestStreamOptions,
  type GuestStreams,
  openGuestStreams,
  type StreamWork,
} from '../../hypervisor-agent/guest-streams/guest-streams.ts'
import { stats } from '../../hypervisor-agent/guest-streams/stats.ts'
import { type TarEntry, tarEnd, tarHeader, tarPadding, tarReader } from '../../hypervisor-agent/guest-streams/tar.ts'
import { HypervisorError } from '../../hypervisor-agent/hypervisor.ts'
import { type SimulatedHypervisor, simulatedHypervisor } from '../../hypervisor-agent/simulated/simulated.ts'
import { openStreams, type Streams } from '../../hypervisor-agent/streams/streams.ts'
import { eventually } from '../eventually.ts'
import { openStream, type StreamAddress } from '../stream-client.ts'
import { suite } from '../suite.ts'
import { vmSpec } from './agent-fixture.ts'

const test = suite('streams between callers and VMs')
const hour = 3_600_000
const long = { idleMs: hour, totalMs: hour }
const newToken = () => randomBytes(32).toString('hex')

interface World {
  hypervisor: SimulatedHypervisor
  streams: Streams
  guestStreams: GuestStreams
  /** A running VM with a guest agent. */
  guest(): Promise<string>
  run(uuid: string, command: object, limits?: typeof long): Promise<StreamAddress>
  offer(uuid: string, serve: (work: StreamWork) => Promise<object>, limits?: typeof long): Promise<StreamAddress>
  copies(uuid: string, path: string, mode: 'read' | 'write', noOverwriteDir?: boolean): Promise<StreamAddress>
}

async function inWorld(body: (world: World) => Promise<void>, options: GuestStreamOptions = {}): Promise<void> {
  const hypervisor = simulatedHypervisor({ seed: 'streams', guestAgents: true })
  await hypervisor.open()
  const streams = openStreams({ host: '127.0.0.1', port: 0 })
  const guestStreams = openGuestStreams(streams, hypervisor, options)
  const world: World = {
    ...{ hypervisor, streams, guestStreams },
    guest: async () => {
      const spec = vmSpec()
      await hypervisor.defineVm(spec, { taskId: 'a-task' })
      await hypervisor.startVm(spec.uuid)
      return spec.uuid
    },
    offer: (uuid, serve, limits = long) => guestStreams.offer({ uuid, token: newToken(), limits, serve }),
    run: (uuid, command, limits) => world.offer(uuid, work => exec(work, uuid, { Cmd: [], ...command }), limits),
    copies: async (uuid, path, mode, noOverwriteDir = false) => {
      const file = await examine(hypervisor, uuid, path, mode)
      return world.offer(uuid, work => copy(work, { uuid, path, mode, file, noOverwriteDir }))
    },
  }
  try {
    await body(world)
  } finally {
    guestStreams.close()
    await streams.close()
    await hypervisor.close()
  }
}

const started = ({ hypervisor }: World, uuid: string) => hypervisor.world.guest(uuid)?.programs_started ?? 0

test('a program is begun when its stream is opened; its outputs and its code come over it', () =>
  inWorld(async world => {
    const uuid = await world.guest()
    const address = await world.run(uuid, { Cmd: ['echo', 'a', 'b'] })
    assert.is(started(world, uuid), 0)
    const client = openStream(address)
    assert.equal(await client.ended(), { type: 'end', code: 0 })
    assert.is(client.text('stdout').toString(), 'a b\n')
    const other = openStream(await world.run(uuid, { Cmd: ['sh', '-c', 'exit 7'] }))
    assert.equal(await other.ended(), { type: 'end', code: 7 })
    assert.is(other.text('stderr').toString(), 'sh\n')
    assert.is(started(world, uuid), 2)
  }))

test('what is attached as input reaches the program as it comes, whatever bytes it has', () =>
  inWorld(async world => {
    const uuid = await world.guest()
    const client = openStream(await world.run(uuid, { Cmd: ['cat'], AttachStdin: true }))
    client.send({ type: 'stdin', data: 'first\n' })
    await eventually(() => client.text('stdout').toString() === 'first\n', { what: 'the first line coming back' })
    const more = randomBytes(700_000)
    for (let at = 0; at < more.length; at += 100_000)
      client.send({ type: 'stdin', data: more.subarray(at, at + 100_000) })
    client.send({ type: 'end' })
    assert.equal(await client.ended(), { type: 'end', code: 0 })
    assert.ok(client.text('stdout').subarray(6).equals(more))
  }))

test('what is not attached is not sent', () =>
  inWorld(async world => {
    const client = openStream(
      await world.run(await world.guest(), { Cmd: ['sh', '-c', 'exit 1'], AttachStderr: false }),
    )
    assert.equal(await client.ended(), { type: 'end', code: 1 })
    assert.is(client.text('stderr').length, 0)
  }))

test('a token opens its stream once', () =>
  inWorld(async world => {
    const uuid = await world.guest()
    const address = await world.run(uuid, { Cmd: ['sleep', '60'] })
    openStream(address)
    await eventually(() => started(world, uuid) === 1, { what: 'the program being begun' })
    assert.is(await openStream(address).ended(), undefined)
    assert.is(started(world, uuid), 1)
  }))

test('a wrong token opens nothing, and the right one still does', () =>
  inWorld(async world => {
    const uuid = await world.guest()
    const address = await world.run(uuid, { Cmd: ['true'] })
    for (const wrong of [newToken(), 'x', `${address.token.slice(0, 63)}g`, '']) {
      assert.is(await openStream(address, wrong.padEnd(64, ' ')).ended(), undefined)
    }
    assert.is(started(world, uuid), 0)
    assert.equal(await openStream(address).ended(), { type: 'end', code: 0 })
  }))

test('a token lapses when nobody comes', () =>
  inWorld(
    async world => {
      const uuid = await world.guest()
      const address = await world.run(uuid, { Cmd: ['true'] })
      // Its place is free again when it has lapsed.
      await eventually(() => world.run(uuid, { Cmd: ['true'] }).catch(() => undefined), { what: 'a place for another' })
      assert.is(await openStream(address).ended(), undefined)
      assert.is(started(world, uuid), 0)
    },
    { openWithinMs: 50, most: { node: 1, vm: 1 } },
  ))

test('a program is killed when its caller leaves', () =>
  inWorld(async world => {
    const uuid = await world.guest()
    const ended = watching(world.hypervisor, 'endProgram')
    const client = openStream(await world.run(uuid, { Cmd: ['sleep', '600'] }))
    await eventually(() => started(world, uuid) === 1, { what: 'the program being begun' })
    client.socket.end()
    await eventually(() => ended() === 1, { what: 'the program being ended' })
  }))

test('a caller who sends what is no line is told so', () =>
  inWorld(async world => {
    const client = openStream(await world.run(await world.guest(), { Cmd: ['cat'], AttachStdin: true }))
    client.socket.write('not a line\n')
    assert.is((await client.ended())?.error?.code, 'InvalidContent')
  }))

test('a stream ends with its VM', () =>
  inWorld(async world => {
    const uuid = await world.guest()
    const other = await world.guest()
    const client = openStream(await world.run(uuid, { Cmd: ['sleep', '600'] }))
    const waiting = await world.run(uuid, { Cmd: ['true'] })
    const kept = await world.run(other, { Cmd: ['true'] })
    await eventually(() => started(world, uuid) === 1, { what: 'the program being begun' })
    world.hypervisor.world.crash(uuid)
    assert.is((await client.ended())?.error?.code, 'VmNotRunning')
    assert.is(await openStream(waiting).ended(), undefined, 'one that waited is not opened any more')
    assert.equal(await openStream(kept).ended(), { type: 'end', code: 0 }, 'that of another VM is')
  }))

test('a stream ends when nothing goes over it for too long, and when its time is over', () =>
  inWorld(async world => {
    const uuid = await world.guest()
    const idle = openStream(await world.run(uuid, { Cmd: ['sleep', '600'] }, { idleMs: 60, totalMs: hour }))
    assert.is((await idle.ended())?.error?.code, 'TaskTimedOut')
    const late = openStream(await world.run(uuid, { Cmd: ['sleep', '600'] }, { idleMs: hour, totalMs: 60 }))
    assert.is((await late.ended())?.error?.code, 'TaskTimedOut')
  }))

test('a stream ends with its agent', () =>
  inWorld(async world => {
    const uuid = await world.guest()
    const client = openStream(await world.run(uuid, { Cmd: ['sleep', '600'] }))
    await eventually(() => started(world, uuid) === 1, { what: 'the program being begun' })
    world.guestStreams.close()
    await world.streams.close()
    await client.ended()
  }))

test('a VM and a node have so many streams, and no more', () =>
  inWorld(
    async world => {
      const [one, two, three] = [await world.guest(), await world.guest(), await world.guest()]
      const refused = async (uuid: string) => {
        const error = await world.run(uuid, { Cmd: ['true'] }).then(
          () => undefined,
          error => error,
        )
        assert.instance(error, HypervisorError)
        assert.is((error as HypervisorError).code, 'TooManyStreams')
      }
      const first = await world.run(one, { Cmd: ['true'] })
      await world.run(one, { Cmd: ['true'] })
      await refused(one)
      await world.run(two, { Cmd: ['true'] })
      await refused(three)
      await openStream(first).ended()
      await world.run(three, { Cmd: ['true'] })
    },
    { most: { node: 3, vm: 2 } },
  ))

test('a guest that hangs delays the stream of no other', () =>
  inWorld(async world => {
    const [sick, well] = [await world.guest(), await world.guest()]
    const release = world.hypervisor.faults.add({ uuid: sick, hang: true })
    const hanging = openStream(await world.run(sick, { Cmd: ['true'] }, { idleMs: hour, totalMs: 300 }))
    const client = openStream(await world.run(well, { Cmd: ['echo', 'well'] }))
    assert.equal(await client.ended(), { type: 'end', code: 0 })
    assert.is((await hanging.ended())?.error?.code, 'TaskTimedOut')
    release()
  }))

test('a guest agent that goes away ends the stream with its name', () =>
  inWorld(async world => {
    const uuid = await world.guest()
    const client = openStream(await world.run(uuid, { Cmd: ['sleep', '600'] }))
    await eventually(() => started(world, uuid) === 1, { what: 'the program being begun' })
    world.hypervisor.world.setGuestAgent(uuid, false)
    assert.is((await client.ended())?.error?.code, 'GuestAgentNotConnected')
  }))

test('an archive written into a guest comes back out of it, folders and links too', () =>
  inWorld(async world => {
    const uuid = await world.guest()
    const big = randomBytes(600_000)
    const name = `deep/${'long-'.repeat(30)}name`
    const archive = tarOf([
      { name: 'deep/', type: 'folder', mode: 0o750 },
      { name, type: 'file', mode: 0o640, data: big },
      { name: 'deep/link', type: 'link', link: '/etc/hostname' },
    ])
    const writing = openStream(await world.copies(uuid, '/root', 'write'))
    for (let at = 0; at < archive.length; at += 100_000)
      writing.send({ type: 'data', data: archive.subarray(at, at + 100_000) })
    writing.send({ type: 'end' })
    assert.equal(await writing.ended(), { type: 'end', code: 0 })

    const file = openStream(await world.copies(uuid, `/root/${name}`, 'read'))
    assert.equal(await file.ended(), { type: 'end' })
    const [alone, ...none] = entriesOf(file.text('data'))
    assert.equal([alone?.name, alone?.mode, none.length], [name.slice(5), 0o640, 0])
    assert.ok(alone?.data.equals(big))

    const folder = openStream(await world.copies(uuid, '/root/deep', 'read'))
    assert.equal(await folder.ended(), { type: 'end', code: 0 })
    const found = entriesOf(folder.text('data'))
    assert.equal(
      found.map(entry => [entry.name, entry.type, entry.link ?? '']).sort(),
      [
        ['deep/', 'folder', ''],
        ['deep/link', 'link', '/etc/hostname'],
        [name, 'file', ''],
      ].sort(),
    )
    assert.ok(found.find(entry => entry.name === name)?.data.equals(big))
  }))

test('a path’s mode is told as Go numbers it', () => {
  const modeOf = (mode: number) => pathStat('/a/', { mode, size: 0, modified_at: 0, isDirectory: false }).mode
  assert.is(modeOf(0o100644), 0o644)
  assert.is(modeOf(0o041777), 2 ** 31 + 2 ** 20 + 0o777)
  assert.is(modeOf(0o120777), 2 ** 27 + 0o777)
  assert.is(modeOf(0o104755), 2 ** 23 + 0o755)
  assert.is(modeOf(0o020620), 2 ** 26 + 2 ** 21 + 0o620)
  assert.is(modeOf(0o010600), 2 ** 25 + 0o600)
})

test('with no_overwrite_dir a file takes no directory’s place, nor a directory a file’s', () =>
  inWorld(async world => {
    const uuid = await world.guest()
    for (const [entry, code] of [
      [{ name: 'etc', type: 'file' as const }, 'PathNotDirectory'],
      [{ name: 'etc/hostname/', type: 'folder' as const }, 'PathNotDirectory'],
      [{ name: 'etc/hostname', type: 'file' as const }, undefined],
    ] as const) {
      const client = openStream(await world.copies(uuid, '/', 'write', true))
      client.send({ type: 'data', data: tarOf([entry]) })
      client.send({ type: 'end' })
      assert.is((await client.ended())?.error?.code, code)
    }
    assert.is((await world.hypervisor.statGuestFile(uuid, '/etc')).isDirectory, true)
  }))

test('statistics come each second in Docker’s shape, until the caller leaves', () =>
  inWorld(async world => {
    const uuid = await world.guest()
    world.hypervisor.world.setGuestAgent(uuid, false)
    const client = openStream(await world.offer(uuid, work => stats(work, { uuid, name: 'web', isOnce: false })))
    await eventually(() => client.others().length === 2, { what: 'two lines' })
    const [first, second] = client.others()
    assert.equal([second.id, second.name], [uuid, '/web'])
    assert.is(second.preread, first.read)
    assert.ok(second.cpu_stats.cpu_usage.total_usage > second.precpu_stats.cpu_usage.total_usage)
    assert.ok(second.cpu_stats.system_cpu_usage > second.precpu_stats.system_cpu_usage)
    assert.equal(second.precpu_stats, first.cpu_stats)
    assert.is(second.memory_stats.limit, 128 * 1024 * 1024)
    assert.equal(
      second.blkio_stats.io_service_bytes_recursive.map(({ op }: { op: string }) => op),
      ['Read', 'Write'],
    )
    client.socket.end()
    await client.ended()
    const once = openStream(await world.offer(uuid, work => stats(work, { uuid, name: 'web', isOnce: true })))
    assert.equal(await once.ended(), { type: 'end' })
    assert.is(once.others().length, 1)
  }))

/** How often a call was made. */
function watching(hypervisor: SimulatedHypervisor, name: 'endProgram'): () => number {
  let count = 0
  const real = hypervisor[name]
  hypervisor[name] = async (...args) => {
    await real(...args)
    count += 1
  }
  return () => count
}

interface Member extends Partial<Omit<TarEntry, 'name'>> {
  name: string
  data?: Buffer
}

function tarOf(members: Member[]): Buffer {
  return Buffer.concat([
    ...members.flatMap(({ data = Buffer.alloc(0), ...given }) => [
      tarHeader({ type: 'file', mode: 0o644, mtime: 0, ...given, size: data.length }),
      data,
      tarPadding(data.length),
    ]),
    tarEnd,
  ])
}

function entriesOf(archive: Buffer): (TarEntry & { data: Buffer })[] {
  const found: (TarEntry & { data: Buffer })[] = []
  const reader = tarReader({
    entry: entry => void found.push({ ...entry, data: Buffer.alloc(0) }),
    bytes: piece => {
      const last = found.at(-1)
      if (last) last.data = Buffer.concat([last.data, piece])
    },
  })
  reader.push(archive)
  return found
}

test.run()
