/** What a guest's shell is told about programs and files, tried with this machine's own shell. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { DETACH, FOLLOW, FORGET, KILL, PREPARE, STAT } from '../../hypervisor-agent/libvirt/guest-words.ts'
import { eventually } from '../eventually.ts'
import { suite } from '../suite.ts'

const test = suite('words for a guest’s shell')
let folder = ''
let count = 0
test.before(() => {
  folder = mkdtempSync(join(tmpdir(), 'muster-words-'))
})
test.after(() => rmSync(folder, { recursive: true, force: true }))

const say = (words: string, ...args: string[]) => spawnSync('/bin/sh', ['-c', words, 'sh', ...args])

/** A prepared folder of a program. */
function place(): string {
  count += 1
  const made = join(folder, `program-${count}`)
  assert.is(say(PREPARE, made).status, 0)
  return made
}

function begin(
  at: string,
  way: 'plain' | 'input',
  ...command: string[]
): { child: ChildProcess; end: Promise<number> } {
  const words = ['-c', FOLLOW, 'sh', at, way, '/', '', ...command]
  const child = spawn('/bin/sh', words, { stdio: 'ignore', detached: true })
  const end = new Promise<number>(resolve => child.once('exit', (code, signal) => resolve(code ?? (signal ? -1 : 0))))
  return { child, end }
}
const out = (at: string, name: 'out' | 'err' = 'out') => readFileSync(join(at, name), 'utf8')

test('a program’s words are its own, its outputs are files, and its code is the end', async () => {
  const at = place()
  const { end } = begin(at, 'plain', 'sh', '-c', 'echo "$1"; echo bad >&2; exit 7', 'x', "it's; $(reboot) *")
  assert.is(await end, 7)
  assert.equal([out(at), out(at, 'err')], ["it's; $(reboot) *\n", 'bad\n'])
  assert.is(await begin(at, 'plain', 'echo', 'again').end, 0)
  assert.is(out(at), "it's; $(reboot) *\n", 'the same folder begins nothing again')
  say(KILL, at)
  assert.not.ok(existsSync(at))
})

test('no word is taken for one of the shell', async () => {
  for (const name of ['exit', 'feed', 'no-such-program']) {
    const at = place()
    assert.is(await begin(at, 'plain', name, '3').end, 127)
  }
})

test('input reaches the program as it grows, to the last byte', async () => {
  const at = place()
  const { end } = begin(at, 'input', 'cat')
  appendFileSync(join(at, 'in'), 'first\n')
  await eventually(() => out(at) === 'first\n', { what: 'the first line coming back' })
  appendFileSync(join(at, 'in'), 'x'.repeat(300_000))
  writeFileSync(join(at, 'closed'), '')
  assert.is(await end, 0)
  assert.is(out(at).length, 300_006)
})

test('a program is killed with what it has started', async () => {
  const at = place()
  const { end } = begin(at, 'plain', 'sh', '-c', 'sleep 300 & echo $!; wait')
  const pid = Number(await eventually(() => out(at).trim(), { what: 'the child’s number' }))
  say(KILL, at)
  assert.is(await end, -1)
  const stat = `/proc/${pid}/stat`
  await eventually(() => !existsSync(stat) || /\) Z /.test(readFileSync(stat, 'utf8')), {
    what: 'the child being gone',
  })
  assert.not.ok(existsSync(at))
})

test('a detached program is begun once, and goes on when it is forgotten at once', async () => {
  const at = place()
  const mark = join(folder, 'detached')
  const command = ['sh', '-c', `sleep 0.2; echo done >> ${mark}`]
  for (let n = 0; n < 2; n++) assert.is(say(DETACH, FOLLOW, 'sh', at, 'detached', '/', '', ...command).status, 0)
  say(FORGET, at)
  await eventually(() => existsSync(mark), { what: 'its mark' })
  assert.is(readFileSync(mark, 'utf8'), 'done\n')
  assert.not.ok(existsSync(at))
})

test('a path is described itself, with where a link leads, and one that is not there is told by its code', () => {
  const [file, link] = [join(folder, 'a file'), join(folder, 'link')]
  writeFileSync(file, 'four', { mode: 0o640 })
  symlinkSync('/', link)
  assert.match(say(STAT, file).stdout.toString(), /^81a0 4 \d+ \n$/)
  assert.match(say(STAT, link).stdout.toString(), /^a1ff \d+ \d+ folder\n\/\n$/)
  assert.is(say(STAT, join(file, 'none')).status, 44)
})

test.run()
