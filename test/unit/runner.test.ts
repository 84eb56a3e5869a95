/** The guarded runner fails every file that uvu would let pass: each case here is one that uvu alone exits 0 on. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { suite } from '../suite.ts'

const test = suite('test runner')
const root = new URL('../..', import.meta.url).pathname
const folder = mkdtempSync(join(root, 'test', '.runner-'))
const head = `import { suite } from '../suite.ts'\nconst test = suite('sample')\n`

const cases: [claim: string, source: string, passes: boolean][] = [
  ['a passing file passes', `${head}test('a', () => {})\ntest.run()`, true],
  ['a failing test fails', `${head}test('a', () => { throw new Error('no') })\ntest.run()`, false],
  [
    'a before hook that throws fails',
    `${head}test.before(() => { throw new Error('no') })\ntest('a', () => {})\ntest.run()`,
    false,
  ],
  [
    'an after hook that throws fails',
    `${head}test.after(() => { throw new Error('no') })\ntest('a', () => {})\ntest.run()`,
    false,
  ],
  ['a thrown string fails', `${head}test('a', () => { throw 'no' })\ntest.run()`, false],
  ['a forgotten run() fails', `${head}test('a', () => {})`, false],
  [
    'a test that never ends fails',
    `${head}test('a', () => new Promise(() => setInterval(() => {}, 1000)), { limitMs: 200 })\ntest.run()`,
    false,
  ],
  [
    'a bare uvu skip without a reason fails',
    `import { test } from 'uvu'\ntest('b', () => {})\ntest.skip('a', () => {})\ntest.run()`,
    false,
  ],
]

test.after(() => rmSync(folder, { recursive: true }))

for (const [claim, source, passes] of cases) {
  test(claim, () => {
    const file = join(folder, `${claim.replaceAll(/\W+/g, '-')}.test.ts`)
    writeFileSync(file, source)
    const run = spawnSync(process.execPath, [join(root, 'test/run.mjs'), file], { encoding: 'utf8', timeout: 60_000 })
    assert.is(run.status === 0, passes, run.stdout)
    const last = run.stdout.trim().split('\n').at(-1) ?? ''
    assert.match(last, passes ? /^1 passed, 0 failed$/ : /^\d+ passed, [1-9]\d* failed/)
  })
}

test.run()
