/** Scripts that callers send: allowed or not, as whom, for how long, with how much output, and never begun twice. */
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { openScripts, outputMaxBytes, type Scripts } from '../../hypervisor-agent/host/scripts.ts'
import { eventually } from '../eventually.ts'
import { suite } from '../suite.ts'
import { offer, simulatedNode } from './agent-fixture.ts'

const test = suite('scripts')
const isRoot = userInfo().uid === 0

async function withScripts(body: (scripts: Scripts, stateDir: string) => Promise<void>, user?: string): Promise<void> {
  const stateDir = mkdtempSync(join(tmpdir(), 'muster-scripts-'))
  // As an agent makes its state folder: others may pass through.
  chmodSync(stateDir, 0o751)
  try {
    await body(await openScripts({ stateDir, allowed: user === undefined ? {} : { user } }), stateDir)
  } finally {
    rmSync(stateDir, { recursive: true, force: true })
  }
}

const never = new AbortController().signal
const isAlive = (pid: number) => {
  try {
    process.kill(pid, 0)
    // A zombie waits for its parent; it runs no more.
    return !readFileSync(`/proc/${pid}/stat`, 'utf8').includes(') Z ')
  } catch {
    return false
  }
}

test('nothing is run unless the configuration allows it', async () => {
  const node = await simulatedNode()
  const agent = await node.agent()
  for (const [task, params] of [
    ['server_run_script', { script: 'id' }],
    ['command_execute', { script: 'id' }],
  ] as const) {
    const asked = offer(task, params)
    await agent.executor.accept(asked)
    const end = await node.owner.end(asked.id)
    assert.is(end.error?.code, 'ExecuteNotAllowed')
    assert.match(end.error?.message ?? '', /EXECUTE=on/)
  }
  await agent.kill()
  await node.remove()
})

test('of each output the first 64 KiB are kept, and what was cut off is said', () =>
  withScripts(async scripts => {
    const end = await scripts.run('head -c 3000000 /dev/zero | tr "\\0" x; echo short >&2', {
      timeoutMs: 20_000,
      signal: never,
    })
    assert.is(end.stdout.indexOf('\n[cut off'), outputMaxBytes)
    assert.is(end.stderr, 'short\n')
    assert.is(end.exitCode, 0)
  }))

test('a script past its time is killed with all it started', () =>
  withScripts(async (scripts, stateDir) => {
    const file = join(stateDir, 'pid')
    const end = await scripts.run('sleep 60 & echo $! > "$1"; trap "" TERM; wait; sleep 60', {
      args: [file],
      timeoutMs: 300,
      signal: never,
    })
    assert.is(end.isLate, true)
    assert.is(end.exitCode, null)
    const pid = Number(readFileSync(file, 'utf8'))
    await eventually(() => !isAlive(pid), { what: 'the end of what it started' })
  }))

test('a cancelled script is killed, and its caller hears why', () =>
  withScripts(async (scripts, stateDir) => {
    const file = join(stateDir, 'pid')
    const stopping = new AbortController()
    const running = scripts.run('echo $$ > "$1"; sleep 60', {
      args: [file],
      timeoutMs: 60_000,
      signal: stopping.signal,
    })
    await eventually(() => existsSync(file) && readFileSync(file, 'utf8').endsWith('\n'))
    stopping.abort(new Error('cancelled'))
    try {
      await running
      assert.unreachable()
    } catch (error) {
      assert.is((error as Error).message, 'cancelled')
    }
    assert.not.ok(isAlive(Number(readFileSync(file, 'utf8'))))
  }))

test('a script that is cancelled before it has begun does not begin', () =>
  withScripts(async (scripts, stateDir) => {
    const cancel = new AbortController()
    const mark = join(stateDir, 'begun')
    const run = scripts.run('touch "$1"; sleep 5', { args: [mark], timeoutMs: 20_000, signal: cancel.signal })
    cancel.abort(new Error('ended by its owner'))
    assert.is(await run.catch(error => error.message), 'ended by its owner')
    assert.is(existsSync(mark), false)
    assert.equal(readdirSync(join(stateDir, 'scripts')), [])
  }))

test('what a script leaves running does not hold its end up', () =>
  withScripts(async (scripts, stateDir) => {
    const file = join(stateDir, 'pid')
    const end = await scripts.run('sleep 30 & echo $! > "$1"; echo done', {
      args: [file],
      timeoutMs: 25_000,
      signal: never,
    })
    assert.equal([end.exitCode, end.stdout, end.isLate], [0, 'done\n', false])
    process.kill(Number(readFileSync(file, 'utf8')))
  }))

test('the file of a script is gone after it, and those of an agent that died with the next start', () =>
  withScripts(async (scripts, stateDir) => {
    await scripts.run('true', { timeoutMs: 10_000, signal: never })
    const folder = join(stateDir, 'scripts')
    assert.equal(readdirSync(folder), [])
    writeFileSync(join(folder, 'left'), 'secret')
    await openScripts({ stateDir, allowed: {} })
    assert.equal(readdirSync(folder), [])
  }))

test('a user that does not exist is told at the start', async () => {
  try {
    await withScripts(async () => assert.unreachable(), 'nobody-of-that-name')
    assert.unreachable()
  } catch (error) {
    assert.match((error as Error).message, /EXECUTE_USER=nobody-of-that-name: there is no such user/)
  }
})

if (isRoot) {
  test('an agent that is root runs scripts as the named user, without root\u2019s groups', () =>
    withScripts(async (scripts, stateDir) => {
      const end = await scripts.run('id -un; id -G; cat "$1" 2>&1 || true', {
        args: [join(stateDir, 'private')],
        timeoutMs: 10_000,
        signal: never,
      })
      const [name, groups] = end.stdout.split('\n')
      assert.is(name, 'nobody', JSON.stringify(end))
      assert.not.ok((groups ?? '').split(' ').includes('0'))
    }, 'nobody'))
}

test('a script that the agent\u2019s death interrupted is not begun again, and its task says so', async () => {
  const node = await simulatedNode({ execute: {} })
  const file = join(node.stateDir, 'runs')
  for (const task of ['server_run_script', 'command_execute'] as const) {
    writeFileSync(file, '')
    const first = await node.agent({
      throughTools: tools => ({
        ...tools,
        scripts: {
          run: async (script, options) => {
            await tools.scripts.run(script, options)
            return new Promise(() => {})
          },
        },
      }),
    })
    const asked = offer(task, { script: `echo x >> ${file}` })
    await first.executor.accept(asked)
    await eventually(() => readFileSync(file, 'utf8') === 'x\n')
    await first.kill()
    const second = await node.agent()
    second.executor.resume()
    const end = await node.owner.end(asked.id)
    assert.is(end.error?.code, 'TaskFailed')
    assert.match(end.error?.message ?? '', /not run again/)
    assert.is(readFileSync(file, 'utf8'), 'x\n')
    await second.kill()
  }
  await node.remove()
})

test('a script that has ended is not run again for an agent that died before it could say so', async () => {
  const node = await simulatedNode({ execute: {} })
  const file = join(node.stateDir, 'runs')
  let isDead = false
  node.owner.answer = ({ status }) => {
    if (status !== 'complete' || isDead) return { go: true }
    isDead = true
    return new Promise(() => {})
  }
  const first = await node.agent()
  const asked = offer('server_run_script', { script: `echo x >> ${file}; exit 7` })
  await first.executor.accept(asked)
  await eventually(() => isDead)
  await first.kill()
  const second = await node.agent()
  second.executor.resume()
  await eventually(() => second.journal.open().length === 0)
  assert.is(readFileSync(file, 'utf8'), 'x\n')
  assert.equal(node.owner.ends(asked.id).at(-1)?.result, { exit_code: 7, stdout: '', stderr: '' })
  await second.kill()
  await node.remove()
})

test.run()
