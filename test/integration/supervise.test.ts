/** The supervisor behind `npm start`, on real processes: what dies comes back, what stays dead is explained, the end is in order. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { OperatorProblem } from '../../scripts/operator-problem.ts'
import { type Program, supervisor } from '../../scripts/supervise.ts'
import { eventually } from '../eventually.ts'
import { suite } from '../suite.ts'

const test = suite('supervisor')
const logDir = mkdtempSync(join(tmpdir(), 'muster-supervise-'))
test.after(() => rmSync(logDir, { recursive: true }))

/** A program that runs a line of JavaScript, under a log of its own. */
let made = 0
function program(name: string, source: string): Program {
  made += 1
  return { name, file: `${made}-${name}`, command: process.execPath, args: ['-e', source], env: {} }
}
const log = (one: Program) => readFileSync(join(logDir, `${one.file}.log`), 'utf8')
const hasLogged = (one: Program, text: string) => async () => log(one).includes(text)
const forever = "console.log('up'); setInterval(() => {}, 1000)"

function harness(options: { graceMs?: number; signal?: AbortSignal } = {}) {
  const said: string[] = []
  return { said, ...supervisor({ logDir, say: line => said.push(line), ...options }) }
}

test('a child that is killed runs again after a pause, with one line that names it, how it ended and its log', async () => {
  const { said, start, stop, pids } = harness()
  const one = program('gateway', forever)
  await start(one, hasLogged(one, 'up'))
  const first = pids()['gateway'] ?? 0
  process.kill(first, 'SIGKILL')
  const second = await eventually(() => (pids()['gateway'] !== first ? pids()['gateway'] : undefined))
  assert.is.not(second, first)
  assert.equal(said, [`gateway ended (SIGKILL); starting it again in 0.5 s (log: ${join(logDir, one.file)}.log)`])
  await stop()
  assert.equal(pids(), {})
})

test('the line quotes the last error of the run, in the words of pino, Node or nats-server', async () => {
  const lines: [string, string][] = [
    [`console.log(JSON.stringify({ level: 60, msg: 'no lease', err: { message: 'refused' } }))`, 'no lease: refused'],
    [`console.log('Error: plain trouble')`, 'plain trouble'],
    [`console.error('gateway: port 80 needs root')`, 'port 80 needs root'],
    [`console.log('[7] 2026/01/01 10:00:00.0 [FTL] disk is gone')`, 'disk is gone'],
    [`console.log(JSON.stringify({ level: 30, msg: 'all is well' }))`, ''],
  ]
  for (const [source, words] of lines) {
    const { start, stop } = harness()
    const problem = await start(program('host', `${source}; process.exitCode = 3`), async () => false).catch(
      error => error,
    )
    assert.instance(problem, OperatorProblem)
    assert.match(problem.message, `host ended (exit code 3)${words && `: ${words}`} (log:`)
    await stop()
  }
})

test('a program that is not there is explained', async () => {
  const { start, stop } = harness()
  const absent = { ...program('agent', ''), command: '/nonexistent/agent' }
  const problem = await start(absent, async () => false).catch(error => error)
  assert.match(problem.message, /agent ended .*(No such file|ENOENT|exit code 127)/)
  await stop()
})

test('one that lives but never serves is given up after its time, and progress is told meanwhile', async () => {
  const { said, start, stop } = harness()
  const problem = await start(program('slow', forever), async () => false, { readyMs: 1_300 }).catch(error => error)
  assert.match(problem.message, /^slow is not ready after 1\.3 s/)
  assert.equal(said, ['waiting for slow (1 s)'])
  await stop()
})

test('all end in reverse order, and one that ignores the signal is killed after its grace', async () => {
  const { said, start, stop } = harness({ graceMs: 1_200 })
  const orderly = (name: string) =>
    program(
      name,
      `process.on('SIGTERM', () => { console.log('${name} ended', Date.now()); process.exit() }); ${forever}`,
    )
  const [first, deaf, last] = [
    orderly('first'),
    program('deaf', `process.on('SIGTERM', () => console.log('heard', Date.now())); ${forever}`),
    orderly('last'),
  ]
  for (const one of [first, deaf, last]) await start(one, hasLogged(one, 'up'))
  await stop()
  const at = (one: Program) => Number(/(\d{13})/.exec(log(one))?.[1])
  assert.ok(at(last) <= at(deaf) && at(deaf) < at(first), `${at(last)} ${at(deaf)} ${at(first)}`)
  assert.equal(said, ['waiting for deaf to end', 'deaf did not end within 1.2 s; killing it'])
})

test('a start that is interrupted stops waiting', async () => {
  const interrupt = new AbortController()
  const { start, stop } = harness({ signal: interrupt.signal })
  const waiting = start(program('never', forever), async () => false).catch(error => error)
  interrupt.abort()
  assert.instance(await waiting, OperatorProblem)
  await stop()
})

test.run()
