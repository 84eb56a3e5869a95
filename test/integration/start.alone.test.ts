/** `npm start` as a person without privileges runs it: serves, tells a curl that works, survives deaths, ends cleanly, and finds everything again. */
import { execFileSync, spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statfsSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { ensureNatsServer } from '../../scripts/nats-server.ts'
import { eventually } from '../eventually.ts'
import { freePorts } from '../nats.ts'
import { runStart, type StartRun } from '../start.ts'
import { suite } from '../suite.ts'

const test = suite('npm start')
const root = process.getuid?.() === 0
const nobody = 65534
const folder = mkdtempSync(join(tmpdir(), 'muster-start-'))
const dataDir = join(folder, 'data')
const vmUuid = '0d000000-0000-4000-8000-000000000001'
const runs: StartRun[] = []
let url = ''
let env: NodeJS.ProcessEnv = {}

test.before(async () => {
  await ensureNatsServer()
  const [port] = await freePorts(1)
  url = `http://127.0.0.1:${port}`
  env = { PORT: String(port), DATA_DIR: dataDir, HYPERVISOR: 'simulated', SIMULATED_NODES: '2', HOME: folder }
  chmodSync(folder, 0o777)
})
test.after(async () => {
  for (const run of runs) await run.stop('SIGKILL')
  await eventually(() => left().length === 0, { withinMs: 20_000, what: 'children of killed starts end' })
  rmSync(folder, { recursive: true, force: true })
})

test(
  'it serves on a machine where 4222 is taken, without root, and the curl it prints works as printed',
  async () => {
    // Whoever holds 4222, this test or somebody else, it is not ours.
    const other = createServer()
    await new Promise<void>(resolve => other.once('error', () => resolve()).listen(4222, '127.0.0.1', resolve))
    const run = start()
    await run.says('Ctrl-C stops everything')
    other.close()
    const said = run.output()
    assert.not.match(said, '127.0.0.1:4222')
    assert.match(said, 'agents of 2 servers: simulated')
    const curl = /^ {2}(curl .*)$/m.exec(said)?.[1] ?? ''
    const servers = JSON.parse(execFileSync('sh', ['-c', `${curl} -sf`], { encoding: 'utf8' }))
    assert.equal(
      servers.map((server: { status: string }) => server.status),
      ['running', 'running'],
    )
    assert.is(run.stderr(), '')
    if (root) for (const pid of childrenOf(run)) assert.is(uidOf(pid), nobody, `process ${pid} runs without privileges`)
  },
  { limitMs: 90_000 },
)

test('a second start on the same folder is refused and harms nothing', async () => {
  const [port] = await freePorts(1)
  const second = start({ PORT: String(port) })
  assert.is(await second.ended(), 1)
  assert.match(
    second.stderr(),
    new RegExp(`^muster: ${dataDir} is in use by process ${current().child.pid}: stop that one`),
  )
  assert.is((await get('/servers')).length, 2)
})

test(
  'what was acknowledged is there after Ctrl-C and another start, with the same nodes',
  async () => {
    const before = await get('/servers')
    const server = before[0].uuid
    await createVm(server)
    const run = current()
    const children = childrenOf(run)
    assert.is(children.length, 5, 'nats-server, actor host, allocator, gateway and agents')
    const began = performance.now()
    assert.is(await run.stop('SIGINT'), 0)
    assert.ok(performance.now() - began < 15_000, 'it ends in time')
    // What takes longer than a second is named; nothing has to be killed.
    assert.match(run.output(), /stopping\n(waiting for .* to end\n)*stopped\n$/)
    for (const pid of children) assert.not(alive(pid), `process ${pid} has ended`)
    const natsLog = read(join(dataDir, 'logs/nats-server.log'))
    assert.match(natsLog, 'Server is ready')
    assert.not.match(natsLog, 'Violation', 'no process lacked a right')
    await start().says('Ctrl-C stops everything')
    const after = await get('/servers')
    const uuids = (servers: { uuid: string }[]) => servers.map(({ uuid }) => uuid).sort()
    assert.equal(uuids(after), uuids(before))
    assert.is(await shownVm(), vmUuid)
  },
  { limitMs: 120_000 },
)

test(
  'a process that dies is started again with one line, and the work goes on',
  async () => {
    const names = {
      'services/actor-host/main.ts': 'actor host',
      'gateway/main.ts': 'gateway',
      'nats-server.conf': 'nats-server',
    }
    for (const [part, name] of Object.entries(names)) {
      const pid = childrenOf(current()).find(child => commandOf(child).includes(part))
      if (!pid) throw new Error(`no ${name} runs`)
      const before = current().output().length
      process.kill(pid, 'SIGKILL')
      await current().says(new RegExp(`${name}.* ended \\(SIGKILL\\).*; starting it again in 0\\.5 s \\(log: .*\\)`))
      await eventually(
        async () => (await get('/servers')).every((server: { status: string }) => server.status === 'running'),
        {
          withinMs: 30_000,
          everyMs: 200,
          what: `nodes running again after the death of ${name}`,
        },
      )
      assert.ok(current().output().slice(before).split('\n').length <= 3, current().output().slice(before))
    }
    assert.is(await shownVm(), vmUuid)
  },
  { limitMs: 120_000 },
)

test(
  'after a kill -9 of the whole start nothing is left running, and the next one finds everything',
  async () => {
    const children = childrenOf(current())
    await current().stop('SIGKILL')
    await eventually(() => children.every(pid => !alive(pid)), { withinMs: 20_000, what: 'the end of all children' })
    await start().says('Ctrl-C stops everything')
    assert.is(await shownVm(), vmUuid)
    assert.is(await current().stop('SIGTERM'), 0)
  },
  { limitMs: 120_000 },
)

test(
  'a signal while it is still starting ends it, leaving nothing',
  async () => {
    const run = start()
    await eventually(() => childrenOf(run).length > 0, { withinMs: 20_000, what: 'the first child' })
    const children = childrenOf(run)
    assert.is(await run.stop('SIGINT'), 0)
    assert.equal(children.filter(alive), [])
  },
  { limitMs: 60_000 },
)

test(
  '`npm start` itself ends cleanly on a signal',
  async () => {
    const run = start({}, ['npm', 'start'])
    await run.says('Ctrl-C stops everything')
    const children = childrenOf(run, true)
    assert.ok(children.length >= 5)
    await run.stop('SIGTERM')
    await eventually(() => children.every(pid => !alive(pid)), { withinMs: 20_000, what: 'the end of all children' })
  },
  { limitMs: 90_000 },
)

const fills =
  'a disk that fills up while it runs is told in one line, refused changes say so, and space again is enough'
if (!root) test.skip(fills, 'needs root to mount a small disk')
else
  test(
    fills,
    async () => {
      const small = join(folder, 'small')
      mkdirSync(small)
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=160m,mode=0777', 'tmpfs', small])
      try {
        const run = start({ DATA_DIR: join(small, 'data') })
        await run.says('Ctrl-C stops everything')
        const [server] = await get('/servers')
        const filler = join(small, 'filler')
        const fill = () => {
          const { bavail, bsize } = statfsSync(small)
          try {
            if (bavail > 0) writeFileSync(filler, Buffer.alloc(bavail * bsize), { flag: 'a' })
          } catch (error) {
            // Muster itself has taken a block meanwhile: as full as wanted.
            assert.is((error as NodeJS.ErrnoException).code, 'ENOSPC')
          }
        }
        fill()
        await run.says(`the disk of ${small}/data is full (`, 15_000)
        fill()
        const refused = await post(`/servers/${server.uuid}/vms`, vm())
        assert.ok(refused.status >= 500, `${refused.status} ${await refused.text()}`)
        rmSync(filler)
        await run.says(`the disk of ${small}/data has space again`, 20_000)
        await eventually(async () => (await post(`/servers/${server.uuid}/nop`, {})).status < 300, {
          withinMs: 30_000,
          everyMs: 500,
          what: 'changes are accepted again',
        })
        assert.is(await run.stop(), 0)
      } finally {
        await current().stop('SIGKILL')
        await eventually(() => spawnSync('umount', [small]).status === 0, { withinMs: 20_000, everyMs: 200 })
      }
    },
    { limitMs: 150_000 },
  )

test.run()

function start(more: NodeJS.ProcessEnv = {}, command?: [string, ...string[]]): StartRun {
  const run = runStart({ ...env, ...more }, { ...(root ? { uid: nobody } : {}), ...(command ? { command } : {}) })
  runs.push(run)
  return run
}

function current(): StartRun {
  const run = runs.findLast(({ child }) => child.exitCode === null && child.signalCode === null) ?? runs.at(-1)
  if (!run) throw new Error('nothing was started')
  return run
}

// biome-ignore lint/suspicious/noExplicitAny: bodies of every shape
async function get(path: string): Promise<any> {
  const response = await fetch(url + path, { signal: AbortSignal.timeout(10_000) })
  if (!response.ok) throw new Error(`GET ${path}: ${response.status} ${await response.text()}`)
  return response.json()
}

function post(path: string, body: object): Promise<Response> {
  const headers = { 'content-type': 'application/json' }
  return fetch(url + path, { method: 'POST', headers, body: JSON.stringify(body), signal: AbortSignal.timeout(30_000) })
}

const vm = (uuid?: string) => ({
  ...(uuid ? { uuid } : {}),
  alias: 'first',
  ram: 256,
  vcpus: 1,
  brand: 'kvm',
  owner_uuid: vmUuid,
  disks: [{ size: 1024 }],
})

async function createVm(server: string): Promise<void> {
  const response = await post(`/servers/${server}/vms`, vm(vmUuid))
  const { id } = (await response.json()) as { id: string }
  assert.ok(response.ok, JSON.stringify(id))
  const task = await get(`/tasks/${id}/wait?timeout=8`)
  assert.is(task.status, 'complete', JSON.stringify(task))
}

/** The uuid of the VM that was created, as the list of its server shows it. */
async function shownVm(): Promise<string | undefined> {
  for (const { uuid } of await get('/servers')) {
    const vms: { uuid: string }[] = await get(`/servers/${uuid}/vms`)
    const found = vms.find(one => one.uuid === vmUuid)
    if (found) return found.uuid
  }
  return undefined
}

/** Pids of the processes below a start; `deep`: also those of its children, as npm puts a shell in between. */
function childrenOf(run: StartRun, deep = false): number[] {
  const below = (pid: number): number[] => {
    const text = read(`/proc/${pid}/task/${pid}/children`)
    const pids = text.split(' ').filter(Boolean).map(Number)
    return deep ? pids.flatMap(child => [child, ...below(child)]) : pids
  }
  return below(run.child.pid ?? 0)
}

/** Processes of this test that nobody has ended: they carry its folder in their environment or command. */
function left(): number[] {
  const pids = execFileSync('ps', ['-eo', 'pid='], { encoding: 'utf8' }).split('\n').map(Number)
  return pids.filter(
    pid => pid && pid !== process.pid && (commandOf(pid) + read(`/proc/${pid}/environ`)).includes(folder),
  )
}

const commandOf = (pid: number) => read(`/proc/${pid}/cmdline`).replaceAll('\0', ' ')
const uidOf = (pid: number) => Number(/^Uid:\s+(\d+)/m.exec(read(`/proc/${pid}/status`))?.[1])
const alive = (pid: number) => /^State:\s+[^ZX]/m.test(read(`/proc/${pid}/status`))

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
